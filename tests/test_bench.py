"""The benchmark: it measures what it says, and a figure becomes a verdict only by what was measured."""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.artefacts import contestants
from bench.measure import BURST, CALLS, MORE_CALLS, Bench, figures
from bench.report import plot, results, targets
from bench.world import World
from local.process import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.artefacts import Contestant
    from bench.measure import Samples

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="make bench asks Linux what a process does")

UNIT = "M instructions"
# Takes perf's place where the processor shows no counter; what is counted, it makes up.
PERF = """#!/bin/sh
while [ "$1" != -- ]; do
  if [ "$1" = -o ]; then report=$2; fi
  shift
done
shift
"$@" &
wait $!
printf '%s\\n' 1500000,,cpu_atom/instructions:u/,1,60.00,, 1000000,,cpu_core/instructions:u/,1,40.00,, >"$report"
"""


@pytest.fixture(scope="module")
def everyone() -> dict[str, Contestant]:
    """All contestants, built and installed, by name."""
    return {contestant.name: contestant for contestant in contestants()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """What the contestants talk to."""
    with World(tmp_path_factory.mktemp("world")).serving() as world:
        yield world


@pytest.fixture
def bench(world: World, tmp_path: Path) -> Bench:
    """A benchmark that has measured nothing yet."""
    return Bench(world, tmp_path)


COUNTED = [
    ("empty", 0, 0),
    ("floor", 0, 1),
    ("ours", 1, 1),
    ("ours, events", 1, 1),
    ("usual, post", BURST, BURST),
    ("usual, Session", 1, 1),
    ("usual, events", 1, 2),
]


@pytest.mark.parametrize(("name", "connections", "ca_bundles"), COUNTED)
def test_a_burst_counts_connections_and_ca_bundles(
    bench: Bench, everyone: dict[str, Contestant], name: str, connections: int, ca_bundles: int
) -> None:
    """Each answers rightly under Lambda's own runtime; ours over one connection to Tavus, with one CA bundle loaded."""
    bench.burst(everyone[name])

    assert bench.samples[f"connections to Tavus in {BURST} calls"] == {name: [connections]}
    assert bench.samples[f"CA bundles loaded in {BURST} calls"] == {name: [ca_bundles]}


@pytest.mark.parametrize("name", ["ours", "ours, events"])
def test_the_upload_stays_small(everyone: dict[str, Contestant], name: str) -> None:
    """8 MB with byte code and boto3 inside: Lambda fetches it before a cold start."""
    assert everyone[name].zip_bytes() <= 8e6


def test_a_wrong_answer_is_no_figure(bench: Bench, everyone: dict[str, Contestant]) -> None:
    """Whoever fails would be the fastest."""
    with pytest.raises(RuntimeError, match="empty answered"):
        bench.burst(replace(everyone["empty"], door="event"))


def test_an_error_is_no_figure(bench: Bench, everyone: dict[str, Contestant]) -> None:
    """What the function raised is told, and ends the run."""
    with pytest.raises(RuntimeError, match="UnsupportedEvent"):
        bench.burst(replace(everyone["ours"], door="event"))


@pytest.mark.parametrize("name", ["ours, events", "usual, post"])
def test_a_throttled_sandbox_gets_its_share(bench: Bench, everyone: dict[str, Contestant], name: str) -> None:
    """128 MB give 7 % of a processor; less where a busy machine has none to give, but no more."""
    sandbox = bench.sandbox(everyone[name])
    with sandbox, sandbox.throttled():
        begun, worked = time.perf_counter(), sandbox.processor()
        for number in range(3):
            bench.call(sandbox, everyone[name], number)
        share = (sandbox.processor() - worked) / 1000 / (time.perf_counter() - begun)

    assert 0 < share < 1.2 * 128 / 1769


def test_usual_has_our_versions() -> None:
    """Of what both need, but for wrapt, which we hold back and nobody else does."""
    ours, usual = (
        dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.txt", "bench/contestants/requirements.txt")
    )

    assert {name for name in ours if usual[name] != ours[name]} == {"wrapt"}


def test_the_processors_own_counter_comes_first(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, everyone: dict[str, Contestant]
) -> None:
    """What perf reports as the contestant is stopped is read, in millions, of both kinds of core."""
    (tmp_path / "perf").write_text(PERF)
    (tmp_path / "perf").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    bench = Bench(world, tmp_path)

    bench.counted(everyone["usual, Session"])
    bench.raw()

    assert bench.counter.name == "user-mode instructions, by perf"
    assert bench.samples[f"start, {UNIT}"] == {"usual, Session": [2.5]}
    assert bench.samples[f"warm call, {UNIT}"] == {"usual, Session": [0], "raw urllib3": [0]}


def test_the_clock_comes_last(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, everyone: dict[str, Contestant]
) -> None:
    """Where nothing counts instructions, processor time does, and the unit says so."""
    monkeypatch.setenv("PATH", str(tmp_path))
    bench = Bench(world, tmp_path)

    bench.counted(everyone["ours"])
    bench.raw()

    found = {measure: values for measure, values in bench.samples.items() if measure.endswith("ms of processor")}
    assert set(found) == {f"{measure}, ms of processor" for measure in figures(dict.fromkeys(CALLS, 0))}
    assert all(value > 0 for values in found.values() for [value] in values.values())


def test_work_after_so_many_calls_tells_what_a_call_costs() -> None:
    """A start of 100, a first call of 10, a second of 3 and later ones of 2 each."""
    costs = [100.0, 10, 3, *[2.0] * 99]
    work = {calls: sum(costs[: calls + 1]) for calls in MORE_CALLS}

    assert figures(work) == {
        "start": 100,
        "start to first answer": 110,
        "first call": 10,
        "warm call": (3 + 19 * 2) / 20,
        "second call / 22nd to 101st": 1.5,
    }


def test_a_time_stands_beside_the_usual_of_its_round() -> None:
    """That a machine takes twice as long in the second round changes nothing."""
    times = {"ours": [1.0, 2], "usual, Session": [2.0, 4], "ours, events": [3.0, 6], "usual, events": [1.0, 2]}

    told = results(defaultdict(dict, {"warm call, ms": times}), UNIT)

    assert "| warm call, time / usual | 0.50 | 1 | 3 | 1 |" in re.sub(" +", " ", told)


FIGURES: dict[str, dict[str, float]] = {
    f"start, {UNIT}": {"ours": 107, "floor": 100, "usual, Session": 200, "ours, events": 170},
    f"start to first answer, {UNIT}": {"ours": 108, "usual, Session": 240},
    f"warm call, {UNIT}": {"ours": 29, "empty": 5, "raw urllib3": 10, "usual, Session": 58},
    "first call at 128 MB, ms": {"ours, events": 60, "usual, events": 200},
    "connections to Tavus in 50 calls": {"ours": 1, "ours, events": 2},
    "CA bundles loaded in 50 calls": {"ours": 1, "ours, events": 3},
    "memory at start, MiB": {"ours": 30, "ours, events": 51},
    "memory after 1,000 calls, MiB": {"ours": 31, "ours, events": 45},
    "memory after 10,000 calls, MiB": {"ours": 31.25, "ours, events": 45.75},
    "second call / 22nd to 101st": {"ours": 1.18, "ours, events": 1.04},
    "zip, MB": {"ours": 5},
}
VERDICTS = """
HTTP: start / floor | 1.07 | ≤ 1.1 | met
HTTP: start / usual | 0.54 | ≤ 0.65 | met
HTTP: start to first answer / usual | 0.45 | ≤ 0.55 | met
and the stretch | 0.45 | ≤ 0.4 | missed
HTTP: warm call / raw urllib3 | 2.90 | ≤ 2.5 | missed
the same without Lambda's runtime | 2.40 | |
HTTP: warm call / usual with a Session | 0.50 | ≤ 0.75 | met
HTTP: connections in 50 calls | 1.00 | ≤ 1 | met
HTTP: CA bundles loaded in 50 calls | 1.00 | ≤ 1 | met
HTTP: memory at start, MiB | 30.00 | ≤ 34 | met
HTTP: second call / 22nd to 101st | 1.18 | ≤ 1.05 | missed
HTTP: MiB more after 10,000 calls than after 1,000 | 0.25 | ≤ 0.5 | met
events: start / floor | 1.70 | ≤ 2 | met
events: first call at 128 MB / usual | 0.30 | ≤ 0.5 | met
events: memory at start, MiB | 51.00 | ≤ 50 | missed
events: connections in 50 calls | 2.00 | ≤ 1 | missed
events: CA bundles loaded in 50 calls | 3.00 | ≤ 1 | missed
events: second call / 22nd to 101st | 1.04 | ≤ 1.05 | met
events: MiB more after 10,000 calls than after 1,000 | 0.75 | ≤ 0.5 | missed
zip, MB | 5.00 | ≤ 8 | met
"""


def test_a_target_is_met_or_missed_by_its_figure() -> None:
    """Each by the figures of those whom it names."""
    samples: Samples = defaultdict(
        dict, {measure: {name: [value] for name, value in found.items()} for measure, found in FIGURES.items()}
    )

    told = re.sub(" +", " ", targets(samples, UNIT)).splitlines()[2:]

    assert [line.strip("| ") for line in told] == [line.strip("| ") for line in VERDICTS.strip().splitlines()]


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    """It is drawn from the counts alone."""
    costs = {name: [float(number)] for number, name in enumerate(("floor", "ours", "usual, Session"), 1)}
    samples = defaultdict(dict, {f"{measure}, {UNIT}": costs for measure in ("start", "first call", "warm call")})

    plot(samples, UNIT, tmp_path / "plot.png")

    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
