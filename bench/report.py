"""What was measured, as tables and as a plot."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from bench.measure import Samples

WALL = ", ms"  # ends the name of a measure that is wall time


def results(samples: Samples, unit: str) -> str:
    """Every measure by contestant: the median, and where they differ, half the interquartile range."""
    names = list(dict.fromkeys(name for found in samples.values() for name in found))
    rows = []
    for measure, found in sorted(samples.items(), key=lambda item: unit not in item[0]):
        timed = measure.endswith(WALL)
        cells = {name: _of_the_usual(samples, measure, name) if timed else values for name, values in found.items()}
        label = f"{measure.removesuffix(WALL)}, time / usual" if timed else measure
        rows.append([label, *(_cell(cells[name]) if name in cells else "" for name in names)])
    return _table(["", *names], rows)


def _of_the_usual(samples: Samples, measure: str, name: str) -> list[float]:
    """Times as shares of the usual's at the same door in the same round, so that the machine's own pace drops out."""
    usual = samples[measure]["usual, events" if "events" in name else "usual, Session"]
    return [one / other for one, other in zip(samples[measure][name], usual, strict=True)]


def _cell(values: list[float]) -> str:
    middle = median(values)
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (middle,) * 3
    spread = round((high - low) / 2 / middle * 100) if middle else 0
    # Three figures say enough, and two where there is little.
    digits = 0 if middle >= 100 or middle.is_integer() else 2 if middle >= 0.1 else 4  # noqa: PLR2004 - as said above
    return f"{middle:,.{digits}f}" + (f" ±{spread} %" if spread else "")


def targets(samples: Samples, unit: str) -> str:
    """What we set out for, what came of it, and whether that is met."""

    def of(measure: str, name: str = "ours") -> float:
        return median(samples[measure][name])

    start, first, warm = f"start, {unit}", f"start to first answer, {unit}", f"warm call, {unit}"
    second, usual, events = "second call / 22nd to 101st", "usual, Session", "ours, events"
    throttled = median(_of_the_usual(samples, f"first call at 128 MB{WALL}", events))
    flat = {
        name: of("memory after 10,000 calls, MiB", name) - of("memory after 1,000 calls, MiB", name)
        for name in ("ours", events)
    }
    rows: list[tuple[str, float, float | None]] = [
        ("HTTP: start / floor", of(start) / of(start, "floor"), 1.10),
        ("HTTP: start / usual", of(start) / of(start, usual), 0.65),
        ("HTTP: start to first answer / usual", of(first) / of(first, usual), 0.55),
        ("  and the stretch", of(first) / of(first, usual), 0.40),
        ("HTTP: warm call / raw urllib3", of(warm) / of(warm, "raw urllib3"), 2.5),
        ("  the same without Lambda's runtime", (of(warm) - of(warm, "empty")) / of(warm, "raw urllib3"), None),
        ("HTTP: warm call / usual with a Session", of(warm) / of(warm, usual), 0.75),
        ("HTTP: connections in 50 calls", of("connections to Tavus in 50 calls"), 1),
        ("HTTP: CA bundles loaded in 50 calls", of("CA bundles loaded in 50 calls"), 1),
        ("HTTP: memory at start, MiB", of("memory at start, MiB"), 34),
        ("HTTP: second call / 22nd to 101st", of(second), 1.05),
        ("HTTP: MiB more after 10,000 calls than after 1,000", flat["ours"], 0.5),
        ("events: start / floor", of(start, events) / of(start, "floor"), 2.0),
        ("events: first call at 128 MB / usual", throttled, 0.5),
        ("events: memory at start, MiB", of("memory at start, MiB", events), 50),
        ("events: connections in 50 calls", of("connections to Tavus in 50 calls", events), 1),
        ("events: CA bundles loaded in 50 calls", of("CA bundles loaded in 50 calls", events), 1),
        ("events: second call / 22nd to 101st", of(second, events), 1.05),
        ("events: MiB more after 10,000 calls than after 1,000", flat[events], 0.5),
        ("zip, MB", of("zip, MB"), 8),
    ]
    return _table(
        ["", "measured", "target", ""], [[what, f"{found:.2f}", *_verdict(found, limit)] for what, found, limit in rows]
    )


def _verdict(found: float, limit: float | None) -> list[str]:
    if limit is None:
        return ["", ""]
    return [f"≤ {limit:g}", "met" if found <= limit else "missed"]


def machine() -> str:
    """What it was measured on."""
    described = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", described)
    processor = model[1] if model else platform.machine()
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{processor} ({os.cpu_count()} cores), {system}"


def plot(samples: Samples, unit: str, file: Path) -> None:
    """Draw the start with the first call, and the warm call, of each contestant."""
    start, first, warm = (samples[f"{measure}, {unit}"] for measure in ("start", "first call", "warm call"))
    names = list(reversed(start))
    figure = Figure(figsize=(9, 3), layout="constrained")
    cold_axes, warm_axes = figure.subplots(1, 2, sharey=True)
    colours = ["#c2410c" if name.startswith("ours") else "#94a3b8" for name in names]
    begun = [median(start[name]) for name in names]
    bars = cold_axes.barh(names, begun, color=colours)
    cold_axes.bar_label(bars, fmt="{:,.0f}", label_type="center", color="white")
    cold_axes.barh(names, [median(first[name]) for name in names], left=begun, color=colours, alpha=0.5)
    cold_axes.set_title(f"cold start, and first call (pale)\n{unit}", fontsize=10)
    costs = [median(warm[name]) for name in names]
    warm_axes.barh(names, costs, color=colours)
    # The largest is cut off: a connection and a CA bundle for each call would leave the others no room.
    warm_axes.set_xlim(0, limit := 1.25 * sorted(costs)[-2])
    for row, cost in enumerate(costs):
        side = "left" if cost < limit else "right"
        warm_axes.text(min(cost, limit), row, f" {cost:,.1f} ", va="center", ha=side)
    warm_axes.set_title(f"warm call\n{unit}", fontsize=10)
    for axes in (cold_axes, warm_axes):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150, metadata={"Software": None})


def _table(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)
