"""`make bench`: measures every contestant in turn, round after round, in one run."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench.build import FLOOR, PROGRAMS, Contestant, build_contestants
from bench.report import plot, report
from bench.sandbox import Sandbox, sandbox
from bench.world import World
from local.console import step
from local.process import AWS_CLIENT, ROOT, ProcessFailed, clean_environment, interrupt_once
from local.runtime import LAMBDA_RUNTIME
from local.session import DEPLOYMENT_ID, request_for, timeout_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from bench.report import Samples

ROUNDS = 9
VALGRIND_ROUNDS = 2  # instruction counts hardly vary
BURST, MANY = 50, 10_000
# The numbers of calls after which the work is counted. The usual contestants skip two of them, which Valgrind would
# need minutes for.
CALLS, USUAL_CALLS = (0, 1, 2, 21, 101), (0, 1, 21)


def main() -> None:
    """Measure, print the tables, and write them and the plot to bench/."""
    interrupt_once()
    try:
        with TemporaryDirectory() as scratch, World(Path(scratch)) as world:
            bench = Bench(world, Path(scratch))
            measure(bench)
    except ProcessFailed as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    text = report(bench.samples, bench.unit, ROUNDS, bench.count_rounds)
    print(f"\n{text}")
    (ROOT / "bench/results.md").write_text(text)
    plot(bench.samples, bench.unit, ROOT / "bench/results.png")


def measure(bench: Bench) -> None:
    """Take every sample."""
    contestants = build_contestants(bench.authority)
    for contestant in contestants:
        bench.samples["zip, MB"][contestant.name].append(contestant.zip_bytes() / 1e6)
    for number in range(1, ROUNDS + 1):
        with step(f"Round {number} of {ROUNDS}"):
            for contestant in contestants:
                bench.time_burst(contestant)
    for number in range(1, bench.count_rounds + 1):
        with step(f"Counting {bench.unit}, round {number} of {bench.count_rounds}"):
            for contestant in contestants:
                bench.count_work(contestant)
            bench.count_raw()
    with step(f"Memory over {MANY:,} calls"):
        for contestant in contestants:
            if contestant.name.startswith("ours"):
                bench.watch_memory(contestant)


class Bench:
    """Measures contestants, each time in a fresh process. `samples` holds the values by measure and contestant.

    Work is counted as user-mode instructions by Valgrind, or as processor time where Valgrind is not installed.
    """

    def __init__(self, world: World, scratch: Path) -> None:
        self.authority = world.authority
        self._world, self._log, self._counts = world, scratch / "log", scratch / "counts"
        valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        self._valgrind = [*valgrind, f"--log-file={self._counts}"] if shutil.which("valgrind") else []
        self.unit = "M instructions" if self._valgrind else "ms of processor time"
        self.count_rounds = VALGRIND_ROUNDS if self._valgrind else ROUNDS
        self.samples: Samples = defaultdict(lambda: defaultdict(list))

    def time_burst(self, contestant: Contestant) -> None:
        """Time a start and BURST calls. Count the connections to Tavus and the loads of the CA bundle."""
        self._world.take_counts()
        with self._sandbox(contestant) as running:
            memory = running.memory("VmHWM")
            times = [call(running, contestant, number) for number in range(BURST)]
        connections, loads = self._world.take_counts()
        measured = {
            "memory at start, MiB": memory,
            "start, ms": running.start_ms,
            "start to first answer, ms": running.start_ms + times[0],
            "warm call, ms": sorted(times)[BURST // 2],
            f"connections to Tavus in {BURST} calls": connections,
            f"CA bundles loaded in {BURST} calls": loads,
        }
        for measure, value in measured.items():
            self.samples[measure][contestant.name].append(value)

    def count_work(self, contestant: Contestant) -> None:
        """Count the work of a start and of calls."""
        numbers = USUAL_CALLS if contestant.name.startswith("usual") else CALLS
        count = self._instructions if self._valgrind else self._processor_times
        for measure, value in costs(count(contestant, numbers)).items():
            label = measure if "/" in measure else f"{measure}, {self.unit}"
            self.samples[label][contestant.name].append(value)

    def count_raw(self) -> None:
        """Count the work of one warm call of urllib3 without Lambda."""
        calls = 20 if self._valgrind else 2000  # the time of a start varies by more than 20 calls take
        few, many = self._raw_work(1), self._raw_work(1 + calls)
        self.samples[f"warm call, {self.unit}"]["raw urllib3"].append((many - few) / calls)

    def watch_memory(self, contestant: Contestant) -> None:
        """Read the resident memory after a tenth of MANY calls and after all of them."""
        with self._sandbox(contestant) as running:
            for number in range(1, MANY + 1):
                call(running, contestant, number)
                if number in (MANY // 10, MANY):
                    memory = self.samples[f"memory after {number:,} calls, MiB"]
                    memory[contestant.name].append(running.memory("VmRSS"))

    def _sandbox(self, contestant: Contestant, command: Sequence[str] = ()) -> AbstractContextManager[Sandbox]:
        environment = clean_environment(
            **AWS_CLIENT,
            **self._world.environment,
            **({} if contestant.has_roots else self._world.trust),
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
        return sandbox(command, contestant.code, environment, self._log)

    def _instructions(self, contestant: Contestant, numbers: Iterable[int]) -> dict[int, float]:
        """Millions of instructions by number of calls. Valgrind counts a whole process, so each number has its own."""
        work = {}
        for number in numbers:
            with self._sandbox(contestant, self._valgrind) as running:
                for index in range(number):
                    call(running, contestant, index)
            work[number] = self._read_counts()
        return work

    def _processor_times(self, contestant: Contestant, numbers: Sequence[int]) -> dict[int, float]:
        """Milliseconds by number of calls, all in one process: two starts differ by more than a call takes."""
        with self._sandbox(contestant) as running:
            times = [running.processor_time()]
            for index in range(numbers[-1]):
                call(running, contestant, index)
                times.append(running.processor_time())
        return {number: times[number] for number in numbers}

    def _raw_work(self, calls: int) -> float:
        command = [*self._valgrind, LAMBDA_RUNTIME[0], str(PROGRAMS / "raw.py"), str(calls)]
        environment = clean_environment(
            **self._world.environment, **self._world.trust, PYTHONHASHSEED="0", PYTHONPATH=str(FLOOR)
        )
        before = _children_time()
        subprocess.run(command, check=True, env=environment)
        return self._read_counts() if self._valgrind else _children_time() - before

    def _read_counts(self) -> float:
        found = re.search(r"I +refs: +([\d,]+)", output := self._counts.read_text())
        if not found:
            raise ProcessFailed("Valgrind reported no instructions:", output)
        return int(found[1].replace(",", "")) / 1e6


def call(running: Sandbox, contestant: Contestant, number: int) -> float:
    """Make one call and return its milliseconds. Raises ProcessFailed unless the answer is right."""
    conversation_id = f"c{number}"
    if contestant.trigger == "event":
        event, expected = timeout_of(conversation_id), b"null"
    else:
        event, expected = request_for(conversation_id), b'"statusCode": 200'
    if contestant.trigger == "timer":
        event["requestContext"]["http"]["method"] = "PUT"
        event["rawPath"] = event["rawPath"].replace("/end", "/timeout")
    answer, milliseconds = running.call(json.dumps(event).encode())
    if expected not in answer:
        raise ProcessFailed(f"{contestant.name} gave a wrong answer:", answer.decode())
    return milliseconds


def costs(work: Mapping[int, float]) -> dict[str, float]:
    """The cost of a start and of a call, from the work after each number of calls in CALLS or USUAL_CALLS."""
    found = {
        "start": work[0],
        "start to first answer": work[1],
        "first call": work[1] - work[0],
        "warm call": (work[21] - work[1]) / 20,
    }
    if set(CALLS) <= set(work):
        found["second call / 22nd to 101st"] = (work[2] - work[1]) / ((work[101] - work[21]) / 80)
    return found


def _children_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) * 1000


if __name__ == "__main__":
    main()
