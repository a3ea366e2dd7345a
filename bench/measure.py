"""The measures: each a number that one fresh sandbox of a contestant gives."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.artefacts import FLOOR
from bench.sandbox import Sandbox
from local.process import AWS_CLIENT, ROOT, clean_environment
from local.runtime import LAMBDA_RUNTIME
from local.session import DEPLOYMENT_ID, request_for, timeout_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.artefacts import Contestant
    from bench.world import World

type Samples = defaultdict[str, dict[str, list[float]]]

# A tool counts nearly the same each time; a clock does not.
ROUNDS, TOOL_ROUNDS = 9, 2
BURST, MANY = 50, 10_000
# After how many calls work is counted: to tell the start, the first call, a warm one, and the second from later ones.
CALLS, MORE_CALLS = (0, 1, 21), (0, 1, 2, 21, 101)


@dataclass(frozen=True)
class Counter:
    """What counts a process' work: a tool to run it under, or else its own processor time."""

    name: str
    unit: str
    command: Sequence[str] = ()
    pattern: str = ""

    @property
    def rounds(self) -> int:
        """How often to count."""
        return TOOL_ROUNDS if self.command else ROUNDS

    @classmethod
    def of_this_machine(cls, report: Path) -> Counter:
        """Choose the processor's own counter, else Valgrind's emulation, which counts the same, else the clock."""
        if shutil.which("perf"):
            perf = ["perf", "stat", "-x,", "-e", "instructions:u", "-o", str(report), "--"]
            subprocess.run([*perf, "true"], check=False, capture_output=True)
            pattern = r"(?m)^(\d+),.*instructions:u"
            if report.exists() and re.search(pattern, report.read_text()):
                return cls("user-mode instructions, by perf", "M instructions", perf, pattern)
        if shutil.which("valgrind"):
            quiet = ["--cache-sim=no", "--cachegrind-out-file=/dev/null", f"--log-file={report}"]
            valgrind = ["valgrind", "--tool=cachegrind", *quiet]
            return cls("user-mode instructions, by Valgrind", "M instructions", valgrind, r"I +refs: +([\d,]+)")
        return cls("processor time, as neither perf nor Valgrind counts instructions here", "ms of processor")


def figures(work: Mapping[int, float]) -> dict[str, float]:
    """What a start and a call cost, given the work after so many calls, as CALLS or MORE_CALLS has them."""
    found = {
        "start": work[0],
        "start to first answer": work[1],
        "first call": work[1] - work[0],
        "warm call": (work[21] - work[1]) / 20,
    }
    if 101 in work:  # noqa: PLR2004 - a key, said above
        found["second call / 22nd to 101st"] = (work[2] - work[1]) / ((work[101] - work[21]) / 80)
    return found


class Bench:
    """Takes samples, by measure and contestant."""

    def __init__(self, world: World, scratch: Path) -> None:
        self._world = world
        self._scratch = scratch
        self._report = scratch / "counted"
        self.counter = Counter.of_this_machine(self._report)
        self.samples: Samples = defaultdict(lambda: defaultdict(list))

    def burst(self, contestant: Contestant) -> None:
        """Time a start, a first call and those that follow at once; count connections and CA bundles."""
        self._world.count()
        take = self._taker(contestant)
        with self.sandbox(contestant) as sandbox:
            take("memory at start, MiB", sandbox.memory("VmHWM"))
            costs = [self.call(sandbox, contestant, number) for number in range(BURST)]
        connections, loaded = self._world.count()
        take("start, ms", sandbox.start)
        take("start to first answer, ms", sandbox.start + costs[0])
        take("warm call, ms", sorted(costs)[BURST // 2])
        take(f"connections to Tavus in {BURST} calls", connections)
        take(f"CA bundles loaded in {BURST} calls", loaded)

    def throttled(self, contestant: Contestant) -> None:
        """Time a first call with the share of a processor that Lambda gives at 128 MB; the start has a whole one."""
        with self.sandbox(contestant) as sandbox, sandbox.throttled():
            milliseconds = self.call(sandbox, contestant, 0)
        self._taker(contestant)("first call at 128 MB, ms", milliseconds)

    def counted(self, contestant: Contestant) -> None:
        """Count a start and calls."""
        calls = CALLS if contestant.name.startswith("usual") else MORE_CALLS
        work = self._tooled(contestant, calls) if self.counter.command else self._clocked(contestant, calls)
        for measure, value in figures(work).items():
            self._taker(contestant)(measure if "/" in measure else f"{measure}, {self.counter.unit}", value)

    def raw(self) -> None:
        """Count one call of urllib3 alone, on a connection kept."""
        calls = 20 if self.counter.command else 2000  # a start's own time varies more than few calls take
        few, many = self._raw_work(1), self._raw_work(1 + calls)
        self.samples[f"warm call, {self.counter.unit}"]["raw urllib3"].append((many - few) / calls)

    def endure(self, contestant: Contestant) -> None:
        """See what is resident as calls go by."""
        with self.sandbox(contestant) as sandbox:
            for number in range(1, MANY + 1):
                self.call(sandbox, contestant, number)
                if number in (MANY // 10, MANY):
                    self._taker(contestant)(f"memory after {number:,} calls, MiB", sandbox.memory("VmRSS"))

    def sandbox(self, contestant: Contestant, command: Sequence[str] = ()) -> Sandbox:
        """Start a fresh sandbox of a contestant, under a tool where one is given."""
        variables = clean_environment(
            **AWS_CLIENT,
            **self._world.environment,
            **contestant.settings,
            ALLOWED_DEPLOYMENT_IDS=DEPLOYMENT_ID,
            AWS_LAMBDA_FUNCTION_MEMORY_SIZE="512",
            AWS_LAMBDA_FUNCTION_NAME="bench",
            AWS_REGION=AWS_CLIENT["AWS_DEFAULT_REGION"],
            LAMBDA_TASK_ROOT=str(contestant.code),
            POWERTOOLS_METRICS_NAMESPACE="Bench",
            POWERTOOLS_SERVICE_NAME="bench",
            PYTHONDONTWRITEBYTECODE="1",
            PYTHONHASHSEED="0",
            _HANDLER=contestant.handler,
        )
        return Sandbox(command, contestant.code, variables, self._scratch / "log")

    def call(self, sandbox: Sandbox, contestant: Contestant, number: int) -> float:
        """Milliseconds until an answer, which must be the right one. Raises RuntimeError where it is not."""
        event = (request_for if contestant.door == "http" else timeout_of)(f"c{number}")
        answer, milliseconds = sandbox.call(json.dumps(event).encode())
        if (b'"statusCode": 200' if contestant.door == "http" else b"null") not in answer:
            raise RuntimeError(f"{contestant.name} answered {answer!r}")
        return milliseconds

    def _taker(self, contestant: Contestant) -> Any:
        return lambda measure, value: self.samples[measure][contestant.name].append(value)

    def _tooled(self, contestant: Contestant, calls: Sequence[int]) -> dict[int, float]:
        """Work after so many calls, each of a run of its own: a tool counts whole ones."""
        work = {}
        for end in calls:
            with self.sandbox(contestant, self.counter.command) as sandbox:
                for number in range(end):
                    self.call(sandbox, contestant, number)
            work[end] = self._counted()
        return work

    def _clocked(self, contestant: Contestant, calls: Sequence[int]) -> dict[int, float]:
        """Work after so many calls, all of one run: two starts differ by more than a call takes."""
        work = {}
        with self.sandbox(contestant) as sandbox:
            for number in range(calls[-1]):
                work[number] = sandbox.processor()
                self.call(sandbox, contestant, number)
            work[calls[-1]] = sandbox.processor()
        return {end: work[end] for end in calls}

    def _raw_work(self, calls: int) -> float:
        command = [*self.counter.command, LAMBDA_RUNTIME[0], str(ROOT / "bench/contestants/raw.py"), str(calls)]
        variables = clean_environment(**self._world.environment, PYTHONHASHSEED="0", PYTHONPATH=str(FLOOR))
        before = _children()
        subprocess.run(command, check=True, env=variables)
        return self._counted() if self.counter.command else _children() - before

    def _counted(self) -> float:
        """Millions of instructions; perf reports them for each kind of core. Raises RuntimeError for none."""
        found = re.findall(self.counter.pattern, report := self._report.read_text())
        if not found:
            raise RuntimeError(f"no instructions are counted in {report!r}")
        return sum(int(number.replace(",", "")) for number in found) / 1e6


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) * 1000
