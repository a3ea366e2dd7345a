"""The benchmark: it counts what it says, and a figure becomes a verdict only by what was measured."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.artefacts import taking_part
from bench.measure import BURST, Bench
from bench.report import plot, results, targets
from bench.world import World
from local.build import build
from local.process import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.measure import Samples

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="make bench asks Linux what a process does")

# The others find here what is installed for the tests.
CONTESTANTS = {entry.name: entry for entry in taking_part(*[ROOT / "bench/contestants"] * 2)}
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
echo '2500000,,instructions:u,1,100.00,,' >"$report"
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """What the contestants talk to, with ours built."""
    build()
    with World(tmp_path_factory.mktemp("world")).serving() as world:
        yield world


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
    world: World, tmp_path: Path, name: str, connections: int, ca_bundles: int
) -> None:
    """Each answers rightly under Lambda's own runtime; ours over one connection to Tavus, with one CA bundle loaded."""
    bench = Bench(world, tmp_path)

    bench.burst(CONTESTANTS[name])

    assert bench.samples[f"connections to Tavus in {BURST} calls"] == {name: [connections]}
    assert bench.samples[f"CA bundles loaded in {BURST} calls"] == {name: [ca_bundles]}


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("name", ["ours", "ours, events"])
def test_the_upload_stays_small(name: str) -> None:
    """8 MB with byte code and boto3 inside: Lambda fetches it before a cold start."""
    assert CONTESTANTS[name].zip_bytes() <= 8e6


def test_a_wrong_answer_is_no_figure(world: World, tmp_path: Path) -> None:
    """Whoever fails would be the fastest."""
    with pytest.raises(RuntimeError, match="empty answered"):
        Bench(world, tmp_path).burst(replace(CONTESTANTS["empty"], door="event"))


def test_an_error_is_no_figure(world: World, tmp_path: Path) -> None:
    """What the function raised is told, and ends the run."""
    with pytest.raises(RuntimeError, match="UnsupportedEvent"):
        Bench(world, tmp_path).burst(replace(CONTESTANTS["ours"], door="event"))


def test_the_processors_own_counter_comes_first(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What perf reports as the contestant is stopped is read, in millions."""
    (tmp_path / "perf").write_text(PERF)
    (tmp_path / "perf").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    bench = Bench(world, tmp_path)

    bench.counted(CONTESTANTS["usual, Session"])

    assert bench.counter.name == "user-mode instructions, by perf"
    assert bench.samples[f"start, {UNIT}"] == {"usual, Session": [2.5]}


def test_the_clock_comes_last(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing counts instructions, processor time does, and the unit says so."""
    monkeypatch.setenv("PATH", str(tmp_path))
    bench = Bench(world, tmp_path)

    bench.counted(CONTESTANTS["usual, Session"])

    [start] = bench.samples["start, ms of processor"]["usual, Session"]
    assert start > 0


def test_a_time_stands_beside_the_usual_of_its_round() -> None:
    """That a machine takes twice as long in the second round changes nothing."""
    times = {"ours": [1.0, 2], "usual, Session": [2.0, 4], "ours, events": [3.0, 6], "usual, events": [1.0, 2]}

    told = results(defaultdict(dict, {"warm call, ms": times}), UNIT)

    assert "| warm call, time / usual | 0.50 | 1 | 3 | 1 |" in re.sub(" +", " ", told)


@pytest.mark.parametrize(("figure", "verdict"), [(1.1, "1.10 | ≤ 1.1 | met"), (1.11, "1.11 | ≤ 1.1 | missed")])
def test_a_target_is_met_or_missed_by_its_figure(figure: float, verdict: str) -> None:
    """The limit itself still counts as met."""
    samples: Samples = defaultdict(lambda: defaultdict(lambda: [1.0]))
    samples[f"start, {UNIT}"]["ours"] = [figure]

    assert f"| HTTP: start / floor | {verdict} |" in re.sub(" +", " ", targets(samples, UNIT))


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    """It is drawn from the counts alone."""
    every = {name: [1.0] for name in CONTESTANTS}
    samples = defaultdict(dict, {f"{measure}, {UNIT}": every for measure in ("start", "first call", "warm call")})

    plot(samples, UNIT, tmp_path / "plot.png")

    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
