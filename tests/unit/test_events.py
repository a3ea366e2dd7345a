"""The event door: which events it accepts, and what it publishes."""

import json
from collections.abc import Callable, Container
from datetime import UTC, datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from end_conversation.aws.client import PAUSE_SECONDS, TRY_SECONDS
from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.errors import InvalidEvent, ResultNotPublished, TavusUnavailable, UnsupportedEvent
from end_conversation.events import EXIT_SECONDS, RESERVE_SECONDS, EventDoor
from tests.unit.fakes import Context, FakeClock, FakeTelemetry, sample

SCHEMA = sample("conversation-end-result.schema")
DECIDED_AT = datetime(2026, 11, 22, 20, 14, 0, 123456, UTC)
ALLOWED = {"d1", "d1234567890abcdef"}
ENDED = Result(Status.ENDED, None, DECIDED_AT, 1, 200, "9a1e")


class Door:
    """The event door, with fakes of all that it uses. Every published event is validated."""

    def __init__(
        self,
        result: Result = ENDED,
        publish_error: ResultNotPublished | None = None,
        allowed: Container[str] = ALLOWED,
    ) -> None:
        self.result = result
        self.publish_error = publish_error
        self.ended: list[Conversation] = []
        self.seconds: list[tuple[float, float]] = []
        self.published: list[dict[str, Any]] = []
        self.telemetry = FakeTelemetry()
        self._door = EventDoor(self._end, allowed, self._publish, self.telemetry, FakeClock())

    def __call__(self, event: dict[str, Any]) -> None:
        self._door(event, Context(60_000, request_id="r1"))

    def _end(self, conversation: Conversation, deadline: Deadline) -> Result:
        self.ended.append(conversation)
        self.seconds.append((deadline.left_for_tavus(), deadline.left()))
        return self.result

    def _publish(self, detail_type: str, detail: dict[str, Any], deadline: Deadline) -> None:
        if self.publish_error is not None:
            raise self.publish_error
        event = {"source": "tavus.conversations", "detail-type": detail_type, "detail": detail}
        event = json.loads(json.dumps(event))
        Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(event)
        self.published.append(event["detail"])


def session_timeout(**changes: Any) -> Any:
    return sample("session-timeout", **changes)


def message(body: str) -> dict[str, Any]:
    """Return an SQS event with one message of the retry queue."""
    event: dict[str, Any] = sample("retry")
    event["Records"][0]["body"] = body
    return event


def record_of(event: Any) -> dict[str, Any]:
    """Return Lambda's record of failed asynchronous invocations with this event."""
    record: dict[str, Any] = json.loads(sample("retry")["Records"][0]["body"])
    return record | {"requestPayload": event}


def test_a_session_timeout_ends_the_conversation_and_publishes_the_result() -> None:
    door = Door()
    event = session_timeout()

    door(event)

    assert door.ended == [Conversation("d1234567890abcdef", "c123456")]
    assert door.telemetry.results == [("event", ENDED)]
    assert door.published == [
        {
            "version": "1",
            "deployment_id": "d1234567890abcdef",
            "conversation_id": "c123456",
            "status": "ended",
            "reason": None,
            "decided_at": "2026-11-22T20:14:00.123Z",
            "attempts": 1,
            "tavus_status_code": 200,
            "tavus_request_id": "9a1e",
            "trigger": {
                "id": event["id"],
                "source": "myapp.sessions",
                "detail_type": "Session Timeout",
                "time": event["time"],
            },
        }
    ]


@pytest.mark.parametrize(
    "result",
    [
        Result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, DECIDED_AT, 3),
        Result(Status.NOT_FOUND, None, DECIDED_AT, 1, 404),
        Result(Status.REJECTED, Reason.TAVUS_REJECTED, DECIDED_AT, 1, 403),
        Result(Status.REJECTED, Reason.DEPLOYMENT_NOT_ALLOWED, DECIDED_AT, 0),
    ],
)
def test_every_result_is_published(result: Result) -> None:
    """Members of the event that we do not know are ignored."""
    door = Door(result)

    door(session_timeout(extra=1, detail=session_timeout()["detail"] | {"extra": 1}))

    [published] = door.published
    assert (published["status"], published["reason"]) == (result.status, result.reason)


@pytest.mark.parametrize("junk", [None, 5, "", [], {}])
def test_junk_in_the_envelope_does_not_stop_an_end(junk: Any) -> None:
    door = Door()

    door(session_timeout(**dict.fromkeys(("id", "source", "detail-type", "time"), junk)))

    assert len(door.ended) == 1
    assert door.published[0]["trigger"] == {"id": "r1", "source": None, "detail_type": None, "time": None}


def test_handmade_event() -> None:
    """EventBridge always sends an id and a time. Without an id, the request id is published."""
    door = Door()
    event = session_timeout(time="yesterday")
    del event["id"]

    door(event)

    assert (door.published[0]["trigger"]["id"], door.published[0]["trigger"]["time"]) == ("r1", "yesterday")


NO_IDS: list[Any] = [None, [], "{}", {}, {"deployment_id": "d1"}, {"conversation_id": "c1"}]


@pytest.mark.parametrize("wrap", [lambda event: event, lambda event: message(json.dumps(record_of(event)))])
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        *(({"detail": detail}, "^detail must have a deployment_id and a conversation_id$") for detail in NO_IDS),
        ({"detail": {"deployment_id": "d1", "conversation_id": None}}, r"^detail\.conversation_id must be 1 to 128 "),
        ({"detail": {"deployment_id": 1, "conversation_id": "c1"}}, r"^detail\.deployment_id must be 1 to 128 "),
        ({"detail": {"deployment_id": "d1", "conversation_id": "../c"}}, r"^detail\.conversation_id must be 1 to 128 "),
        ({"detail-type": "Conversation End Result"}, "^the event is a result of this function: the rule must match "),
    ],
)
def test_invalid_event(changes: dict[str, Any], error: str, wrap: Callable[[Any], Any]) -> None:
    """A result that came back as a trigger would loop forever."""
    door = Door()

    with pytest.raises(InvalidEvent, match=error):
        door(wrap(session_timeout(**changes)))

    assert (door.ended, door.published) == ([], [])
    assert door.telemetry.invalids == [("event", "invalid_event")]


@pytest.mark.parametrize("wrap", [lambda event: event, record_of], ids=["undelivered", "failed"])
def test_retried_event(wrap: Callable[[Any], Any]) -> None:
    """The rule's dead letters are the event itself, and Lambda's records hold it. The event keeps its id."""
    direct, door = Door(), Door()
    direct(session_timeout())

    door(message(json.dumps(wrap(session_timeout()))))

    assert (door.ended, door.published) == (direct.ended, direct.published)


@pytest.mark.parametrize(
    ("body", "request_id"),
    [
        (session_timeout(id=""), "r1"),
        (record_of(session_timeout(id=None)), "5a7c6f0e-3c43-4f0c-8a62-0d9b1c1d7e55"),
        (record_of(session_timeout(id=None)) | {"requestContext": None}, "r1"),
        ({"requestPayload": session_timeout(id=7)}, "r1"),
    ],
)
def test_retried_event_without_an_id_keeps_its_request_id(body: Any, request_id: str) -> None:
    """Lambda's record has it. Consumers then recognize a result that an earlier invocation published."""
    door = Door()

    door(message(json.dumps(body)))

    assert door.published[0]["trigger"]["id"] == request_id


def test_a_dead_letter_of_a_schedule_ends_the_conversation() -> None:
    """It is the detail of the event that the schedule could not put on the bus."""
    door, dead_letter = Door(), message(json.dumps(session_timeout()["detail"]))
    attributes = {"SCHEDULE_ARN": {"stringValue": "arn"}, "EXECUTION_ID": {"stringValue": "e1"}}
    dead_letter["Records"][0]["messageAttributes"] = attributes

    door(dead_letter)

    assert door.ended == [Conversation("d1234567890abcdef", "c123456")]
    trigger = door.published[0]["trigger"]
    assert trigger == {"id": "e1", "source": None, "detail_type": None, "time": None}


@pytest.mark.parametrize(
    "body",
    [
        *("", "no JSON", "[" * 100_000, "null", "[]", "7", "{}"),
        json.dumps({"detail": session_timeout()["detail"]}),
        json.dumps(session_timeout()["detail"]),
        json.dumps({"requestPayload": None}),
        json.dumps({"requestPayload": json.dumps(session_timeout())}),
        json.dumps({"requestPayload": {"detail": session_timeout()["detail"]}}),
        json.dumps(record_of(record_of(session_timeout()))),
        json.dumps(record_of(message(json.dumps(session_timeout())))),
        json.dumps([session_timeout()]),
    ],
)
def test_other_messages_are_unsupported(body: str) -> None:
    """The error leaves the message in its queue, as it is."""
    door = Door()

    with pytest.raises(UnsupportedEvent, match="^the SQS message holds no event, "):
        door(message(body))

    assert (door.ended, door.published) == ([], [])
    assert door.telemetry.invalids == [("event", "unsupported_event")]


def test_unavailable_tavus_raises() -> None:
    unavailable = Result(Status.UNAVAILABLE, Reason.TAVUS_ERROR, DECIDED_AT, 3, 503, failure="HTTP 503")
    door = Door(unavailable)

    with pytest.raises(TavusUnavailable, match=r"^tavus_error: HTTP 503 \(attempts: 3\)$"):
        door(session_timeout())

    assert door.published == []
    assert door.telemetry.results == [("event", unavailable)]


def test_unpublished_result_raises() -> None:
    door = Door(publish_error=ResultNotPublished("ThrottlingException"))

    with pytest.raises(ResultNotPublished, match="^ThrottlingException$"):
        door(session_timeout())

    assert door.telemetry.unpublished == ["ThrottlingException"]


def test_time_is_kept_for_recording_publishing_and_returning() -> None:
    door = Door()

    door(session_timeout())

    assert EXIT_SECONDS > 0
    left = 60 - EXIT_SECONDS
    assert door.seconds == [(left - RESERVE_SECONDS, left)]


def test_the_reserve_covers_three_calls_to_aws() -> None:
    """To write the record, to read it, and to publish: each call may be tried twice."""
    assert 3 * (2 * TRY_SECONDS + PAUSE_SECONDS) < RESERVE_SECONDS


def test_a_deployment_that_is_not_allowed_is_rejected() -> None:
    """Neither Tavus nor the table is asked, and the result is published."""
    door = Door(allowed={"d2"})

    door(session_timeout())

    assert door.ended == []
    [detail] = door.published
    assert (detail["status"], detail["reason"], detail["attempts"]) == ("rejected", "deployment_not_allowed", 0)
