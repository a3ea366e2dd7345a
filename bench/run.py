"""`make bench`: every contestant in turn, round after round, in one run."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.artefacts import contestants
from bench.measure import ROUNDS, Bench
from bench.report import machine, plot, results, targets
from bench.world import World
from local.console import step
from local.process import ROOT, ProcessFailed, interrupt_once


def main() -> None:
    """Measure, show the tables, and write them and the plot."""
    interrupt_once()
    try:
        with TemporaryDirectory() as scratch, World(Path(scratch)).serving() as world:
            report(measured(Bench(world, Path(scratch))))
    except (ProcessFailed, RuntimeError) as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped.")


def measured(bench: Bench) -> Bench:
    """Take every sample."""
    everyone = contestants()
    for contestant in everyone:
        bench.samples["zip, MB"][contestant.name].append(contestant.zip_bytes() / 1e6)
    for number in range(1, ROUNDS + 1):
        with step(f"Round {number} of {ROUNDS}"):
            for contestant in everyone:
                bench.burst(contestant)
                bench.throttled(contestant)
    for number in range(1, bench.counter.rounds + 1):
        with step(f"Counting {bench.counter.name}: round {number} of {bench.counter.rounds}"):
            for contestant in everyone:
                bench.counted(contestant)
            bench.raw()
    with step("Many calls, for the memory"):
        for contestant in everyone:
            if contestant.ours:
                bench.endure(contestant)
    return bench


def report(bench: Bench) -> None:
    """Show what was measured, and write it down."""
    unit = bench.counter.unit
    text = f"""# Measured

By `make bench` on {machine()}. Medians of {ROUNDS} rounds, in each of which every
contestant has its turn, and half the interquartile range where it is 1 % or more; of {bench.counter.rounds} rounds for
{bench.counter.name}. Time is wall time, beside that of "usual, Session" or, for events, of "usual, events" in
the same round.

{results(bench.samples, unit)}

## Targets

{targets(bench.samples, unit)}
"""
    print(f"\n{text}")
    (ROOT / "bench/results.md").write_text(text)
    plot(bench.samples, unit, ROOT / "bench/results.png")


if __name__ == "__main__":
    main()
