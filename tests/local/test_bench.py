"""`make bench`: the contestants do the same work, and the figures are computed from the right ones."""

import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bench.build import CONTESTANTS, OURS, USUAL, Contestant, build_contestants
from bench.report import RATIOS, _cell, report
from bench.run import costs
from bench.sandbox import sandbox
from bench.world import World
from local.process import ROOT, ProcessFailed
from local.session import timeout_of

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
    """The start costs 100, the first call 10, the second 5, the third 3 and each later one 2."""
    assert costs({0: 100, 1: 110, 2: 115, 3: 118, 21: 118 + 18 * 2}) == {
        "start": 100,
        "start to first answer": 110,
        "warm call": (3 + 18 * 2) / 19,
        "third call / later": 1.5,
    }


def test_the_report_has_all_figures_and_ratios() -> None:
    """Each contestant's start is ten times its place, and its calls are as many tenths."""
    figures = {
        contestant.name: {"start": 10.0 * place, "start to first answer": 11.0 * place, "warm call": place / 10}
        for place, contestant in enumerate(CONTESTANTS, start=1)
    }
    place = {contestant.name: number for number, contestant in enumerate(CONTESTANTS, start=1)}

    text = re.sub(" +", " ", report(figures, "units"))

    assert "Measured by `make bench` on " in text
    for name, number in place.items():
        assert f"| {name} | {_cell(10.0 * number)} | {_cell(11.0 * number)} | {_cell(number / 10)} |" in text
    for measure, name, other in RATIOS:
        assert f"| {measure}: {name} / {other} | {place[name] / place[other]:.3f} |" in text
    bare = (place["ours"] - place["empty"]) / (place["raw urllib3"] - place["empty"])
    assert f"| warm call: ours / raw urllib3, both without empty | {bare:.3f} |" in text
    for measure in ("start to first answer", "warm call"):
        assert f'\n title "{measure}, units"\n' in text
