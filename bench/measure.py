"""The measures: each a number that one fresh sandbox of a contestant gives."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.sandbox import Sandbox
from local.process import AWS_CLIENT, ROOT, clean_environment
from local.session import DEPLOYMENT_ID, request_for, timeout_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.artefacts import Contestant
    from bench.world import World

type Samples = defaultdict[str, dict[str, list[float]]]

BURST, MANY = 50, 10_000
# Calls before counting ends: to tell the start, the first call, a warm one, and the second from later ones.
CALLS, MORE_CALLS = (0, 1, 21), (2, 101)


@dataclass(frozen=True)
class Counter:
    """What counts a process' work: a tool to run it under, or else its own processor time."""

    name: str
    unit: str
    command: Sequence[str] = ()
    pattern: str = ""

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
        return cls("processor time, as nothing here counts instructions", "ms of processor")


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
        with self._sandbox(contestant) as sandbox:
            take("memory at start, MiB", sandbox.memory("VmHWM"))
            costs = [self._call(sandbox, contestant, number) for number in range(BURST)]
        connections, loaded = self._world.count()
        take("start, ms", sandbox.start)
        take("start to first answer, ms", sandbox.start + costs[0])
        take("warm call, ms", sorted(costs)[BURST // 2])
        take(f"connections to Tavus in {BURST} calls", connections)
        take(f"CA bundles loaded in {BURST} calls", loaded)

    def throttled(self, contestant: Contestant) -> None:
        """Time a first call with the share of a processor that Lambda gives at 128 MB; the start has a whole one."""
        with self._sandbox(contestant) as sandbox, sandbox.throttled():
            milliseconds = self._call(sandbox, contestant, 0)
        self._taker(contestant)("first call at 128 MB, ms", milliseconds)

    def counted(self, contestant: Contestant) -> None:
        """Count a start and calls, as differences of whole runs."""
        work = {calls: self._work(contestant, calls) for calls in CALLS}
        take, unit = self._taker(contestant), self.counter.unit
        take(f"start, {unit}", work[0])
        take(f"start to first answer, {unit}", work[1])
        take(f"first call, {unit}", work[1] - work[0])
        take(f"warm call, {unit}", (work[21] - work[1]) / 20)
        if not contestant.name.startswith("usual"):
            more = {calls: self._work(contestant, calls) for calls in MORE_CALLS}
            take("second call / 22nd to 101st", (more[2] - work[1]) / (more[101] - work[21]) * 80)

    def raw(self) -> None:
        """Count one call of urllib3 alone, on a connection kept."""
        few, many = (self._raw_work(calls) for calls in (1, 21))
        self.samples[f"warm call, {self.counter.unit}"]["raw urllib3"].append((many - few) / 20)

    def endure(self, contestant: Contestant) -> None:
        """See what is resident as calls go by."""
        with self._sandbox(contestant) as sandbox:
            for number in range(1, MANY + 1):
                self._call(sandbox, contestant, number)
                if number in (MANY // 10, MANY):
                    self._taker(contestant)(f"memory after {number:,} calls, MiB", sandbox.memory("VmRSS"))

    def _taker(self, contestant: Contestant) -> Any:
        return lambda measure, value: self.samples[measure][contestant.name].append(value)

    def _sandbox(self, contestant: Contestant, command: Sequence[str] = ()) -> Sandbox:
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

    def _call(self, sandbox: Sandbox, contestant: Contestant, number: int) -> float:
        """Milliseconds until an answer, which must be the right one. Raises RuntimeError where it is not."""
        event = (request_for if contestant.door == "http" else timeout_of)(f"c{number}")
        answer, milliseconds = sandbox.call(json.dumps(event).encode())
        if (b'"statusCode": 200' if contestant.door == "http" else b"null") not in answer:
            raise RuntimeError(f"{contestant.name} answered {answer!r}")
        return milliseconds

    def _work(self, contestant: Contestant, calls: int) -> float:
        with self._sandbox(contestant, self.counter.command) as sandbox:
            for number in range(calls):
                self._call(sandbox, contestant, number)
            processor = sandbox.processor()
        return self._counted(processor)

    def _raw_work(self, calls: int) -> float:
        command = [*self.counter.command, sys.executable, str(ROOT / "bench/contestants/raw.py"), str(calls)]
        before = _children()
        subprocess.run(command, check=True, env=clean_environment(**self._world.environment, PYTHONHASHSEED="0"))
        return self._counted(_children() - before)

    def _counted(self, processor: float) -> float:
        """Millions of instructions, where there is a tool to count them, or else the processor time."""
        found = re.search(self.counter.pattern, self._report.read_text()) if self.counter.command else None
        return int(found[1].replace(",", "")) / 1e6 if found else processor


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) * 1000
