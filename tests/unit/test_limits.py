"""Which limits PUT sets, and what it answers."""

import json
from collections.abc import Container
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from end_conversation.conversation import Conversation, Reason, Status
from end_conversation.deadline import Deadline
from end_conversation.errors import AwsCallFailed
from end_conversation.http import HttpDoor
from end_conversation.limits import SetLimit
from tests.unit.fakes import Context, FakeClock, FakeTelemetry

PATH = "/v2/deployments/d1/conversations/c1/timeout"
NOW = FakeClock().now()


class Door:
    """The HTTP door with the operation that sets limits, and fakes of all that they use."""

    def __init__(self, max_session_seconds: int = 3600, allowed: Container[str] = frozenset({"d1"})) -> None:
        self.failure: AwsCallFailed | None = None
        self.known: datetime | None = None
        self.scheduled: list[tuple[Conversation, datetime]] = []
        self.seconds: list[float] = []
        self.telemetry = FakeTelemetry()
        set_limit = SetLimit(self._schedule, max_session_seconds, self.telemetry, FakeClock())
        self._door = HttpDoor({"timeout": set_limit}, allowed, "timer", self.telemetry, FakeClock())

    def __call__(self, event: dict[str, Any], remaining_ms: int = 10_000) -> dict[str, Any]:
        return self._door(event, Context(remaining_ms, request_id="r1"))

    def _schedule(self, conversation: Conversation, ends_at: datetime, deadline: Deadline) -> datetime:
        self.scheduled.append((conversation, ends_at))
        self.seconds.append(deadline.left())
        if self.failure is not None:
            raise self.failure
        return self.known or ends_at


def request(seconds: Any = None, *, path: str = PATH, method: str = "PUT", **members: Any) -> dict[str, Any]:
    query = {} if seconds is None else {"queryStringParameters": {"seconds": seconds}}
    return {"requestContext": {"http": {"method": method}}, "rawPath": path, **query, **members}


@pytest.mark.parametrize(
    ("seconds", "set_to"),
    [(None, 3600), ("60", 60), ("600", 600), ("3600", 3600), ("3601", 3600), ("9" * 10_000, 3600)],
)
def test_a_limit_is_set_for_this_many_seconds(seconds: str | None, set_to: int) -> None:
    """A larger value is reduced to the maximum, which is also the default."""
    door = Door()

    answer = door(request(seconds))

    end = NOW + timedelta(seconds=set_to)
    assert door.scheduled == [(Conversation("d1", "c1"), end)]
    assert answer["statusCode"] == 200
    assert answer["headers"] == {"Cache-Control": "no-store", "Content-Type": "application/json"}
    assert json.loads(answer["body"]) == {"conversation_id": "c1", "ends_at": f"{end:%Y-%m-%dT%H:%M:%SZ}"}
    assert door.telemetry.limits == [("armed", f"{end:%Y-%m-%dT%H:%M:%SZ}")]


def test_the_answer_has_the_resulting_end() -> None:
    door = Door()
    door.known = datetime(2026, 11, 25, 8, 37, 41, tzinfo=UTC)

    assert json.loads(door(request("600"))["body"])["ends_at"] == "2026-11-25T08:37:41Z"


@pytest.mark.parametrize("nothing", [None, {}, ""])
def test_without_query_and_body_the_limit_is_the_maximum(nothing: Any) -> None:
    door = Door(max_session_seconds=60)
    members = ("queryStringParameters", "multiValueQueryStringParameters", "rawQueryString", "body")

    assert door(request(**dict.fromkeys(members, nothing)))["statusCode"] == 200
    assert [end for _, end in door.scheduled] == [NOW + timedelta(seconds=60)]


@pytest.mark.parametrize("name", ["Seconds", "SECONDS", "second", "seconds[]", "seconds ", "timeout", "limit", "600"])
@pytest.mark.parametrize("member", ["queryStringParameters", "multiValueQueryStringParameters"])
def test_other_query_members_are_no_limit(member: str, name: str) -> None:
    """The maximum would surprise a caller who asked for less."""
    query: dict[str, Any] = {member: {name: "60"}}
    assert_misplaced(request(**query))


@pytest.mark.parametrize("body", ['{"seconds": 60}', "seconds=60", "60", "{}", "eyJzZWNvbmRzIjogNjB9", " "])
def test_a_body_is_no_limit(body: str) -> None:
    assert_misplaced(request(body=body))


@pytest.mark.parametrize("query", ["600", "Seconds=60", "seconds"])
def test_an_unparsed_query_is_no_limit(query: str) -> None:
    assert_misplaced(request(rawQueryString=query))
    assert_misplaced(request(queryStringParameters=query))


def assert_misplaced(event: dict[str, Any]) -> None:
    """The answer is a 400 that says where the number belongs, and Scheduler is not asked."""
    door = Door()

    answer = door(event)

    assert (door.scheduled, answer["statusCode"]) == ([], 400)
    problem = json.loads(answer["body"])
    assert problem["reason"] == "invalid_seconds"
    assert problem["detail"] == "Set the limit with seconds in the query, such as ?seconds=600. Send nothing else."
    assert door.telemetry.invalids == [("timer", "invalid_seconds")]


def test_seconds_in_the_query_are_enough() -> None:
    """What else the caller sends does not matter then."""
    door = Door()

    query = {"seconds": "60", "Seconds": "70"}
    answer = door(request(queryStringParameters=query, rawQueryString="seconds=60&Seconds=70", body="{}"))
    assert answer["statusCode"] == 200
    assert [end for _, end in door.scheduled] == [NOW + timedelta(seconds=60)]


JUNK = [
    "",
    "0",
    "59",
    "-60",
    "+60",
    "60.0",
    "6e2",
    " 60",
    "60 ",
    "60\n",
    "060",
    "0x3c",
    "\uff16\uff10",
    "sixty",
    "60,60",
    60,
    None,
]


@pytest.mark.parametrize(
    "query",
    [
        *({"queryStringParameters": {"seconds": junk}} for junk in JUNK),
        *({"multiValueQueryStringParameters": {"seconds": [junk]}} for junk in JUNK),
        {"multiValueQueryStringParameters": {"seconds": ["60", "60"]}, "queryStringParameters": {"seconds": "60"}},
        {"multiValueQueryStringParameters": {"seconds": []}},
        {"multiValueQueryStringParameters": {"seconds": "60"}},
    ],
)
def test_anything_but_one_whole_number_of_60_or_more_is_invalid(query: dict[str, Any]) -> None:
    """Scheduler is not asked, and the value is not repeated."""
    door = Door()

    answer = door(request(**query))

    assert door.scheduled == []
    assert answer["statusCode"] == 400
    assert json.loads(answer["body"]) == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "seconds must be one whole number, 60 or more, such as ?seconds=600.",
        "reason": "invalid_seconds",
        "request_id": "r1",
        "conversation_id": "c1",
    }
    assert door.telemetry.invalids == [("timer", "invalid_seconds")]


def test_a_rest_api_passes_the_seconds_as_a_list() -> None:
    door = Door()

    assert door(request(multiValueQueryStringParameters={"seconds": ["60"]}))["statusCode"] == 200
    assert [end for _, end in door.scheduled] == [NOW + timedelta(seconds=60)]


def test_a_deployment_that_is_not_allowed_is_a_403_as_for_an_end() -> None:
    door = Door(allowed=frozenset({"d2"}))

    answer = door(request("junk"))

    assert door.scheduled == []
    assert answer["statusCode"] == 403
    problem = json.loads(answer["body"])
    assert (problem["reason"], problem["conversation_id"]) == ("deployment_not_allowed", "c1")
    [(trigger, result)] = door.telemetry.results
    assert (trigger, result.status, result.reason) == ("timer", Status.REJECTED, Reason.DEPLOYMENT_NOT_ALLOWED)


@pytest.mark.parametrize(
    ("event", "status", "reason"),
    [
        (request(method="POST"), 405, "method_not_allowed"),
        (request(method="DELETE"), 405, "method_not_allowed"),
        (request(path=PATH.replace("c1", "..")), 400, "invalid_id"),
    ],
)
def test_method_and_ids_are_checked_as_for_an_end(event: dict[str, Any], status: int, reason: str) -> None:
    door = Door()

    answer = door(event)

    assert door.scheduled == []
    assert (answer["statusCode"], json.loads(answer["body"])["reason"]) == (status, reason)
    assert answer["headers"].get("Allow") == ("PUT" if status == 405 else None)
    assert door.telemetry.invalids == [("timer", reason)]


def test_a_scheduler_that_fails_is_a_503_to_be_tried_again() -> None:
    """The answer does not repeat AWS' error code, but the log does."""
    door = Door()
    door.failure = AwsCallFailed("ServiceQuotaExceededException", retryable=False)

    answer = door(request("600"))

    assert (answer["statusCode"], answer["headers"]["Retry-After"]) == (503, "5")
    assert json.loads(answer["body"]) == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "AWS did not confirm the limit. Try again later.",
        "reason": "timer_unavailable",
        "request_id": "r1",
        "conversation_id": "c1",
    }
    assert door.telemetry.limits == [("timer_failed", "ServiceQuotaExceededException")]


@pytest.mark.parametrize(("remaining_ms", "seconds"), [(2_000, 2), (10_000, 4.5)])
def test_an_answer_takes_less_than_five_seconds(remaining_ms: int, seconds: float) -> None:
    door = Door()

    door(request(), remaining_ms)

    assert door.seconds == [seconds]


def test_path_is_unknown_without_limits() -> None:
    telemetry = FakeTelemetry()

    answer = HttpDoor({}, {"d1"}, "timer", telemetry, FakeClock())(request(), Context())

    assert (answer["statusCode"], json.loads(answer["body"])["reason"]) == (404, "unknown_path")
    assert telemetry.invalids == [("timer", "unknown_path")]
