"""Shows the figures as tables and charts, in Markdown."""

import json
import os
import platform

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

{chart(figures, ANSWER, unit)}

{chart(figures, WARM, unit)}
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


def chart(figures: Figures, measure: str, unit: str) -> str:
    """Return a bar for each contestant, which GitHub draws."""
    names, values = list(figures), [round(found[measure], 2) for found in figures.values()]
    return f"""```mermaid
xychart-beta horizontal
  title "{measure}, {unit}"
  x-axis {json.dumps(names)}
  bar {values}
```"""
