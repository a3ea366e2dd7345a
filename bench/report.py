"""Shows the measurements as tables and as a plot."""

from __future__ import annotations

import os
import platform
import re
from collections import defaultdict
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

type Samples = defaultdict[str, dict[str, list[float]]]

TIME = ", ms"  # the end of each measure of wall time


def report(samples: Samples, unit: str, rounds: int, count_rounds: int) -> str:
    """The whole report as Markdown."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"""# Benchmark results

Measured by `make bench` on {model[1] if model else platform.machine()} ({os.cpu_count()} cores), {system}.

- Each round measures every contestant. Figures are medians of {rounds} rounds, or of {count_rounds} for {unit}.
- "±" is half the interquartile range. It is left out below 1 %.
- Valgrind counts user-mode instructions. Where it is not installed, processor time replaces them.
- Wall time is relative to "usual, Session" or, for events, to "usual, events" in the same round.

{results(samples, unit)}

## Targets

{targets(samples, unit)}
"""


def results(samples: Samples, unit: str) -> str:
    """A table of every measure by contestant."""
    names = list(dict.fromkeys(name for found in samples.values() for name in found))
    rows = []
    for measure, found in sorted(samples.items(), key=lambda item: unit not in item[0]):
        label, values = measure, found
        if measure.endswith(TIME):
            label, values = f"{measure.removesuffix(TIME)}, time / usual", _relative_times(found)
        rows.append([label, *(_cell(values[name]) if name in values else "" for name in names)])
    return _table(["", *names], rows)


def _relative_times(found: dict[str, list[float]]) -> dict[str, list[float]]:
    # Rounds are compared one by one because the speed of a shared machine changes between them.
    usual = {name: found["usual, events" if "events" in name else "usual, Session"] for name in found}
    return {name: [a / b for a, b in zip(times, usual[name], strict=True)] for name, times in found.items()}


def _cell(values: list[float]) -> str:
    middle = median(values)
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (middle,) * 3
    spread = round((high - low) / 2 / middle * 100) if middle else 0
    digits = 0 if middle >= 100 or middle.is_integer() else 2  # noqa: PLR2004 - three significant digits
    return f"{middle:,.{digits}f}" + (f" ±{spread} %" if spread else "")


def targets(samples: Samples, unit: str) -> str:
    """A table of the targets: what was measured, the limit, and whether the target is met."""

    def of(measure: str, name: str = "ours") -> float:
        return median(samples[measure][name])

    start, answer, warm = (f"{measure}, {unit}" for measure in ("start", "start to first answer", "warm call"))
    usual, usual_events, events = "usual, Session", "usual, events", "ours, events"
    without_runtime = (of(warm) - of(warm, "empty")) / of(warm, "raw urllib3")
    rows: list[tuple[str, float, float]] = [
        ("HTTP: start / usual", of(start) / of(start, usual), 0.38),
        ("HTTP: start to first answer / usual", of(answer) / of(answer, usual), 0.34),
        ("HTTP: warm call / raw urllib3, without Lambda's runtime", without_runtime, 2.0),
        ("HTTP: warm call / usual, Session", of(warm) / of(warm, usual), 0.75),
        ("events: start / usual", of(start, events) / of(start, usual_events), 0.65),
        ("events: start to first answer / usual", of(answer, events) / of(answer, usual_events), 0.52),
        ("events: warm call (two to AWS) / usual (one)", of(warm, events) / of(warm, usual_events), 0.95),
        ("timer: start / usual", of(start, "ours, timer") / of(start, usual), 0.62),
        ("HTTP: memory at start, MiB", of("memory at start, MiB"), 30),
        ("events: memory at start, MiB", of("memory at start, MiB", events), 44),
    ]
    for trigger, name in {"HTTP": "ours", "events": events}.items():
        growth = of("memory after 10,000 calls, MiB", name) - of("memory after 1,000 calls, MiB", name)
        rows += [
            (f"{trigger}: connections in 50 calls", of("connections to Tavus in 50 calls", name), 1),
            (f"{trigger}: CA bundles loaded in 50 calls", of("CA bundles loaded in 50 calls", name), 0),
            (f"{trigger}: second call / 22nd to 101st", of("second call / 22nd to 101st", name), 1.05),
            (f"{trigger}: MiB more after 10,000 calls than after 1,000", growth, 0.5),
        ]
    rows.append(("zip, MB", of("zip, MB"), 5.0))
    return _table(
        ["", "measured", "target", ""],
        [[what, f"{found:.2f}", f"≤ {limit:g}", "met" if found <= limit else "missed"] for what, found, limit in rows],
    )


def _table(head: list[str], rows: Sequence[list[str]]) -> str:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def plot(samples: Samples, unit: str, file: Path) -> None:
    """Draw the cost of a cold start with its first answer, and of a warm call, by contestant."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    names = list(reversed(samples[f"start, {unit}"]))
    for axes, measure in zip(figure.subplots(1, 2, sharey=True), ("start to first answer", "warm call"), strict=True):
        values = [median(samples[f"{measure}, {unit}"][name]) for name in names]
        axes.barh(names, values, color=["#c2410c" if name.startswith("ours") else "#94a3b8" for name in names])
        # "usual, post" opens a connection for each call. Its bar is cut off to leave room for the others.
        axes.set_xlim(0, limit := 1.25 * sorted(values)[-2])
        for row, value in enumerate(values):
            axes.text(min(value, limit), row, f" {value:,.1f} ", va="center", ha="left" if value < limit else "right")
        axes.set_title(f"{measure}, {unit}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150, metadata={"Software": None})
