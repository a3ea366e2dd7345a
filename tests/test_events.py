"""The event door: which events it takes, and what it publishes."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from end_conversation import dynamodb, eventbridge
from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.errors import InvalidEvent, ResultNotPublished, TavusUnavailable
from end_conversation.events import RESERVE_SECONDS, EventDoor
from tests.fakes import Context, FakeClock, FakeTelemetry

EVENTS = Path(__file__).parent.parent / "events"
SCHEMA = json.loads((EVENTS / "conversation-end-result.schema.json").read_text())
DECIDED_AT = datetime(2026, 11, 22, 20, 14, 0, 123456, UTC)
ENDED = Result(Status.ENDED, None, DECIDED_AT, 1, 200, "9a1e")


class FakeBus:
    """Takes what is published, as EventBridge would hand it on."""

    def __init__(self, failure: ResultNotPublished | None = None) -> None:
        self.failure = failure
        self.details: list[dict[str, Any]] = []

    def publish(self, detail: dict[str, Any], deadline: Deadline) -> None:
        if self.failure is not None:
            raise self.failure
        event = {"source": "tavus.conversations", "detail-type": "Conversation End Result", "detail": detail}
        event = json.loads(json.dumps(event))
        Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(event)
        self.details.append(event["detail"])


def deliver(
    event: dict[str, Any],
    outcome: Result | TavusUnavailable = ENDED,
    bus: FakeBus | None = None,
    telemetry: FakeTelemetry | None = None,
) -> tuple[list[Conversation], list[dict[str, Any]]]:
    """Hand an event to the door; what was asked of Tavus, and what was published."""
    asked = []
    bus = bus or FakeBus()

    def end(conversation: Conversation, deadline: Deadline) -> Result:
        asked.append(conversation)
        if isinstance(outcome, TavusUnavailable):
            raise outcome
        return outcome

    EventDoor(end, bus.publish, telemetry or FakeTelemetry(), FakeClock())(event, Context(request_id="r1"))
    return asked, bus.details


def session_timeout(**changes: Any) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / "session-timeout.json").read_text())
    return event | changes


def test_a_session_timeout_ends_the_conversation_and_publishes_the_result() -> None:
    """The published event says what, when, by what answer, and which event had asked."""
    event = session_timeout()
    telemetry = FakeTelemetry()

    asked, published = deliver(event, telemetry=telemetry)

    assert telemetry.outcomes == [("event", ENDED)]
    assert asked == [Conversation("d1234567890abcdef", "c123456")]
    assert published == [
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
    "outcome",
    [
        Result(Status.UNCONFIRMED, Reason.UNEXPECTED_ANSWER, DECIDED_AT, 2, 200),
        Result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, DECIDED_AT, 3),
        Result(Status.NOT_FOUND, None, DECIDED_AT, 1, 404),
        Result(Status.REJECTED, Reason.TAVUS_REJECTED, DECIDED_AT, 1, 403),
        Result(Status.REJECTED, Reason.DEPLOYMENT_NOT_ALLOWED, DECIDED_AT, 0),
    ],
)
def test_every_result_is_published(outcome: Result) -> None:
    """Each status and reason makes an event that holds to the schema."""
    _, [published] = deliver(session_timeout(), outcome)

    assert (published["status"], published["reason"]) == (outcome.status, outcome.reason)


def test_an_event_without_id_and_time_is_known_by_the_request() -> None:
    """EventBridge always gives both; a hand-made event that has neither is still ended and told apart."""
    event = session_timeout()
    del event["id"], event["time"]

    _, [published] = deliver(event)

    assert published["trigger"]["id"] == "r1"
    assert published["trigger"]["time"] is None


@pytest.mark.parametrize("junk", [None, 5, "", [], {}])
def test_an_envelope_of_the_wrong_types_still_ends(junk: Any) -> None:
    """What only describes the trigger is no reason to leave a conversation running."""
    asked, [published] = deliver(session_timeout(id=junk, source=junk, time=junk))

    assert len(asked) == 1
    assert published["trigger"] == {"id": "r1", "source": None, "detail_type": "Session Timeout", "time": None}


def test_the_time_of_the_trigger_is_handed_on_as_it_was_given() -> None:
    """It is the caller's to read."""
    _, [published] = deliver(session_timeout(time="yesterday"))

    assert published["trigger"]["time"] == "yesterday"


NO_IDS: list[Any] = [None, [], "{}", {}, {"deployment_id": "d1"}, {"conversation_id": "c1"}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({"detail": detail}, "^detail must have a deployment_id and a conversation_id$") for detail in NO_IDS),
        ({"detail": {"deployment_id": "d1", "conversation_id": None}}, r"^detail\.conversation_id must be 1 to 128 "),
        ({"detail": {"deployment_id": 1, "conversation_id": "c1"}}, r"^detail\.deployment_id must be 1 to 128 "),
        (
            {"detail": {"deployment_id": "d1", "conversation_id": "../c1"}},
            r"^detail\.conversation_id must be 1 to 128 ",
        ),
        ({"detail-type": "Conversation End Result"}, "^the event is a result of ours: let the rule match "),
    ],
)
def test_an_event_that_names_no_conversation_is_invalid(changes: dict[str, Any], message: str) -> None:
    """It raises, so that the failure queue gets it whole; a result of ours raises too, or it would come round again."""
    telemetry = FakeTelemetry()
    bus = FakeBus()

    with pytest.raises(InvalidEvent, match=message):
        deliver(session_timeout(**changes), bus=bus, telemetry=telemetry)

    assert bus.details == []
    assert telemetry.invalids == [("event", "invalid_event")]


def test_what_can_not_be_said_yet_is_raised() -> None:
    """Lambda's own retries and then the failure queue take over."""
    unavailable = TavusUnavailable(Reason.TAVUS_ERROR, "HTTP 503", 3)
    telemetry = FakeTelemetry()

    with pytest.raises(TavusUnavailable):
        deliver(session_timeout(), unavailable, telemetry=telemetry)

    assert telemetry.outcomes == [("event", unavailable)]


def test_a_result_that_is_not_published_is_raised() -> None:
    """A result that nobody heard of counts as no result."""
    refused = ResultNotPublished("ThrottlingException")
    telemetry = FakeTelemetry()

    with pytest.raises(ResultNotPublished):
        deliver(session_timeout(), bus=FakeBus(refused), telemetry=telemetry)

    assert telemetry.unpublished == [refused]


def test_the_reserve_covers_what_comes_after_tavus() -> None:
    """Asking the table, writing it and publishing may each take their whole time."""
    assert 2 * dynamodb.MAX_SECONDS + eventbridge.MAX_SECONDS < RESERVE_SECONDS
