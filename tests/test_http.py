"""The HTTP door: which requests it takes, and what it answers to each outcome."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.errors import TavusUnavailable
from end_conversation.http import MAX_SECONDS, HttpDoor
from tests.fakes import Context, FakeClock, FakeTelemetry

EVENTS = Path(__file__).parent.parent / "events"
PATH = "/v2/deployments/d1/conversations/c1/end"

type Ask = Callable[..., dict[str, Any]]


class FakeEnd:
    """Ends nothing, and remembers what it was asked."""

    def __init__(self, outcome: Result | TavusUnavailable) -> None:
        self.outcome = outcome
        self.asked: list[Conversation] = []
        self.seconds: list[float] = []

    def __call__(self, conversation: Conversation, deadline: Deadline) -> Result:
        self.asked.append(conversation)
        self.seconds.append(deadline.left())
        if isinstance(self.outcome, TavusUnavailable):
            raise self.outcome
        return self.outcome


def ended() -> Result:
    return Result(Status.ENDED, None, FakeClock().now(), 1, 200)


def door(outcome: Result | TavusUnavailable, telemetry: FakeTelemetry | None = None) -> tuple[HttpDoor, FakeEnd]:
    end = FakeEnd(outcome)
    return HttpDoor(end, telemetry or FakeTelemetry(), FakeClock()), end


def request(path: str = PATH, method: str = "POST") -> dict[str, Any]:
    return {"requestContext": {"http": {"method": method}}, "rawPath": path}


@pytest.mark.parametrize("name", ["http-api", "rest-api", "function-url"])
def test_each_sample_request_ends_the_conversation_it_names(name: str) -> None:
    """HTTP APIs, REST APIs and Function URLs are all taken, whatever their body."""
    http, end = door(ended())

    answer = http(json.loads((EVENTS / f"{name}.json").read_text()), Context())

    assert end.asked == [Conversation("d1234567890abcdef", "c123456")]
    assert answer["statusCode"] == 200
    assert answer["headers"]["Content-Type"] == "application/json"
    assert json.loads(answer["body"]) == {"conversation_id": "c123456", "status": "ended"}


@pytest.mark.parametrize("path", [PATH, f"/prod{PATH}", f"/a/b{PATH}", f"/v2/deployments/x{PATH}"])
def test_ids_come_from_the_end_of_the_path(path: str) -> None:
    """A stage or a base path may stand before ours."""
    http, end = door(ended())

    assert http(request(path), Context())["statusCode"] == 200
    assert end.asked == [Conversation("d1", "c1")]


def test_path_parameters_come_before_the_path() -> None:
    """Where API Gateway has taken the ids out of the path, they are taken from there."""
    http, end = door(ended())
    parameters = {"deployment_id": "d2", "conversation_id": "c2"}

    assert http({**request("/end-it"), "pathParameters": parameters}, Context())["statusCode"] == 200
    assert end.asked == [Conversation("d2", "c2")]


def test_other_path_parameters_leave_the_path_to_speak() -> None:
    """A greedy {proxy+} route names no ids, so the path does."""
    http, end = door(ended())

    assert http({**request(), "pathParameters": {"proxy": PATH}}, Context())["statusCode"] == 200
    assert end.asked == [Conversation("d1", "c1")]


@pytest.mark.parametrize("path", ["/", "", f"{PATH}/", f"{PATH}\n", f"{PATH}/x", PATH.replace("v2", "v1"), "/end"])
def test_another_path_is_not_found(path: str) -> None:
    """Nothing but the path of the contract leads to an end."""
    telemetry = FakeTelemetry()
    http, end = door(ended(), telemetry)

    answer = http(request(path), Context(request_id="r1"))

    problem = json.loads(answer["body"])
    assert end.asked == []
    assert answer["statusCode"] == 404
    assert (problem["reason"], problem["request_id"]) == ("unknown_path", "r1")
    assert problem["detail"].endswith("/v2/deployments/{deployment_id}/conversations/{conversation_id}/end.")
    assert telemetry.invalids == [("http", "unknown_path")]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post", "", None])
def test_only_post_ends(method: str) -> None:
    """Any other method is answered 405, with the one that is allowed."""
    http, end = door(ended())

    answer = http(request(method=method), Context(request_id="r1"))

    assert end.asked == []
    assert answer["statusCode"] == 405
    assert answer["headers"]["Allow"] == "POST"
    problem = json.loads(answer["body"])
    assert (problem["reason"], problem["request_id"]) == ("method_not_allowed", "r1")
    assert problem["detail"] == "Only POST ends a conversation."


def test_an_invalid_id_is_a_problem_that_quotes_nothing() -> None:
    """The detail says which id is wrong and what it should be, and never repeats it."""
    http, end = door(ended())

    answer = http(request(PATH.replace("c1", "<script>")), Context(request_id="r1"))

    assert end.asked == []
    assert answer["statusCode"] == 400
    assert json.loads(answer["body"]) == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "conversation_id must be 1 to 128 letters, digits, hyphens or underscores,"
        " the first a letter or digit.",
        "reason": "invalid_id",
        "request_id": "r1",
    }


@pytest.mark.parametrize("path", [PATH, "/"])
def test_no_answer_is_kept_by_a_cache(path: str) -> None:
    """What is true of a conversation now may not be true later."""
    http, _ = door(ended())

    assert http(request(path), Context())["headers"]["Cache-Control"] == "no-store"


def result(status: Status, reason: Reason | None = None) -> Result:
    return Result(status, reason, FakeClock().now(), 1)


def unavailable(reason: Reason, retry_after: float | None = None) -> TavusUnavailable:
    return TavusUnavailable(reason, "HTTP 599", 3, retry_after=retry_after)


def test_unconfirmed_is_accepted_in_the_shape_of_ended() -> None:
    """A client that swapped the base URL reads the same two members."""
    http, _ = door(result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT))

    answer = http(request(), Context())

    assert answer["statusCode"] == 202
    assert answer["headers"]["Content-Type"] == "application/json"
    assert json.loads(answer["body"]) == {"conversation_id": "c1", "status": "unconfirmed"}


@pytest.mark.parametrize(
    ("outcome", "status", "title", "reason"),
    [
        (result(Status.NOT_FOUND), 404, "Not Found", "not_found"),
        (result(Status.REJECTED, Reason.TAVUS_REJECTED), 502, "Bad Gateway", "tavus_rejected"),
        (result(Status.REJECTED, Reason.DEPLOYMENT_NOT_ALLOWED), 403, "Forbidden", "deployment_not_allowed"),
        (unavailable(Reason.TAVUS_THROTTLED), 503, "Service Unavailable", "tavus_throttled"),
        (unavailable(Reason.TAVUS_ERROR), 503, "Service Unavailable", "tavus_error"),
        (unavailable(Reason.TAVUS_UNREACHABLE), 503, "Service Unavailable", "tavus_unreachable"),
        (unavailable(Reason.TAVUS_TIMEOUT), 504, "Gateway Timeout", "tavus_timeout"),
    ],
)
def test_every_other_outcome_is_a_problem(
    outcome: Result | TavusUnavailable, status: int, title: str, reason: str
) -> None:
    """RFC 9457, with a reason for programs, a detail for people, and the ids to look it up by."""
    telemetry = FakeTelemetry()
    http, _ = door(outcome, telemetry)

    answer = http(request(), Context(request_id="r1"))

    problem = json.loads(answer["body"])
    assert answer["statusCode"] == status
    assert answer["headers"]["Content-Type"] == "application/problem+json"
    assert problem.pop("detail")
    assert problem == {
        "type": "about:blank",
        "title": title,
        "status": status,
        "reason": reason,
        "request_id": "r1",
        "conversation_id": "c1",
    }
    assert telemetry.outcomes == [("http", outcome)]


@pytest.mark.parametrize(
    ("retry_after", "header"),
    [(None, "5"), (0, "1"), (0.2, "1"), (1.2, "2"), (30, "30"), (3600, "3600"), (3601, "3600"), (float("inf"), "3600")],
)
def test_a_503_says_when_to_come_back(retry_after: float | None, header: str) -> None:
    """Tavus' own Retry-After is handed on, held to between one second and an hour; else five seconds."""
    http, _ = door(unavailable(Reason.TAVUS_THROTTLED, retry_after))

    assert http(request(), Context())["headers"]["Retry-After"] == header


def test_a_504_promises_no_time() -> None:
    """When Tavus gives no answer, nobody knows when it will."""
    http, _ = door(unavailable(Reason.TAVUS_TIMEOUT))

    assert "Retry-After" not in http(request(), Context())["headers"]


@pytest.mark.parametrize(("remaining_ms", "seconds"), [(3_000, 3), (60_000, MAX_SECONDS)])
def test_an_invocation_is_bounded_by_lambda_and_by_api_gateway(remaining_ms: int, seconds: float) -> None:
    """Whichever gives up first, the function answers before it."""
    http, end = door(ended())

    http(request(), Context(remaining_ms=remaining_ms))

    assert end.seconds == [seconds]


def test_a_bug_is_no_answer() -> None:
    """An unknown exception escapes, so that alarms see it."""

    class Broken(FakeEnd):
        def __call__(self, conversation: Conversation, deadline: Deadline) -> Result:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        HttpDoor(Broken(ended()), FakeTelemetry(), FakeClock())(request(), Context())
