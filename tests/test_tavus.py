"""The client's reading of Tavus' headers; its dealing with faults is in test_faults.py."""

import pytest

from end_conversation.conversation import Conversation
from end_conversation.deadline import Deadline
from end_conversation.errors import TavusUnavailable
from end_conversation.exchange import Answer
from end_conversation.tavus import LEAST_SECONDS, Tavus
from tests.fakes import FakeClock

CONVERSATION = Conversation("d1", "c1")
UUID = "0B9a6a4e-6c1f-4f57-8d0e-2b6f6f0f4d1Z"


def answering(status_code: int, **headers: str) -> tuple[Tavus, Deadline]:
    """A client with the time for one attempt, and the answer that it meets."""
    clock = FakeClock()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    client = Tavus(lambda path, seconds: Answer(status_code, sent, b""), clock, lambda least, _: least)
    return client, Deadline(clock, LEAST_SECONDS, reserve=0)


@pytest.mark.parametrize("status_code", [200, 404, 403])
@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (UUID, UUID),
        (f" {UUID}\t ", UUID),
        ("a" * 64, "a" * 64),
        ("a" * 65, None),
        ("", None),
        ("a b", None),
        ("<script>", None),
        ("a\nb", None),
        ("\u0661", None),
    ],
)
def test_tavus_request_id_is_told_where_it_is_fit_to_repeat(status_code: int, sent: str, told: str | None) -> None:
    """Letters, digits and hyphens, 1 to 64; anything else is none."""
    client, deadline = answering(status_code, X_Tavus_Request_Id=sent)

    assert client.end(CONVERSATION, deadline).tavus_request_id == told


def test_tavus_request_id_is_told_of_a_failure_too() -> None:
    """It is what Tavus' support would ask for."""
    client, deadline = answering(503, X_Tavus_Request_Id=UUID)

    with pytest.raises(TavusUnavailable) as unavailable:
        client.end(CONVERSATION, deadline)

    assert unavailable.value.tavus_request_id == UUID


def test_without_a_request_id_none_is_told() -> None:
    """Tavus does not promise one."""
    client, deadline = answering(404)

    assert client.end(CONVERSATION, deadline).tavus_request_id is None


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [("60", 60), ("60 ", 60), ("\t60", 60), ("1.5", None), ("-5", None), ("", None), ("6 0", None), ("\u0661", None)],
)
def test_retry_after_is_whole_seconds_with_white_space_around_it(sent: str, seconds: float | None) -> None:
    """White space around a value is none of it; junk is ignored."""
    client, deadline = answering(429, Retry_After=sent)

    with pytest.raises(TavusUnavailable) as unavailable:
        client.end(CONVERSATION, deadline)

    assert unavailable.value.retry_after == seconds


def test_each_attempt_has_an_equal_share_and_waits_by_full_jitter() -> None:
    """Three attempts share what is left; before the second lies up to half a second, before the third up to one."""
    clock = FakeClock()
    shares: list[float] = []
    bounds: list[tuple[float, float]] = []

    def post(path: str, seconds: float) -> Answer:
        shares.append(seconds)
        return Answer(503, {}, b"")

    def jitter(least: float, most: float) -> float:
        bounds.append((least, most))
        return 0

    with pytest.raises(TavusUnavailable, match="^tavus_error after 3 attempts: HTTP 503$"):
        Tavus(post, clock, jitter).end(CONVERSATION, Deadline(clock, 30, reserve=0))

    assert shares == [10, 15, 30]
    assert bounds[:2] == [(0, 0.5), (0, 1)]


def test_too_little_time_is_told_as_such() -> None:
    """No attempt is begun that could not be finished."""
    clock = FakeClock()
    client, _ = answering(200)

    with pytest.raises(TavusUnavailable, match="^tavus_timeout after 0 attempts: no time was left$"):
        client.end(CONVERSATION, Deadline(clock, LEAST_SECONDS / 2, reserve=0))
