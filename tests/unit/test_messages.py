"""The message door: what leaves the queue, and when the rest comes back. test_events.py has what is in an event."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.errors import AwsCallFailed, ResultNotPublished
from tests.unit.doors import NOW, Events, at
from tests.unit.fakes import sample


def event(**detail: Any) -> dict[str, Any]:
    return {
        "id": "e1",
        "source": "myapp.sessions",
        "detail-type": "Session Timeout",
        "detail": {"deployment_id": "d1", "conversation_id": "c1"} | detail,
    }


def message(
    body: Any, receives: int = 1, sent_ago: float = 0, first_received_ago: float = 0, **members: Any
) -> dict[str, Any]:
    def ago(seconds: float) -> str:
        return str(round((NOW.timestamp() - seconds) * 1000))

    return {
        "messageId": "m1",
        "receiptHandle": "h1",
        "body": body if isinstance(body, str) else json.dumps(body),
        "attributes": {
            "ApproximateReceiveCount": str(receives),
            "SentTimestamp": ago(sent_ago),
            "ApproximateFirstReceiveTimestamp": ago(first_received_ago),
        },
        "messageAttributes": {},
        "eventSource": "aws:sqs",
    } | members


def unavailable(retry_after: float | None = None) -> Result:
    return Result(Status.UNAVAILABLE, Reason.TAVUS_ERROR, NOW, 3, 503, failure="HTTP 503", retry_after=retry_after)


@pytest.mark.parametrize("name", ["session-timeout-message", "session-limit-message"])
def test_a_sample_message_ends_its_conversation(name: str) -> None:
    [record] = sample(name)["Records"]
    record["body"] = record["body"].replace("2026-11-25T08:37:41Z", at(0))
    door = Events()

    assert door.receive(record) == []
    assert door.ended == [Conversation("d1234567890abcdef", "c123456")]


@pytest.mark.parametrize(("event_id", "published"), [("e1", "e1"), ("", "m1")])
def test_handled_message_leaves_the_queue(event_id: str, published: str) -> None:
    """An event without an id has that of its message."""
    door = Events()

    assert door.receive(message(event() | {"id": event_id})) == []
    assert door.ended == [Conversation("d1", "c1")]
    [detail] = door.published
    assert detail["trigger"]["id"] == published
    assert (door.queue.postponed, door.queue.refused) == ([], [])


@pytest.mark.parametrize(("ahead", "postponed"), [(1, 1), (59, 59), (900, 900), (0.6, 1), (1.4, 1), (1.6, 2), (8.4, 8)])
def test_a_message_waits_for_its_second(ahead: float, postponed: int) -> None:
    """SQS postpones by whole seconds."""
    door = Events()
    door.clock.advance(900 - ahead)

    assert door.receive(message(event(ends_at=at(900)))) == ["m1"]
    assert door.queue.postponed == [("h1", postponed)]
    assert door.queue.left == [29.75]  # of 30 s, without what is kept for the return to Lambda
    assert (door.ended, door.published) == ([], [])


@pytest.mark.parametrize("ahead", [0, -1, -100_000])
def test_past_ends_at_means_now(ahead: int) -> None:
    door = Events()

    assert door.receive(message(event(ends_at=at(ahead)))) == []
    assert door.ended == [Conversation("d1", "c1")]


@pytest.mark.parametrize("left", [0.01, 0.5])
def test_a_message_is_never_early(left: float) -> None:
    """The function waits for the last part of a second."""
    door = Events()
    door.clock.advance(10 - left)

    assert door.receive(message(event(ends_at=at(10)))) == []
    assert door.clock.now() >= NOW + timedelta(seconds=10)
    assert door.queue.postponed == []


NOT_JSON = ["", "not JSON", "[" * 100_000, json.dumps({"MessageBody": "not JSON", "QueueUrl": "q"})]
NO_EVENT = [
    *("null", "5", "[]", "{}", json.dumps([event()])),
    json.dumps({"detail": {"deployment_id": "d1", "conversation_id": "c1"}}),
    json.dumps({"deployment_id": "d1", "conversation_id": "c1"}),
    json.dumps({"MessageBody": event(), "QueueUrl": "q"}),
    json.dumps({"MessageBody": json.dumps(event())}),
    json.dumps({"requestPayload": event()}),
]
INVALID = [
    json.dumps(event() | {"detail": None}),
    json.dumps(event() | {"detail-type": "Conversation End Result"}),
    json.dumps(event(conversation_id="..")),
    *(json.dumps(event(ends_at=junk)) for junk in (None, at(901))),
    json.dumps({"MessageBody": json.dumps(event(conversation_id="..")), "QueueUrl": "q"}),
]


@pytest.mark.parametrize(
    ("body", "reason", "text"),
    [
        *((body, "unsupported_event", "the body of the message is not JSON") for body in NOT_JSON),
        *((body, "unsupported_event", "the event has no detail-type") for body in NO_EVENT),
        *((body, "invalid_event", None) for body in INVALID),
    ],
)
def test_invalid_message_goes_to_the_failed_queue_at_once(body: str, reason: str, text: str | None) -> None:
    """It is copied unchanged, and the log says what is wrong with it. test_events.py has the texts for events."""
    door = Events()
    sent = message(body)

    assert door.receive(sent) == []
    assert door.queue.refused == [sent]
    assert (door.queue.postponed, door.ended) == ([], [])
    assert door.telemetry.invalids == [("event", reason)]
    [detail] = door.telemetry.details
    assert detail == text if text else detail not in (None, "None")


def test_invalid_message_stays_if_the_failed_queue_fails() -> None:
    door = Events()
    door.queue.failure = AwsCallFailed("AccessDenied", retryable=False)

    assert door.receive(message("junk")) == ["m1"]
    assert door.telemetry.queue_failures == [("the message was not sent to the failed queue", "AccessDenied")]


def test_a_dead_letter_of_a_schedule_may_be_the_refused_request() -> None:
    door = Events()

    assert door.receive(message({"MessageBody": json.dumps(event()), "QueueUrl": "https://sqs/q"})) == []
    assert door.published[0]["trigger"]["id"] == "e1"


def pauses(receives: range, **members: Any) -> list[int]:
    """Return the pause after each failed try, which was received so many times."""
    door = Events(unavailable())
    for count in receives:
        assert door.receive(message(event(ends_at=at(0)), count, **members)) == ["m1"]
    assert door.published == []
    return [seconds for _, seconds in door.queue.postponed]


def test_tavus_is_tried_nine_times_in_about_an_hour() -> None:
    found = pauses(range(1, 11))

    assert found == [30, 60, 120, 240, 480, 900, 900, 900, 900, 900]
    assert 3600 < sum(found[:8]) < 3700


@pytest.mark.parametrize(("first_received_ago", "expected"), [(30, [30, 60]), (0, [60, 120])])
def test_waiting_for_a_limit_is_not_a_try(first_received_ago: float, expected: list[int]) -> None:
    """If the message was first received before its second. It was sent before that in both cases."""
    assert pauses(range(2, 4), sent_ago=30, first_received_ago=first_received_ago) == expected


@pytest.mark.parametrize("detail", [{}, {"ends_at": at(0)}])
def test_a_message_without_attributes_counts_as_new(detail: dict[str, str]) -> None:
    """A hand-made one, for example."""
    door = Events(unavailable())
    made = message(event(**detail))
    del made["attributes"]

    assert door.receive(made) == ["m1"]
    assert door.queue.postponed == [("h1", 30)]
    assert door.telemetry.lateness == [30]


@pytest.mark.parametrize(
    ("ends_at", "sent_ago", "late"), [(None, 0, 30), (None, 100, 130), (-40, 100, 70), (-140, 100, 130)]
)
def test_how_late_the_next_try_will_be_is_recorded(ends_at: float | None, sent_ago: float, late: float) -> None:
    """Since the end, or since the message was sent if that was later."""
    door = Events(unavailable())
    detail = {} if ends_at is None else {"ends_at": at(ends_at)}

    door.receive(message(event(**detail), sent_ago=sent_ago))

    assert door.telemetry.lateness == [late]


@pytest.mark.parametrize(("jitter", "pause"), [(min, 27), (max, 33)])
def test_retries_are_jittered(jitter: Callable[[float, float], float], pause: int) -> None:
    door = Events(unavailable(), jitter)

    door.receive(message(event()))

    assert door.queue.postponed == [("h1", pause)]


@pytest.mark.parametrize(
    ("retry_after", "pause"), [(None, 30), (0, 30), (29, 30), (100.2, 101), (900, 900), (1e9, 900)]
)
def test_no_retry_comes_before_retry_after(retry_after: float | None, pause: int) -> None:
    """It comes after 15 minutes at the latest."""
    door = Events(unavailable(retry_after))

    door.receive(message(event()))

    assert door.queue.postponed == [("h1", pause)]


def test_an_unpublished_result_is_tried_again() -> None:
    door = Events()
    door.publish_error = ResultNotPublished("ThrottlingException")

    assert door.receive(message(event(), receives=2)) == ["m1"]
    assert door.queue.postponed == [("h1", 60)]
    assert door.telemetry.unpublished == ["ThrottlingException"]


def test_a_message_that_cannot_be_postponed_stays() -> None:
    """The queue's own visibility timeout brings it back."""
    door = Events(unavailable())
    door.queue.failure = AwsCallFailed("ServiceUnavailable", retryable=True)

    assert door.receive(message(event())) == ["m1"]
    assert door.telemetry.queue_failures == [("the message was not postponed", "ServiceUnavailable")]


def test_each_message_of_a_batch_is_handled() -> None:
    door = Events()

    kept = door.receive(message(event(), messageId="a"), message("junk", messageId="b"), message(event(ends_at=at(9))))

    assert kept == ["m1"]
    assert (len(door.published), len(door.queue.refused)) == (1, 1)


def test_a_bug_is_raised() -> None:
    """So that Lambda counts an error. The message comes back."""
    door = Events()
    door.publish_error = ZeroDivisionError()

    with pytest.raises(ZeroDivisionError):
        door.receive(message(event()))
