"""Which limits PUT sets, and what it answers. test_http.py has what all requests share."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from end_conversation.conversation import Conversation
from end_conversation.errors import AwsCallFailed
from tests.unit.doors import NOW, Http

PATH = "/v2/deployments/d1/conversations/c1/timeout"


def request(seconds: Any = None, **members: Any) -> dict[str, Any]:
    query = {} if seconds is None else {"queryStringParameters": {"seconds": seconds}}
    return {"requestContext": {"http": {"method": "PUT"}}, "rawPath": PATH, **query, **members}


def seconds_set(event: dict[str, Any], max_session_seconds: int = 3600) -> float:
    """Return the limit that a request sets."""
    door = Http(max_session_seconds=max_session_seconds)
    assert door(event)["statusCode"] == 200
    [(_, end)] = door.scheduled
    return (end - NOW).total_seconds()


@pytest.mark.parametrize(
    ("seconds", "set_to"),
    [(None, 3600), ("60", 60), ("600", 600), ("3600", 3600), ("3601", 3600), ("9" * 10_000, 3600)],
)
def test_a_limit_is_set_for_this_many_seconds(seconds: str | None, set_to: int) -> None:
    """A larger value is reduced to the maximum, which is also the default."""
    door = Http()

    answer = door(request(seconds))

    end = NOW + timedelta(seconds=set_to)
    assert door.scheduled == [(Conversation("d1", "c1"), end)]
    assert answer["statusCode"] == 200
    assert answer["headers"] == {"Cache-Control": "no-store", "Content-Type": "application/json"}
    assert json.loads(answer["body"]) == {"conversation_id": "c1", "ends_at": f"{end:%Y-%m-%dT%H:%M:%SZ}"}
    assert door.telemetry.limits == [("armed", f"{end:%Y-%m-%dT%H:%M:%SZ}")]


def test_the_answer_has_the_end_that_stands() -> None:
    door = Http()
    door.standing = datetime(2026, 11, 25, 8, 37, 41, tzinfo=UTC)

    assert json.loads(door(request("600"))["body"])["ends_at"] == "2026-11-25T08:37:41Z"


@pytest.mark.parametrize("nothing", [None, {}, ""])
def test_without_query_and_body_the_limit_is_the_maximum(nothing: Any) -> None:
    members = ("queryStringParameters", "multiValueQueryStringParameters", "rawQueryString", "body")

    assert seconds_set(request(**dict.fromkeys(members, nothing)), max_session_seconds=60) == 60


def test_seconds_in_the_query_are_enough() -> None:
    """What else the caller sends does not matter then. A REST API passes them as a list."""
    query = {"seconds": "60", "Seconds": "70"}
    assert seconds_set(request(queryStringParameters=query, rawQueryString="seconds=60&Seconds=70", body="{}")) == 60
    assert seconds_set(request(multiValueQueryStringParameters={"seconds": ["60"]})) == 60


def refused(event: dict[str, Any]) -> str:
    """Expect that Scheduler is not asked. Returns what the 400 says."""
    door = Http()

    answer = door(event)

    assert (door.scheduled, answer["statusCode"]) == ([], 400)
    assert door.telemetry.invalids == [("timer", "invalid_seconds")]
    problem = json.loads(answer["body"])
    assert (problem["reason"], problem["conversation_id"]) == ("invalid_seconds", "c1")
    detail: str = problem["detail"]
    return detail


OTHER_NAMES = ["Seconds", "SECONDS", "second", "seconds[]", "seconds ", "timeout", "limit", "600"]


@pytest.mark.parametrize(
    "misplaced",
    [
        *({"queryStringParameters": {name: "60"}} for name in OTHER_NAMES),
        *({"multiValueQueryStringParameters": {name: "60"}} for name in OTHER_NAMES),
        *({"body": body} for body in ('{"seconds": 60}', "seconds=60", "60", "{}", "eyJzZWNvbmRzIjogNjB9", " ")),
        *({"rawQueryString": query} for query in ("600", "Seconds=60", "seconds")),
        *({"queryStringParameters": query} for query in ("600", "Seconds=60", "seconds")),
    ],
)
def test_a_number_in_another_place_is_invalid(misplaced: dict[str, Any]) -> None:
    """The maximum would surprise a caller who asked for less. The answer says where the number belongs."""
    text = "Set the limit with seconds in the query, such as ?seconds=600. Send nothing else."
    assert refused(request(**misplaced)) == text


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
    """The value is not repeated."""
    assert refused(request(**query)) == "seconds must be one whole number, 60 or more, such as ?seconds=600."


def test_a_scheduler_that_fails_is_a_503_to_be_tried_again() -> None:
    """The answer does not repeat AWS' error code, but the log does. test_contract.py has the whole answer."""
    door = Http()
    door.failure = AwsCallFailed("ServiceQuotaExceededException", retryable=False)

    answer = door(request("600"))

    assert (answer["statusCode"], answer["headers"]["Retry-After"]) == (503, "5")
    assert "Quota" not in answer["body"]
    assert door.telemetry.limits == [("timer_failed", "ServiceQuotaExceededException")]
