"""`make bench`: every contestant does its work, and a wrong answer is not measured."""

import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bench.build import CONTESTANTS, Contestant, build_contestants
from bench.run import costs
from bench.sandbox import sandbox
from bench.world import World
from local.process import ProcessFailed
from local.session import timeout_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="make bench reads /proc")

EMPTY, OURS_HTTP = CONTESTANTS[0], CONTESTANTS[3]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The Tavus and AWS that the contestants call."""
    with World() as world:
        build_contestants(world.authority)
        yield world


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


def test_costs_are_differences_of_the_work() -> None:
    """The start costs 100, the first call 10, the second 5, the third 3 and each later one 2."""
    assert costs({0: 100, 1: 110, 2: 115, 3: 118, 21: 118 + 18 * 2}) == {
        "start": 100,
        "start to first answer": 110,
        "warm call": (3 + 18 * 2) / 19,
        "third call / later": 1.5,
    }
