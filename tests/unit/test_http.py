"""The HTTP door: which requests it accepts, and what it answers.

test_contract.py compares whole answers with openapi.yaml.
"""

import json
from typing import Any

import pytest

from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.http import EndNow, HttpDoor
from tests.unit.fakes import Context, FakeClock, FakeTelemetry, sample

PATH = "/v2/deployments/d1/conversations/c1/end"
NOW = FakeClock().now()
ENDED = Result(Status.ENDED, None, NOW, 1, 200)


class Door:
    """The HTTP door, with fakes of all that it uses."""

    def __init__(self, result: Result = ENDED) -> None:
        self.result = result
        self.ended: list[Conversation] = []
        self.seconds: list[float] = []
        self.telemetry = FakeTelemetry()
        self._door = HttpDoor(
            {"end": EndNow(self._end, self.telemetry)},
            {"d1", "d2", "d1234567890abcdef"},
            "http",
            self.telemetry,
            FakeClock(),
        )

    def __call__(self, event: dict[str, Any], remaining_ms: int = 10_000) -> dict[str, Any]:
        return self._door(event, Context(remaining_ms, request_id="r1"))

    def _end(self, conversation: Conversation, deadline: Deadline) -> Result:
        self.ended.append(conversation)
        self.seconds.append(deadline.left())
        return self.result


def request(path: Any = PATH, method: str = "POST", **members: Any) -> dict[str, Any]:
    return {"requestContext": {"http": {"method": method}}, "rawPath": path, **members}


def unavailable(reason: Reason, retry_after: float | None = None) -> Result:
    return Result(Status.UNAVAILABLE, reason, NOW, 3, failure="HTTP 599", retry_after=retry_after)


@pytest.mark.parametrize("name", ["http-api", "rest-api", "function-url"])
def test_each_sample_request_ends_its_conversation(name: str) -> None:
    """One of the samples has a body, which is ignored."""
    door = Door()

    answer = door(sample(name))

    assert door.ended == [Conversation("d1234567890abcdef", "c123456")]
    assert door.telemetry.results == [("http", ENDED)]
    assert (answer["statusCode"], answer["headers"]["Cache-Control"]) == (200, "no-store")


@pytest.mark.parametrize("path", [PATH, f"/prod{PATH}", f"/a/b{PATH}", f"/v2/deployments/x{PATH}"])
def test_ids_come_from_the_end_of_the_path(path: str) -> None:
    """A stage or a base path may precede it."""
    door = Door()

    assert door(request(path))["statusCode"] == 200
    assert door.ended == [Conversation("d1", "c1")]


IDS = {"deployment_id": "d2", "conversation_id": "c2"}


@pytest.mark.parametrize("path", [PATH, "/custom/d2/c2/end", "end"])
def test_ids_come_from_the_path_parameters(path: str) -> None:
    """Then only the last segment of the path is read."""
    door = Door()

    assert door(request(path, pathParameters=IDS))["statusCode"] == 200
    assert door.ended == [Conversation("d2", "c2")]


@pytest.mark.parametrize("parameters", [{"proxy": PATH}, {"deployment_id": "d2"}, {"conversation_id": "c2"}, {}, None])
def test_ids_fall_back_to_the_path(parameters: dict[str, str] | None) -> None:
    """For example, a greedy {proxy+} route names no ids."""
    door = Door()

    assert door(request(pathParameters=parameters))["statusCode"] == 200
    assert door.ended == [Conversation("d1", "c1")]


TIMEOUT = PATH.replace("/end", "/timeout")


@pytest.mark.parametrize(
    "event",
    [
        *map(request, ["/", "", f"{PATH}/", f"{PATH}\n", f"{PATH}/x", PATH.replace("v2", "v1"), "/end", TIMEOUT]),
        *(request(path, pathParameters=IDS) for path in ["/", "", f"{PATH}/", f"{PATH}-it", "/End", TIMEOUT, None]),
        request(TIMEOUT, "PUT"),
        request(None),
        request(5),
        {"requestContext": {}, "httpMethod": "POST", "pathParameters": IDS},
    ],
)
def test_another_path_is_unknown(event: dict[str, Any]) -> None:
    door = Door()

    answer = door(event)

    assert door.ended == []
    assert (answer["statusCode"], answer["headers"]["Cache-Control"]) == (404, "no-store")
    assert json.loads(answer["body"])["reason"] == "unknown_path"
    assert door.telemetry.invalids == [("http", "unknown_path")]


@pytest.mark.parametrize("parameters", [None, IDS])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post", ""])
def test_only_post_is_allowed(method: str, parameters: dict[str, str] | None) -> None:
    door = Door()

    answer = door(request(method=method, pathParameters=parameters))

    assert door.ended == []
    assert (answer["statusCode"], answer["headers"]["Allow"]) == (405, "POST")
    assert json.loads(answer["body"])["reason"] == "method_not_allowed"
    assert door.telemetry.invalids == [("http", "method_not_allowed")]


def test_an_invalid_id_is_named_but_not_quoted() -> None:
    door = Door()

    answer = door(request(PATH.replace("c1", "<script>")))

    assert door.ended == []
    problem = json.loads(answer["body"])
    assert (answer["statusCode"], problem["reason"]) == (400, "invalid_id")
    rule = "must be 1 to 128 letters, digits, hyphens or underscores, the first a letter or digit, "
    rule += "and not undefined, null, NaN or None."
    assert problem["detail"] == f"conversation_id {rule}"
    assert door.telemetry.invalids == [("http", "invalid_id")]


@pytest.mark.parametrize(
    ("retry_after", "header"),
    [(None, "5"), (0, "1"), (0.2, "1"), (1.2, "2"), (30, "30"), (3600, "3600"), (3601, "3600"), (float("inf"), "3600")],
)
def test_a_503_has_a_retry_after(retry_after: float | None, header: str) -> None:
    """It is Tavus' own, limited to 1 to 3600 seconds, or else 5 seconds."""
    assert Door(unavailable(Reason.TAVUS_THROTTLED, retry_after))(request())["headers"]["Retry-After"] == header


def test_a_504_has_no_retry_after() -> None:
    """The caller may try again at once."""
    assert "Retry-After" not in Door(unavailable(Reason.TAVUS_TIMEOUT))(request())["headers"]


@pytest.mark.parametrize(("remaining_ms", "seconds"), [(3_000, 3), (60_000, 25)])
def test_time_is_limited_by_lambda_and_by_api_gateway(remaining_ms: int, seconds: float) -> None:
    door = Door()

    door(request(), remaining_ms)

    assert door.seconds == [seconds]


def test_a_bug_is_raised_so_that_alarms_see_it() -> None:
    def broken(conversation: Conversation, deadline: Deadline) -> Result:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        HttpDoor({"end": EndNow(broken, FakeTelemetry())}, {"d1"}, "http", FakeTelemetry(), FakeClock())(
            request(), Context()
        )


def test_a_deployment_that_is_not_allowed_is_a_403() -> None:
    door = Door()

    answer = door(request(PATH.replace("d1", "d3")))

    assert door.ended == []
    assert (answer["statusCode"], json.loads(answer["body"])["reason"]) == (403, "deployment_not_allowed")
    [(trigger, result)] = door.telemetry.results
    assert (trigger, result.reason, result.attempts) == ("http", Reason.DEPLOYMENT_NOT_ALLOWED, 0)
