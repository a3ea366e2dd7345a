"""The client of Tavus with a fake connection: headers, time shares, waits. test_faults.py has the real connection."""

import pytest

from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.decision import Answer, NoAnswer
from end_conversation.tavus import MIN_ATTEMPT_SECONDS, TavusClient
from tests.unit.fakes import FakeClock

UUID = "0B9a6a4e-6c1f-4f57-8d0e-2b6f6f0f4d1Z"


class Post:
    """Gives each attempt the next of these answers, and the last one again and again. Remembers the attempts' time."""

    def __init__(self, *answers: Answer | NoAnswer) -> None:
        self._answers = list(answers)
        self.shares: list[float] = []

    def __call__(self, path: str, seconds: float) -> Answer | NoAnswer:
        self.shares.append(seconds)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def end(post: Post, seconds: float, bounds: list[tuple[float, float]] | None = None) -> Result:
    """End a conversation within this many seconds, without jitter. `bounds` gets the bounds of each jitter."""
    clock = FakeClock()

    def jitter(low: float, high: float) -> float:
        if bounds is not None:
            bounds.append((low, high))
        return low

    return TavusClient(post, clock, jitter).end_conversation(
        Conversation("d1", "c1"), Deadline(clock, seconds, reserve=0)
    )


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (Answer(404, {}, b""), MIN_ATTEMPT_SECONDS),
        (NoAnswer(Reason.TAVUS_UNREACHABLE, "SSLError", sent=False, retryable=False), MIN_ATTEMPT_SECONDS),
        (Answer(404, {}, b""), 0),
    ],
)
def test_a_result_has_the_time_of_its_decision(answer: Answer | NoAnswer, seconds: float) -> None:
    """Also one without an attempt."""
    assert end(Post(answer), seconds).decided_at == FakeClock().now()


@pytest.mark.parametrize("status_code", [200, 404, 403, 503])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (UUID, UUID),
        (f" {UUID}\t ", UUID),
        ("a" * 64, "a" * 64),
        *((value, None) for value in ("a" * 65, "", "a b", "<script>", "a\nb", "\u0661")),
    ],
)
def test_a_request_id_is_1_to_64_letters_digits_and_hyphens(status_code: int, value: str, expected: str | None) -> None:
    """Every result carries it, because Tavus' support asks for it. An answer may have none."""
    with_id = Post(Answer(status_code, {"X-Tavus-Request-Id": value}, b""))

    assert end(with_id, MIN_ATTEMPT_SECONDS).tavus_request_id == expected
    assert end(Post(Answer(status_code, {}, b"")), MIN_ATTEMPT_SECONDS).tavus_request_id is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("60", 60), ("60 ", 60), ("\t60", 60), *((value, None) for value in ("1.5", "-5", "", "6 0", "\u0661"))],
)
def test_retry_after_is_a_whole_number_between_white_space(value: str, seconds: float | None) -> None:
    assert end(Post(Answer(429, {"Retry-After": value}, b"")), MIN_ATTEMPT_SECONDS).retry_after == seconds


def test_attempts_get_half_of_the_time_left_and_wait_with_full_jitter() -> None:
    post = Post(Answer(503, {}, b""))
    bounds: list[tuple[float, float]] = []

    result = end(post, 30, bounds)

    assert (result.reason, result.attempts, result.failure) == (Reason.TAVUS_ERROR, 3, "HTTP 503")
    assert post.shares == [15, 15, 30]
    assert bounds[:2] == [(0, 0.5), (0, 1)]


@pytest.mark.parametrize(("seconds", "given"), [(24.5, 12.25), (10, 5), (2, 1), (1.5, 1), (1, 1)])
def test_no_attempt_gets_less_than_a_second(seconds: float, given: float) -> None:
    """Over HTTP, the first attempt waits 12 s for a slow Tavus."""
    post = Post(Answer(404, {}, b""))

    end(post, seconds)

    assert post.shares == [given]


@pytest.mark.parametrize(("retry_after", "attempts"), [(23, 3), (24, 1), (3600, 1)])
def test_retry_after_is_honoured_if_a_whole_attempt_fits_after_it(retry_after: int, attempts: int) -> None:
    """Otherwise the result stays throttled: an attempt with too little time would make it a timeout."""
    result = end(Post(*(Answer(429, {"Retry-After": str(value)}, b"") for value in (retry_after, 0))), 24.5)

    assert (result.attempts, result.reason) == (attempts, Reason.TAVUS_THROTTLED)


def test_no_attempt_is_made_in_too_little_time() -> None:
    post = Post(Answer(404, {}, b""))

    result = end(post, MIN_ATTEMPT_SECONDS / 2)

    assert (result.status, result.reason) == (Status.UNAVAILABLE, Reason.TAVUS_TIMEOUT)
    assert (result.attempts, result.failure, post.shares) == (0, "no time was left", [])
