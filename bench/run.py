"""`make bench`: measures every contestant, and writes the figures to bench/results.md."""

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from subprocess import CalledProcessError

from bench.build import CONTESTANTS, Contestant, build_contestants
from bench.report import report
from bench.sandbox import Sandbox, sandbox
from bench.world import World
from local.console import step
from local.process import ROOT, ProcessFailed, interrupt_once

# The numbers of calls after which the work and the memory are read.
WORK_AFTER, MEMORY_AFTER = (0, 1, 2, 3, 21), (0, 1_000, 10_000)
IN_FULL = ("ours", "ours, events")  # those whose memory is read after many calls
ROUNDS_WITHOUT_VALGRIND = 9  # processor time varies more than instruction counts


def main() -> None:
    """Measure, and print and write the report."""
    interrupt_once()
    valgrind = shutil.which("valgrind") is not None
    unit = "M instructions" if valgrind else "ms of processor time"
    figures = {}
    try:
        with World() as world:
            with step("Building the contestants"):
                build_contestants(world.authority)
            for contestant in CONTESTANTS:
                with step(f"Measuring {contestant.name}"):
                    figures[contestant.name] = measure(contestant, world.environment, valgrind=valgrind)
    except (ProcessFailed, CalledProcessError) as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    text = report(figures, unit)
    print(f"\n{text}")
    (ROOT / "bench/results.md").write_text(text)


def measure(contestant: Contestant, world: Mapping[str, str], *, valgrind: bool) -> dict[str, float]:
    """Return the figures of a contestant by measure. Raises ProcessFailed or CalledProcessError."""

    def read(value: Callable[[Sandbox], float], after: tuple[int, ...], *, valgrind: bool) -> dict[int, float]:
        found = {}
        with sandbox(contestant, world, valgrind=valgrind) as running:
            for calls in range(after[-1] + 1):
                if calls:
                    running.call(f"c{calls}")
                if calls in after:
                    found[calls] = value(running)
        return found

    number = 1 if valgrind else ROUNDS_WITHOUT_VALGRIND
    rounds = [read(Sandbox.work, WORK_AFTER, valgrind=valgrind) for _ in range(number)]
    figures = costs({calls: median(work[calls] for work in rounds) for calls in WORK_AFTER})
    memory = read(Sandbox.memory, MEMORY_AFTER if contestant.name in IN_FULL else (0,), valgrind=False)
    for calls, value in memory.items():
        figures[f"MiB after {calls:,} calls" if calls else "MiB at start"] = value
    upload = Path(shutil.make_archive(str(contestant.code), "zip", contestant.code))
    return figures | {"MB zipped": upload.stat().st_size / 1e6}


def costs(work: Mapping[int, float]) -> dict[str, float]:
    """Return the costs of a start and of calls, from the work after so many calls."""
    return {
        "start": work[0],
        "start to first answer": work[1],
        # CPython specializes the code once more in the second call.
        "warm call": (work[21] - work[2]) / 19,
        "third call / later": (work[3] - work[2]) / ((work[21] - work[3]) / 18),
    }


if __name__ == "__main__":
    main()
