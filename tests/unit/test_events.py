"""The event door: which events it accepts, and what it publishes."""

import json
from collections.abc import Container
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from end_conversation.aws.client import PAUSE_SECONDS, TRY_SECONDS
from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.errors import InvalidEvent, ResultNotPublished, TavusUnavailable
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

    def __call__(self, event: dict[str, Any], remaining_ms: int = 60_000) -> None:
        self._door(event, Context(remaining_ms, request_id="r1"))

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
def test_invalid_event(changes: dict[str, Any], error: str) -> None:
    """A result that came back as a trigger would loop forever."""
    door = Door()

    with pytest.raises(InvalidEvent, match=error):
        door(session_timeout(**changes))

    assert (door.ended, door.published) == ([], [])
    assert door.telemetry.invalids == [("event", "invalid_event")]


def in_seconds(seconds: float) -> str:
    return f"{FakeClock().now() + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def ending_at(ends_at: Any) -> Any:
    return session_timeout(detail=session_timeout()["detail"] | {"ends_at": ends_at})


@pytest.mark.parametrize("seconds", [0, -1, -3600, -30 * 86_400])
def test_an_end_that_has_passed_means_now(seconds: float) -> None:
    door = Door()

    door(ending_at(in_seconds(seconds)))

    assert [detail["status"] for detail in door.published] == ["ended"]


@pytest.mark.parametrize("seconds", [1, 60, 900])
def test_an_end_ahead_is_invalid_without_the_queue(seconds: float) -> None:
    """Nothing could wait."""
    door = Door()

    with pytest.raises(InvalidEvent, match=r"^detail\.ends_at is in the future: send the event through the queue"):
        door(ending_at(in_seconds(seconds)))

    assert (door.ended, door.published) == ([], [])
    assert door.telemetry.invalids == [("event", "invalid_event")]
    [detail] = door.telemetry.details
    assert detail


@pytest.mark.parametrize(
    "ends_at",
    [
        *(None, "", 0, 1764405461, True, [], {}),
        *("now", "2026-11-22", "2026-11-22T00:00:00", "2026-11-22T00:00Z", "2026-11-22 00:00:00Z"),
        *("2026-11-22T00:00:00.000Z", "2026-11-22T00:00:00+00:00", "2026-11-22T01:00:00+01:00", "2026-11-22T00:00:00z"),
        *("2026-11-22T24:00:00Z", "2026-11-22T00:00:60Z", "2026-02-29T00:00:00Z", "0000-01-01T00:00:00Z"),
        *(" 2026-11-22T00:00:00Z", "2026-11-22T00:00:00Z\n", "\uff12026-11-22T00:00:00Z", "20261122T000000Z"),
    ],
)
def test_another_form_of_ends_at_is_invalid(ends_at: Any) -> None:
    """A time that was misread could end a conversation early."""
    door = Door()

    with pytest.raises(InvalidEvent, match=r"^detail\.ends_at must be a time in UTC such as 2026-11-29T08:37:41Z$"):
        door(ending_at(ends_at))

    assert door.ended == []


def test_a_far_end_is_invalid() -> None:
    """The queue waits for up to 15 minutes, and a limit for as long as it must."""
    door = Door()

    with pytest.raises(InvalidEvent, match=r"^detail\.ends_at must be at most 15 minutes ahead: set a limit "):
        door(ending_at(in_seconds(901)))


def test_unavailable_tavus_raises() -> None:
    unavailable = Result(Status.UNAVAILABLE, Reason.TAVUS_ERROR, DECIDED_AT, 3, 503, failure="HTTP 503", retry_after=7)
    door = Door(unavailable)

    with pytest.raises(TavusUnavailable, match=r"^tavus_error: HTTP 503 \(attempts: 3\)$") as raised:
        door(session_timeout())

    assert (raised.value.retry_after, door.published) == (7, [])
    assert door.telemetry.results == [("event", unavailable)]


def test_unpublished_result_raises() -> None:
    door = Door(publish_error=ResultNotPublished("ThrottlingException"))

    with pytest.raises(ResultNotPublished, match="^ThrottlingException$"):
        door(session_timeout())

    assert door.telemetry.unpublished == ["ThrottlingException"]


@pytest.mark.parametrize(
    ("source", "detail_type", "counted"),
    [
        ("end-conversation", "Session Limit", [("reached", "ended")]),
        ("end-conversation", "Session Timeout", []),
        ("myapp.sessions", "Session Limit", []),
    ],
)
def test_ends_by_limits_are_counted(source: str, detail_type: str, counted: list[tuple[str, str]]) -> None:
    """They are what limits save."""
    door = Door(ENDED._replace(decided_at=FakeClock().now()))

    door(session_timeout(**{"source": source, "detail-type": detail_type}))

    assert door.telemetry.limits == counted


def test_a_recorded_end_is_not_counted_for_the_limit() -> None:
    """The conversation had ended before its limit."""
    door = Door(ENDED._replace(decided_at=FakeClock().now() - timedelta(seconds=1)))

    door(session_timeout(**{"source": "end-conversation", "detail-type": "Session Limit"}))

    assert door.telemetry.limits == []


def test_time_is_kept_for_recording_publishing_and_returning() -> None:
    door = Door()

    door(session_timeout())

    assert EXIT_SECONDS > 0
    left = 60 - EXIT_SECONDS
    assert door.seconds == [(left - RESERVE_SECONDS, left)]


def test_the_reserve_covers_the_calls_to_aws() -> None:
    """Four with one slow try each, or two with two."""
    door = Door()

    door(session_timeout(), remaining_ms=30_000)

    [(for_tavus, left)] = door.seconds
    assert left - for_tavus > max(4 * TRY_SECONDS, 2 * (2 * TRY_SECONDS + PAUSE_SECONDS))


def test_a_deployment_that_is_not_allowed_is_rejected() -> None:
    """Neither Tavus nor the table is asked, and the result is published."""
    door = Door(allowed={"d2"})

    door(session_timeout())

    assert door.ended == []
    [detail] = door.published
    assert (detail["status"], detail["reason"], detail["attempts"]) == ("rejected", "deployment_not_allowed", 0)
