"""`make bench`: the contestants do the same work, and the figures are computed from the right ones."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.build import CONTESTANTS, OURS, USUAL, Contestant, build_contestants
from bench.report import plot, table
from bench.run import costs
from bench.sandbox import sandbox
from bench.world import World
from local.process import ROOT, ProcessFailed
from local.session import timeout_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="make bench reads /proc")

EMPTY, OURS_HTTP = CONTESTANTS[0], CONTESTANTS[3]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The Tavus and AWS that the contestants call. They are built without the byte code of an earlier run."""
    for cache in ROOT.glob(".venv-runtime/lib/*/site-packages/awslambdaric/__pycache__"):
        shutil.rmtree(cache)
    with World() as world:
        build_contestants(world.authority)
        yield world


@pytest.mark.usefixtures("world")
def test_contestants_start_from_the_same_packages_and_byte_code() -> None:
    """A difference in the figures comes from the code alone."""
    ours, usual = ({path.name for path in code.glob("*.dist-info")} for code in (OURS, USUAL))
    assert ours < usual
    assert list(ROOT.glob(".venv-runtime/lib/*/site-packages/awslambdaric/__pycache__/bootstrap.*.pyc"))


@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda contestant: contestant.name)
def test_every_contestant_answers(world: World, contestant: Contestant) -> None:
    """Its processor time grows with each call, and its memory is that of a Python process."""
    with sandbox(contestant, world.environment, valgrind=False) as running:
        before = running.work()
        running.call("c1")
        assert running.work() > before > 0
        assert 10 < running.memory() < 100


@pytest.mark.parametrize(
    ("contestant", "message"), [(EMPTY, "empty gave a wrong answer"), (OURS_HTTP, "UnsupportedEvent")]
)
def test_a_failing_contestant_stops_the_benchmark(world: World, contestant: Contestant, message: str) -> None:
    """It would look fast."""
    wrong = replace(contestant, event=timeout_of, answer=b"null")
    with sandbox(wrong, world.environment, valgrind=False) as running, pytest.raises(ProcessFailed, match=message):
        running.call("c1")


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
def test_valgrind_counts_the_instructions_since_the_start(world: World) -> None:
    """A call of the empty contestant costs a small part of its start."""
    with sandbox(EMPTY, world.environment, valgrind=True) as running:
        start = running.work()
        running.call("c1")
        assert 50 < start < running.work() < 1.1 * start


def test_costs_are_differences_of_the_work() -> None:
    """The start costs 100, the first call 10, the second 3 and each later one 2."""
    assert costs({0: 100, 1: 110, 2: 113, 21: 113 + 19 * 2}) == {
        "start": 100,
        "start to first answer": 110,
        "warm call": (3 + 19 * 2) / 20,
        "second call / 3rd to 21st": 1.5,
    }


# A start, a start with its first answer, and a warm call.
WORK = {
    "empty": (10, 11, 5),
    "raw urllib3": (20, 22, 15),
    "ours": (76, 80, 29),
    "usual, Session": (200, 240, 58),
    "ours, events": (140, 150, 19),
    "usual, events": (250, 1_000, 20),
    "ours, limits": (130, 144, 29),
}


def test_ratios_compare_with_the_usual_contestant_and_the_plot_is_drawn(tmp_path: Path) -> None:
    """Events compare with events, and the rest with HTTP. Our warm call compares with the raw one, without Lambda."""
    measures = ("start", "start to first answer", "warm call")
    figures = {name: dict(zip(measures, map(float, work), strict=True)) for name, work in WORK.items()}

    rows = re.sub(" +", " ", table(figures, "units")).splitlines()

    assert "| start, units | 10.00 | 20.00 | 76.00 | 200 | 140 | 250 | 130 |" in rows
    assert "| start / usual | 0.05 | 0.10 | 0.38 | 1.00 | 0.56 | 1.00 | 0.65 |" in rows
    assert "| start to first answer / usual | 0.05 | 0.09 | 0.33 | 1.00 | 0.15 | 1.00 | 0.60 |" in rows
    assert "| warm call / usual | 0.09 | 0.26 | 0.50 | 1.00 | 0.95 | 1.00 | 0.50 |" in rows
    assert "| warm call / raw urllib3, both without empty | | | 2.40 | | | | |" in rows

    plot(figures, "units", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
