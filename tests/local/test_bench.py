"""`make bench`: what it measures, and how its report compares the figures."""

from __future__ import annotations

import re
import shutil
import sys
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.build import build_contestants
from bench.report import plot, results, targets
from bench.run import BURST, CALLS, USUAL_CALLS, Bench, costs
from bench.world import World
from local.process import ROOT, ProcessFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.build import Contestant
    from bench.report import Samples

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="make bench reads /proc and uses inotify")

UNIT = "M instructions"
# Reports a fixed count and then becomes the program that Valgrind would run.
VALGRIND = """#!/bin/sh
for argument; do
  case $argument in
    --log-file=*) echo '==1== I   refs:      2,500,000' >"${argument#*=}"; shift ;;
    --*) shift ;;
    *) exec "$@" ;;
  esac
done
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The Tavus and AWS that the contestants call."""
    with World(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture(scope="module")
def contestants(world: World) -> dict[str, Contestant]:
    """All contestants by name, built where Lambda's runtime has no byte code yet, as in a new clone."""
    for cache in ROOT.glob(".venv-runtime/lib/*/site-packages/awslambdaric/__pycache__"):
        shutil.rmtree(cache)
    return {contestant.name: contestant for contestant in build_contestants(world.authority)}


@pytest.fixture
def bench(world: World, tmp_path: Path) -> Bench:
    """A benchmark without samples."""
    return Bench(world, tmp_path)


@pytest.mark.usefixtures("contestants")
def test_the_runtime_of_every_contestant_has_byte_code() -> None:
    """Without it, each start would count more."""
    assert list(ROOT.glob(".venv-runtime/lib/*/site-packages/awslambdaric/__pycache__/bootstrap.*.pyc"))


COUNTS = [
    ("empty", 0, 0),
    ("floor", 0, 1),
    ("ours", 1, 0),
    ("ours, events", 1, 0),
    ("ours, timer", 0, 0),
    ("usual, post", BURST, BURST),
    ("usual, Session", 1, 1),
    ("usual, events", 1, 2),
]


@pytest.mark.parametrize(("name", "connections", "ca_bundles"), COUNTS)
def test_a_burst_counts_connections_and_ca_bundles(
    bench: Bench, contestants: dict[str, Contestant], name: str, connections: int, ca_bundles: int
) -> None:
    """Ours opens one connection to Tavus, and loads no CA bundle."""
    bench.time_burst(contestants[name])

    assert bench.samples[f"connections to Tavus in {BURST} calls"] == {name: [connections]}
    assert bench.samples[f"CA bundles loaded in {BURST} calls"] == {name: [ca_bundles]}


@pytest.mark.parametrize("name", ["ours", "ours, events"])
def test_the_upload_is_at_most_8_mb(contestants: dict[str, Contestant], name: str) -> None:
    """Lambda downloads it before a cold start."""
    assert contestants[name].zip_bytes() <= 8e6


def test_a_wrong_answer_stops_the_benchmark(bench: Bench, contestants: dict[str, Contestant]) -> None:
    """A contestant that fails would look fast."""
    with pytest.raises(ProcessFailed, match="empty gave a wrong answer"):
        bench.time_burst(replace(contestants["empty"], trigger="event"))


def test_an_exception_of_a_contestant_stops_the_benchmark(bench: Bench, contestants: dict[str, Contestant]) -> None:
    """The message names the exception."""
    with pytest.raises(ProcessFailed, match="UnsupportedEvent"):
        bench.time_burst(replace(contestants["ours"], trigger="event"))


def test_the_usual_contestant_has_our_package_versions(contestants: dict[str, Contestant]) -> None:
    """A difference in the figures comes from the code and not from the packages."""
    ours, usual = (
        {path.name for path in contestants[name].code.glob("*.dist-info")} for name in ("ours", "usual, Session")
    )

    assert ours < usual


def test_valgrind_counts_millions_of_instructions(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contestants: dict[str, Contestant]
) -> None:
    """The count is read from Valgrind's report, for contestants and for the raw call."""
    (tmp_path / "valgrind").write_text(VALGRIND)
    (tmp_path / "valgrind").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    bench = Bench(world, tmp_path)

    bench.count_work(contestants["usual, Session"])
    bench.count_raw()

    assert bench.samples[f"start, {UNIT}"] == {"usual, Session": [2.5]}
    assert bench.samples[f"warm call, {UNIT}"] == {"usual, Session": [0], "raw urllib3": [0]}


def test_processor_time_is_measured_without_valgrind(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contestants: dict[str, Contestant]
) -> None:
    """The unit of the figures says so."""
    monkeypatch.setenv("PATH", str(tmp_path))
    bench = Bench(world, tmp_path)

    bench.count_work(contestants["ours"])
    bench.count_raw()

    found = {measure: values for measure, values in bench.samples.items() if measure.endswith("ms of processor time")}
    assert set(found) == {f"{measure}, ms of processor time" for measure in costs(dict.fromkeys(USUAL_CALLS, 0))}
    assert all(value > 0 for values in found.values() for [value] in values.values())


def test_the_cost_of_a_call_is_the_difference_between_counts() -> None:
    """The start costs 100, the first call 10, the second 3 and each later one 2."""
    each = [100.0, 10, 3, *[2.0] * 99]
    work = {calls: sum(each[: calls + 1]) for calls in CALLS}

    assert costs(work) == {
        "start": 100,
        "start to first answer": 110,
        "first call": 10,
        "warm call": (3 + 19 * 2) / 20,
        "second call / 22nd to 101st": 1.5,
    }


def test_wall_time_is_relative_to_the_usual_contestant_of_the_same_round() -> None:
    """The second round takes twice as long for everyone, which changes nothing."""
    times = {"ours": [1.0, 2], "usual, Session": [2.0, 4], "ours, events": [3.0, 6], "usual, events": [1.0, 2]}

    table = results(defaultdict(dict, {"warm call, ms": times}), UNIT)

    assert "| warm call, time / usual | 0.50 | 1 | 3 | 1 |" in re.sub(" +", " ", table)


FIGURES: dict[str, dict[str, float]] = {
    f"start, {UNIT}": {
        "ours": 76,
        "usual, Session": 200,
        "ours, events": 140,
        "usual, events": 200,
        "ours, timer": 130,
    },
    f"start to first answer, {UNIT}": {"ours": 84, "usual, Session": 240, "ours, events": 150, "usual, events": 300},
    f"warm call, {UNIT}": {
        "ours": 29,
        "empty": 5,
        "raw urllib3": 10,
        "usual, Session": 58,
        "ours, events": 19,
        "usual, events": 20,
    },
    "connections to Tavus in 50 calls": {"ours": 1, "ours, events": 2},
    "CA bundles loaded in 50 calls": {"ours": 0, "ours, events": 1},
    "memory at start, MiB": {"ours": 30, "ours, events": 45},
    "memory after 1,000 calls, MiB": {"ours": 31, "ours, events": 45},
    "memory after 10,000 calls, MiB": {"ours": 31.25, "ours, events": 45.75},
    "second call / 22nd to 101st": {"ours": 1.18, "ours, events": 1.04},
    "zip, MB": {"ours": 5},
}
VERDICTS = """
HTTP: start / usual | 0.38 | ≤ 0.38 | met
HTTP: start to first answer / usual | 0.35 | ≤ 0.34 | missed
HTTP: warm call / raw urllib3, without Lambda's runtime | 2.40 | ≤ 2 | missed
HTTP: warm call / usual, Session | 0.50 | ≤ 0.75 | met
events: start / usual | 0.70 | ≤ 0.65 | missed
events: start to first answer / usual | 0.50 | ≤ 0.52 | met
events: warm call (two to AWS) / usual (one) | 0.95 | ≤ 0.95 | met
timer: start / usual | 0.65 | ≤ 0.62 | missed
HTTP: memory at start, MiB | 30.00 | ≤ 30 | met
events: memory at start, MiB | 45.00 | ≤ 44 | missed
HTTP: connections in 50 calls | 1.00 | ≤ 1 | met
HTTP: CA bundles loaded in 50 calls | 0.00 | ≤ 0 | met
HTTP: second call / 22nd to 101st | 1.18 | ≤ 1.05 | missed
HTTP: MiB more after 10,000 calls than after 1,000 | 0.25 | ≤ 0.5 | met
events: connections in 50 calls | 2.00 | ≤ 1 | missed
events: CA bundles loaded in 50 calls | 1.00 | ≤ 0 | missed
events: second call / 22nd to 101st | 1.04 | ≤ 1.05 | met
events: MiB more after 10,000 calls than after 1,000 | 0.75 | ≤ 0.5 | missed
zip, MB | 5.00 | ≤ 5 | met
"""


def test_a_target_is_met_up_to_its_limit_and_missed_above_it() -> None:
    """Each row uses the figures of the contestants that it names."""
    samples: Samples = defaultdict(
        dict, {measure: {name: [value] for name, value in found.items()} for measure, found in FIGURES.items()}
    )

    rows = re.sub(" +", " ", targets(samples, UNIT)).splitlines()[2:]

    assert [row.strip("| ") for row in rows] == [row.strip("| ") for row in VERDICTS.strip().splitlines()]


def test_the_plot_is_a_png_file(tmp_path: Path) -> None:
    """It needs the counted work alone."""
    found = {name: [float(number)] for number, name in enumerate(("floor", "ours", "usual, Session"), 1)}
    measures = ("start", "start to first answer", "warm call")

    plot(defaultdict(dict, {f"{measure}, {UNIT}": found for measure in measures}), UNIT, tmp_path / "plot.png")

    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
