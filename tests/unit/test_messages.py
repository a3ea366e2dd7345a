"""The message door: what leaves the queue, and when the rest comes back."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.errors import AwsCallFailed, ResultNotPublished
from end_conversation.events import EventDoor
from end_conversation.messages import MessageDoor
from tests.unit.fakes import Context, FakeClock, FakeQueue, FakeTelemetry

EVENTS = Path(__file__).parents[2] / "events"
NOW = FakeClock().now()
ENDED = Result(Status.ENDED, None, NOW, 1, 200)


class Door:
    """The message door around a real event door, with fakes of all that they use."""

    def __init__(
        self, result: Result = ENDED, jitter: Callable[[float, float], float] = lambda low, high: (low + high) / 2
    ) -> None:
        self.result = result
        self.published: list[dict[str, Any]] = []
        self.publish_error: ResultNotPublished | None = None
        self.ended: list[Conversation] = []
        self.seconds_for_tavus: list[float] = []
        self.queue = FakeQueue()
        self.telemetry = FakeTelemetry()
        self.clock = FakeClock()
        event_door = EventDoor(self._end, {"d1"}, self._publish, self.telemetry, self.clock)
        self._door = MessageDoor(event_door, self.queue, self.telemetry, self.clock, jitter)

    def __call__(self, *messages: dict[str, Any]) -> list[str]:
        """Return the ids of the messages that stay in the queue."""
        answer = self._door({"Records": list(messages)}, Context(30_000, request_id="r1"))
        assert answer.keys() == {"batchItemFailures"}
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    def _end(self, conversation: Conversation, deadline: Deadline) -> Result:
        self.ended.append(conversation)
        self.seconds_for_tavus.append(deadline.left_for_tavus())
        return self.result

    def _publish(self, detail_type: str, detail: dict[str, Any], deadline: Deadline) -> None:
        if self.publish_error is not None:
            raise self.publish_error
        self.published.append(detail)


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


def at(seconds: float) -> str:
    return f"{NOW + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def unavailable(retry_after: float | None = None) -> Result:
    return Result(Status.UNAVAILABLE, Reason.TAVUS_ERROR, NOW, 3, 503, failure="HTTP 503", retry_after=retry_after)


@pytest.mark.parametrize("name", ["session-timeout-message", "session-limit-message"])
def test_a_sample_message_ends_its_conversation(name: str) -> None:
    sample = json.loads((EVENTS / f"{name}.json").read_text())
    [record] = sample["Records"]
    door = Door()
    record["body"] = record["body"].replace("d1234567890abcdef", "d1").replace("2026-11-25T08:37:41Z", at(0))

    assert door(record) == []
    assert door.ended == [Conversation("d1", "c123456")]


def test_a_done_message_leaves_the_queue() -> None:
    door = Door()

    assert door(message(event())) == []
    assert door.ended == [Conversation("d1", "c1")]
    [detail] = door.published
    assert detail["trigger"]["id"] == "e1"
    assert (door.queue.postponed, door.queue.refused) == ([], [])


def test_an_event_without_id_has_that_of_its_message() -> None:
    door = Door()

    door(message(event() | {"id": ""}))

    assert door.published[0]["trigger"]["id"] == "m1"


@pytest.mark.parametrize(("ahead", "postponed"), [(1, 1), (59, 59), (900, 900)])
def test_a_message_waits_for_its_second(ahead: int, postponed: int) -> None:
    door = Door()

    assert door(message(event(ends_at=at(ahead)))) == ["m1"]
    assert door.queue.postponed == [("h1", postponed)]
    assert (door.ended, door.published) == ([], [])


@pytest.mark.parametrize("ahead", [0, -1, -100_000])
def test_a_past_end_is_now(ahead: int) -> None:
    door = Door()

    assert door(message(event(ends_at=at(ahead)))) == []
    assert door.ended == [Conversation("d1", "c1")]


@pytest.mark.parametrize(("left", "postponed"), [(0.6, 1), (1.4, 1), (1.6, 2), (8.4, 8)])
def test_a_message_waits_for_whole_seconds(left: float, postponed: int) -> None:
    door = Door()
    door.clock.advance(10 - left)

    assert door(message(event(ends_at=at(10)))) == ["m1"]
    assert door.queue.postponed == [("h1", postponed)]


@pytest.mark.parametrize("left", [0.01, 0.5])
def test_a_message_is_never_early(left: float) -> None:
    """The function waits for the last part of a second."""
    door = Door()
    door.clock.advance(10 - left)

    assert door(message(event(ends_at=at(10)))) == []
    assert door.clock.now() >= NOW + timedelta(seconds=10)
    assert door.queue.postponed == []


NO_EVENT = [
    *("", "not JSON", "[" * 100_000, "null", "5", "[]", "{}", json.dumps([event()])),
    json.dumps({"detail": {"deployment_id": "d1", "conversation_id": "c1"}}),
    json.dumps({"deployment_id": "d1", "conversation_id": "c1"}),
    json.dumps({"MessageBody": "not JSON", "QueueUrl": "q"}),
    json.dumps({"MessageBody": event(), "QueueUrl": "q"}),
    json.dumps({"MessageBody": json.dumps(event())}),
    json.dumps({"requestPayload": event()}),
]
DETAILS: list[Any] = [None, [], "{}", {}, {"deployment_id": "d1"}]
INVALID = [
    *(json.dumps(event() | {"detail": detail}) for detail in DETAILS),
    json.dumps(event() | {"detail-type": "Conversation End Result"}),
    *(json.dumps(event(conversation_id=junk)) for junk in (None, 7, "", "..", "c" * 129)),
    *(json.dumps(event(ends_at=junk)) for junk in (None, at(901))),
    json.dumps({"MessageBody": json.dumps(event(conversation_id="..")), "QueueUrl": "q"}),
]


@pytest.mark.parametrize(
    ("body", "reason"),
    [*((body, "unsupported_event") for body in NO_EVENT), *((body, "invalid_event") for body in INVALID)],
)
def test_a_hopeless_message_goes_to_the_failed_queue_at_once(body: str, reason: str) -> None:
    """As it is. The log says what is wrong with it."""
    door = Door()
    sent = message(body)

    assert door(sent) == []
    assert door.queue.refused == [sent]
    assert (door.queue.postponed, door.ended) == ([], [])
    assert door.telemetry.invalids == [("event", reason)]
    assert all(detail and "d1" not in detail for detail in door.telemetry.details)


def test_a_hopeless_message_stays_if_the_failed_queue_does_not_take_it() -> None:
    door = Door()
    door.queue.failure = AwsCallFailed("AccessDenied", retryable=False)

    assert door(message("junk")) == ["m1"]
    assert door.telemetry.queue_failures == [("the message was not sent to the failed queue", "AccessDenied")]


def test_a_dead_letter_of_a_schedule_may_be_the_refused_request() -> None:
    door = Door()

    assert door(message({"MessageBody": json.dumps(event()), "QueueUrl": "https://sqs/q"})) == []
    assert door.published[0]["trigger"]["id"] == "e1"


def pauses(receives: range, **members: Any) -> list[int]:
    """Return the pause after each failed try, which was received so many times."""
    door = Door(unavailable())
    for count in receives:
        assert door(message(event(ends_at=at(0)), count, **members)) == ["m1"]
    assert door.published == []
    return [seconds for _, seconds in door.queue.postponed]


def test_tavus_is_tried_nine_times_in_about_an_hour() -> None:
    found = pauses(range(1, 11))

    assert found == [30, 60, 120, 240, 480, 900, 900, 900, 900, 900]
    assert 3600 < sum(found[:8]) < 3700


@pytest.mark.parametrize(("first_received_ago", "expected"), [(30, [30, 60]), (0, [60, 120])])
def test_the_wait_for_a_limit_is_no_try(first_received_ago: float, expected: list[int]) -> None:
    """If the message was first received before its second. It was sent before that in both cases."""
    assert pauses(range(2, 4), sent_ago=30, first_received_ago=first_received_ago) == expected


def test_a_message_without_attributes_counts_as_new() -> None:
    """A hand-made one, for example."""
    door = Door(unavailable())
    made = message(event(ends_at=at(0)))
    del made["attributes"]

    assert door(made) == ["m1"]
    assert door.queue.postponed == [("h1", 30)]


@pytest.mark.parametrize(
    ("ends_at", "sent_ago", "late"), [(None, 0, 30), (None, 100, 130), (-40, 100, 70), (-140, 100, 130)]
)
def test_how_late_the_next_try_will_be_is_recorded(ends_at: float | None, sent_ago: float, late: float) -> None:
    """Since the end, or since the message was sent if that was later."""
    door = Door(unavailable())
    detail = {} if ends_at is None else {"ends_at": at(ends_at)}

    door(message(event(**detail), sent_ago=sent_ago))

    assert door.telemetry.lateness == [late]


@pytest.mark.parametrize(("jitter", "pause"), [(min, 27), (max, 33)])
def test_retries_are_jittered(jitter: Callable[[float, float], float], pause: int) -> None:
    door = Door(unavailable(), jitter)

    door(message(event()))

    assert door.queue.postponed == [("h1", pause)]


@pytest.mark.parametrize(
    ("retry_after", "pause"), [(None, 30), (0, 30), (29, 30), (100.2, 101), (900, 900), (1e9, 900)]
)
def test_no_retry_comes_before_retry_after(retry_after: float | None, pause: int) -> None:
    """But after 15 minutes at the latest."""
    door = Door(unavailable(retry_after))

    door(message(event()))

    assert door.queue.postponed == [("h1", pause)]


def test_an_unpublished_result_is_tried_again() -> None:
    door = Door()
    door.publish_error = ResultNotPublished("ThrottlingException")

    assert door(message(event(), receives=2)) == ["m1"]
    assert door.queue.postponed == [("h1", 60)]
    assert door.telemetry.unpublished == ["ThrottlingException"]


def test_a_message_that_cannot_be_postponed_stays() -> None:
    """The queue's own visibility timeout brings it back."""
    door = Door(unavailable())
    door.queue.failure = AwsCallFailed("ServiceUnavailable", retryable=True)

    assert door(message(event())) == ["m1"]
    assert door.telemetry.queue_failures == [("the message was not postponed", "ServiceUnavailable")]


def test_a_deployment_that_is_not_allowed_is_rejected_and_published() -> None:
    door = Door()

    assert door(message(event(deployment_id="d2"))) == []
    assert (door.published[0]["reason"], door.ended) == ("deployment_not_allowed", [])


def test_each_message_of_a_batch_is_handled() -> None:
    door = Door()

    kept = door(message(event(), messageId="a"), message("junk", messageId="b"), message(event(ends_at=at(9))))

    assert kept == ["m1"]
    assert (len(door.published), len(door.queue.refused)) == (1, 1)


def test_a_bug_is_raised() -> None:
    """So that Lambda counts an error. The message comes back."""

    class Bug(Exception):
        pass

    door = Door()
    door.publish_error = Bug()  # type: ignore[assignment]

    with pytest.raises(Bug):
        door(message(event()))
