"""The event door: which events it accepts, and what it publishes."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from end_conversation.aws.client import PAUSE_SECONDS, TRY_SECONDS
from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.errors import InvalidEvent, ResultNotPublished, TavusUnavailable
from end_conversation.events import EXIT_SECONDS, RESERVE_SECONDS
from tests.unit.doors import ENDED, ID_RULE, MALFORMED_IDS, NOW, Events, at
from tests.unit.fakes import sample

DECIDED_AT = datetime(2026, 11, 22, 20, 14, 0, 123456, UTC)

session_timeout = partial(sample, "session-timeout")


def test_a_session_timeout_ends_the_conversation_and_publishes_the_result() -> None:
    door = Events(result := ENDED._replace(decided_at=DECIDED_AT))
    event = session_timeout()

    door(event)

    assert door.ended == [Conversation("d1234567890abcdef", "c123456")]
    assert door.telemetry.results == [("event", result)]
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
    door = Events(result)

    door(session_timeout(extra=1, detail=session_timeout()["detail"] | {"extra": 1}))

    [published] = door.published
    assert (published["status"], published["reason"]) == (result.status, result.reason)


@pytest.mark.parametrize("junk", [None, 5, "", [], {}])
def test_junk_in_the_envelope_does_not_stop_an_end(junk: Any) -> None:
    """Without an id, the request id is published."""
    door = Events()

    door(session_timeout(**dict.fromkeys(("id", "source", "detail-type", "time"), junk)))
    door({"detail-type": "x", "time": "yesterday", "detail": session_timeout()["detail"]})

    assert [detail["trigger"] for detail in door.published] == [
        {"id": "r1", "source": None, "detail_type": None, "time": None},
        {"id": "r1", "source": None, "detail_type": "x", "time": "yesterday"},
    ]


NO_IDS: list[Any] = [None, [], "{}", {}, {"deployment_id": "d1"}, {"conversation_id": "c1"}]
VALID = {"deployment_id": "d1", "conversation_id": "c1"}


def refusal(event: Any) -> str:
    """Expect that nothing is ended and that the event is counted. Returns what the error and the log say."""
    door = Events()

    with pytest.raises(InvalidEvent) as refused:
        door(event)

    assert (door.ended, door.published) == ([], [])
    assert door.telemetry.invalids == [("event", "invalid_event")]
    assert door.telemetry.details == [str(refused.value)]
    return str(refused.value)


@pytest.mark.parametrize("detail", NO_IDS)
def test_an_event_without_ids_is_invalid(detail: Any) -> None:
    assert refusal(session_timeout(detail=detail)) == "detail must have a deployment_id and a conversation_id"


@pytest.mark.parametrize("place", VALID)
@pytest.mark.parametrize("malformed", MALFORMED_IDS)
def test_malformed_ids(place: str, malformed: Any) -> None:
    """The error names the id and does not quote it."""
    assert refusal(session_timeout(detail=VALID | {place: malformed})) == f"detail.{place} {ID_RULE}"


def test_a_result_of_ours_is_invalid() -> None:
    """It would loop forever."""
    text = "the event is a result of this function: the rule must match session timeouts only"
    assert refusal(session_timeout(**{"detail-type": "Conversation End Result"})) == text


def ending_at(ends_at: Any) -> Any:
    return session_timeout(detail=session_timeout()["detail"] | {"ends_at": ends_at})


@pytest.mark.parametrize("seconds", [0, -1, -3600, -30 * 86_400])
def test_past_ends_at_means_now(seconds: float) -> None:
    door = Events()

    door(ending_at(at(seconds)))

    assert [detail["status"] for detail in door.published] == ["ended"]


@pytest.mark.parametrize("seconds", [1, 60, 900])
def test_future_ends_at_is_invalid_without_the_queue(seconds: float) -> None:
    """Lambda cannot delay an event."""
    text = "detail.ends_at is in the future: send the event through the queue, which can wait"
    assert refusal(ending_at(at(seconds))) == text


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
def test_other_formats_of_ends_at_are_invalid(ends_at: Any) -> None:
    """A time that was misread could end a conversation early."""
    assert refusal(ending_at(ends_at)) == "detail.ends_at must be a time in UTC such as 2026-11-29T08:37:41Z"


def test_ends_at_is_at_most_15_minutes_ahead() -> None:
    """The queue waits for up to 15 minutes, and a limit for as long as it must."""
    text = "detail.ends_at must be at most 15 minutes ahead: set a limit for a later time"
    assert refusal(ending_at(at(901))) == text


def test_unavailable_tavus_raises() -> None:
    unavailable = Result(Status.UNAVAILABLE, Reason.TAVUS_ERROR, DECIDED_AT, 3, 503, failure="HTTP 503", retry_after=7)
    door = Events(unavailable)

    with pytest.raises(TavusUnavailable, match=r"^tavus_error: HTTP 503 \(attempts: 3\)$") as raised:
        door(session_timeout())

    assert (raised.value.retry_after, door.published) == (7, [])
    assert door.telemetry.results == [("event", unavailable)]


def test_unpublished_result_raises() -> None:
    door = Events()
    door.publish_error = ResultNotPublished("ThrottlingException")

    with pytest.raises(ResultNotPublished, match="^ThrottlingException$"):
        door(session_timeout())

    assert door.telemetry.unpublished == ["ThrottlingException"]


@pytest.mark.parametrize(
    ("source", "detail_type", "recorded_ago", "counted"),
    [
        ("end-conversation", "Session Limit", 0, [("reached", "ended")]),
        ("end-conversation", "Session Limit", 1, []),  # the conversation had ended before its limit
        ("end-conversation", "Session Timeout", 0, []),
        ("myapp.sessions", "Session Limit", 0, []),
    ],
)
def test_ends_by_limits_are_counted(
    source: str, detail_type: str, recorded_ago: float, counted: list[tuple[str, str]]
) -> None:
    """The metric shows how many conversations limits ended."""
    door = Events(ENDED._replace(decided_at=NOW - timedelta(seconds=recorded_ago)))

    door(session_timeout(**{"source": source, "detail-type": detail_type}))

    assert door.telemetry.limits == counted


def test_time_is_kept_for_recording_publishing_and_returning() -> None:
    """With 30 seconds, still enough for four calls to AWS with one slow try each, or two with two."""
    door = Events()

    for seconds in (60, 30):
        door(session_timeout(), seconds * 1000)

    assert EXIT_SECONDS > 0
    whole, short = door.seconds
    assert whole == (60 - EXIT_SECONDS - RESERVE_SECONDS, 60 - EXIT_SECONDS)
    assert short[1] - short[0] > max(4 * TRY_SECONDS, 2 * (2 * TRY_SECONDS + PAUSE_SECONDS))


def test_a_deployment_that_is_not_allowed_is_rejected() -> None:
    """Neither Tavus nor the table is asked, and the result is published."""
    door = Events()

    door(session_timeout(detail=VALID | {"deployment_id": "d3"}))

    assert door.ended == []
    [detail] = door.published
    assert (detail["status"], detail["reason"], detail["attempts"]) == ("rejected", "deployment_not_allowed", 0)
    assert [(trigger, result.status) for trigger, result in door.telemetry.logged] == [("event", "rejected")]
