"""Shows the figures as a table and as a plot."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

type Figures = dict[str, dict[str, float]]  # by contestant and measure

COUNTED = ("start", "start to first answer", "warm call")


def report(figures: Figures, unit: str) -> str:
    """Return the report as Markdown."""
    system = f"{platform.system()} {platform.machine()} ({os.cpu_count()} cores), Python {platform.python_version()}"
    return f"""# Benchmark results

Measured by `make bench` on {system}.

- Valgrind counts user-mode instructions. Where it is not installed, processor time replaces them.
- "Usual" is "usual, Session" or, for events, "usual, events".
- Warm calls are the 2nd to the 21st.

{table(figures, unit)}
"""


def table(figures: Figures, unit: str) -> str:
    """Return a row for each measure and a column for each contestant."""
    rows: dict[str, dict[str, float]] = {}
    for name, found in figures.items():
        usual = figures["usual, events" if name.endswith("events") else "usual, Session"]
        labelled = {f"{measure}, {unit}": found[measure] for measure in COUNTED}
        labelled |= {f"{measure} / usual": found[measure] / usual[measure] for measure in COUNTED}
        labelled |= {measure: value for measure, value in found.items() if measure not in COUNTED}
        for label, value in labelled.items():
            rows.setdefault(label, {})[name] = value
    empty, raw, ours = (figures[name]["warm call"] for name in ("empty", "raw urllib3", "ours"))
    rows["warm call / raw urllib3, both without empty"] = {"ours": (ours - empty) / (raw - empty)}
    cells = [["", *figures], *([label, *(_cell(row.get(name)) for name in figures)] for label, row in rows.items())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(map(str.ljust, row, widths))} |" for row in cells)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"  # noqa: PLR2004 - three significant digits


def plot(figures: Figures, unit: str, file: Path) -> None:
    """Draw the cost of a cold start with its first answer, and of a warm call, by contestant."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    names = list(reversed(figures))
    for axes, measure in zip(figure.subplots(1, 2, sharey=True), ("start to first answer", "warm call"), strict=True):
        values = [figures[name][measure] for name in names]
        axes.barh(names, values, color=["#c2410c" if name.startswith("ours") else "#94a3b8" for name in names])
        # "usual, post" opens a connection for each call. Its bar is cut off to leave room for the others.
        axes.set_xlim(0, limit := 1.25 * sorted(values)[-2])
        for row, value in enumerate(values):
            axes.text(min(value, limit), row, f" {value:,.1f} ", va="center", ha="left" if value < limit else "right")
        axes.set_title(f"{measure}, {unit}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150, metadata={"Software": None})
