"""Shows the figures as a table and as a plot."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

type Figures = dict[str, dict[str, float]]  # by contestant and measure

START, ANSWER, WARM = "start", "start to first answer", "warm call"
# Each ratio: the measure, ours and the contestant that it is compared with.
RATIOS = [
    (START, "ours", "usual"),
    (START, "ours", "careful"),
    (START, "ours", "floor"),
    (ANSWER, "ours", "usual"),
    (ANSWER, "ours", "usual, HTTP only"),
    (ANSWER, "ours", "careful"),
    (WARM, "ours", "usual"),
    (WARM, "ours", "careful"),
    (START, "ours, events", "usual, events"),
    (START, "ours, events", "careful, events"),
    (START, "ours, events", "floor, events"),
    (ANSWER, "ours, events", "usual, events"),
    (ANSWER, "ours, events", "careful, events"),
    (WARM, "ours, events", "usual, events"),
    (START, "ours, limits", "usual"),
]


def report(figures: Figures, unit: str) -> str:
    """Return the report as Markdown."""
    system = f"{platform.system()} {platform.machine()} ({os.cpu_count()} cores), Python {platform.python_version()}"
    return f"""# Benchmark results

Measured by `make bench` on {system}. The first three columns are {unit}.

- Valgrind counts user-mode instructions. Where it is not installed, processor time replaces them.
- Warm calls are the 3rd to the 21st.

{table(figures)}

{ratios(figures)}
"""


def table(figures: Figures) -> str:
    """Return a row for each contestant and a column for each measure."""
    measures = list(dict.fromkeys(measure for found in figures.values() for measure in found))
    rows = [[name, *(_cell(found.get(measure)) for measure in measures)] for name, found in figures.items()]
    return _markdown([["", *measures], *rows])


def ratios(figures: Figures) -> str:
    """Return a row for each ratio."""
    rows = {
        f"{measure}: {name} / {other}": figures[name][measure] / figures[other][measure]
        for measure, name, other in RATIOS
    }
    empty, raw = (figures[name][WARM] for name in ("empty", "raw urllib3"))
    for name in ("ours", "ours, untraced", "ours, quiet"):
        rows[f"{WARM}: {name} / raw urllib3, both without empty"] = (figures[name][WARM] - empty) / (raw - empty)
    return _markdown([["", "ratio"], *([label, f"{ratio:.3f}"] for label, ratio in rows.items())])


def _markdown(cells: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(map(str.ljust, row, widths))} |" for row in cells)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"  # noqa: PLR2004 - three significant digits


def plot(figures: Figures, unit: str, file: Path) -> None:
    """Draw the cost of a cold start with its first answer, and of a warm call, by contestant."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    names = list(reversed(figures))
    for axes, measure in zip(figure.subplots(1, 2, sharey=True), (ANSWER, WARM), strict=True):
        values = [figures[name][measure] for name in names]
        axes.barh(names, values, color=["#c2410c" if name.startswith("ours") else "#94a3b8" for name in names])
        axes.set_xlim(0, 1.25 * max(values))
        for row, value in enumerate(values):
            axes.text(value, row, f" {value:,.1f}", va="center")
        axes.set_title(f"{measure}, {unit}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150, metadata={"Software": None})
