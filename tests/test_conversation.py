"""The room: ids, the strength of results, and whose conversations may be ended."""

import pytest

from end_conversation.conversation import Conversation, EndAllowed, InvalidId, Reason, Result, Status
from end_conversation.deadline import Deadline
from tests.fakes import FakeClock

CLOCK = FakeClock()
ENDED = Result(Status.ENDED, None, CLOCK.now(), 1, 200)


def end(conversation: Conversation, deadline: Deadline) -> Result:
    return ENDED


def test_an_allowed_deployment_is_asked_for() -> None:
    """What Tavus says of a listed deployment's conversation is handed on."""
    allowed = EndAllowed(end, {"d1"}, CLOCK)

    assert allowed(Conversation("d1", "c1"), Deadline(CLOCK, 10, 5)) is ENDED


def test_a_deployment_that_is_not_listed_is_rejected_without_asking() -> None:
    """The result says that no attempt was made."""
    allowed = EndAllowed(end, {"d2"}, CLOCK)

    result = allowed(Conversation("d1", "c1"), Deadline(CLOCK, 10, 5))

    assert result == Result(Status.REJECTED, Reason.DEPLOYMENT_NOT_ALLOWED, CLOCK.now(), attempts=0)


@pytest.mark.parametrize(
    ("ids", "wrong"), [(("-d", "c1"), "deployment_id"), (("d1", "c/1"), "conversation_id"), (("", ""), "deployment_id")]
)
def test_an_invalid_id_is_named_and_not_quoted(ids: tuple[str, str], wrong: str) -> None:
    """The error says which id, and what it should be."""
    with pytest.raises(InvalidId) as refused:
        Conversation(*ids)

    rule = "must be 1 to 128 letters, digits, hyphens or underscores, the first a letter or digit"
    assert str(refused.value) == f"{wrong} {rule}"


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        (Status.ENDED, Status.UNCONFIRMED),
        (Status.UNCONFIRMED, Status.NOT_FOUND),
        (Status.UNCONFIRMED, Status.REJECTED),
    ],
)
def test_a_stronger_truth_outranks_a_weaker_one(stronger: Status, weaker: Status) -> None:
    """`ended` before `unconfirmed` before the others; none outranks its like."""
    strong, weak = (Result(status, None, CLOCK.now(), 1) for status in (stronger, weaker))

    assert strong.outranks(weak)
    assert not weak.outranks(strong)
    assert not strong.outranks(strong)
    assert not weak.outranks(weak)
