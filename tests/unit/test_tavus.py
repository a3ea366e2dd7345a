"""The client of Tavus with a fake connection: headers, time shares, waits. test_faults.py has the real connection."""

import pytest

from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.decision import Answer
from end_conversation.tavus import MIN_ATTEMPT_SECONDS, TavusClient
from tests.unit.fakes import FakeClock

CONVERSATION = Conversation("d1", "c1")
UUID = "0B9a6a4e-6c1f-4f57-8d0e-2b6f6f0f4d1Z"


def end_once(status_code: int, **headers: str) -> Result:
    """The result of a call that has time for one attempt, and gets this answer."""
    clock = FakeClock()
    answer = Answer(status_code, {name.replace("_", "-"): value for name, value in headers.items()}, b"")
    client = TavusClient(lambda path, seconds: answer, clock, lambda low, high: low)
    return client.end_conversation(CONVERSATION, Deadline(clock, MIN_ATTEMPT_SECONDS, reserve=0))


@pytest.mark.parametrize("status_code", [200, 404, 403, 503])
@pytest.mark.parametrize(
    ("value", "expected"),
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
def test_a_request_id_is_1_to_64_letters_digits_and_hyphens(status_code: int, value: str, expected: str | None) -> None:
    """Every result carries it, because Tavus' support asks for it."""
    assert end_once(status_code, X_Tavus_Request_Id=value).tavus_request_id == expected


def test_an_answer_without_a_request_id_is_accepted() -> None:
    assert end_once(404).tavus_request_id is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("60", 60), ("60 ", 60), ("\t60", 60), ("1.5", None), ("-5", None), ("", None), ("6 0", None), ("\u0661", None)],
)
def test_retry_after_is_a_whole_number_between_white_space(value: str, seconds: float | None) -> None:
    assert end_once(429, Retry_After=value).retry_after == seconds


def test_attempts_get_half_of_the_time_left_and_wait_with_full_jitter() -> None:
    clock = FakeClock()
    shares: list[float] = []
    bounds: list[tuple[float, float]] = []

    def post(path: str, seconds: float) -> Answer:
        shares.append(seconds)
        return Answer(503, {}, b"")

    def jitter(low: float, high: float) -> float:
        bounds.append((low, high))
        return 0

    result = TavusClient(post, clock, jitter).end_conversation(CONVERSATION, Deadline(clock, 30, reserve=0))

    assert (result.reason, result.attempts, result.failure) == (Reason.TAVUS_ERROR, 3, "HTTP 503")
    assert shares == [15, 15, 30]
    assert bounds[:2] == [(0, 0.5), (0, 1)]


@pytest.mark.parametrize(("seconds", "given"), [(24.5, 12.25), (10, 5), (2, 1), (1.5, 1), (1, 1)])
def test_no_attempt_gets_less_than_a_second(seconds: float, given: float) -> None:
    """Over HTTP, a slow Tavus is waited for for 12 s."""
    clock = FakeClock()
    shares: list[float] = []

    def post(path: str, seconds: float) -> Answer:
        shares.append(seconds)
        return Answer(404, {}, b"")

    TavusClient(post, clock, lambda low, _: low).end_conversation(CONVERSATION, Deadline(clock, seconds, reserve=0))

    assert shares == [given]


@pytest.mark.parametrize(("retry_after", "attempts"), [(23, 3), (24, 1), (3600, 1)])
def test_retry_after_is_honoured_if_a_whole_attempt_fits_after_it(retry_after: int, attempts: int) -> None:
    """Otherwise the throttled answer stands: no attempt in a rest of the time turns it into a timeout."""
    clock = FakeClock()
    waits = iter([str(retry_after), "0", "0"])

    def post(path: str, seconds: float) -> Answer:
        clock.advance(min(seconds, 0.1))
        return Answer(429, {"Retry-After": next(waits)}, b"")

    client = TavusClient(post, clock, lambda low, _: low)
    result = client.end_conversation(CONVERSATION, Deadline(clock, 24.5, reserve=0))

    assert (result.attempts, result.reason) == (attempts, Reason.TAVUS_THROTTLED)


def test_no_attempt_is_made_in_too_little_time() -> None:
    clock = FakeClock()
    posts: list[str] = []

    def post(path: str, seconds: float) -> Answer:
        posts.append(path)
        return Answer(404, {}, b"")

    client = TavusClient(post, clock, lambda low, high: low)
    result = client.end_conversation(CONVERSATION, Deadline(clock, MIN_ATTEMPT_SECONDS / 2, reserve=0))

    assert (result.status, result.reason) == (Status.UNAVAILABLE, Reason.TAVUS_TIMEOUT)
    assert (result.attempts, result.failure, posts) == (0, "no time was left", [])
