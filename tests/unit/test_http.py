"""The HTTP door: which requests it accepts, and what it answers.

test_contract.py compares whole answers with openapi.yaml.
"""

import json
from typing import Any

import pytest

from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.http import EndNow, HttpDoor
from tests.unit.doors import ENDED, ID_RULE, MALFORMED_IDS, NOW, Http
from tests.unit.fakes import Context, FakeClock, FakeTelemetry, sample

PATH = "/v2/deployments/d1/conversations/c1/end"
TIMEOUT = PATH.replace("/end", "/timeout")
IDS = {"deployment_id": "d2", "conversation_id": "c2"}

both_operations = pytest.mark.parametrize(
    ("path", "method", "trigger"), [(PATH, "POST", "http"), (TIMEOUT, "PUT", "timer")]
)


def request(path: Any = PATH, method: str = "POST", **members: Any) -> dict[str, Any]:
    return {"requestContext": {"http": {"method": method}}, "rawPath": path, **members}


def unavailable(reason: Reason, retry_after: float | None = None) -> Result:
    return Result(Status.UNAVAILABLE, reason, NOW, 3, failure="HTTP 599", retry_after=retry_after)


PROBLEM_HEADERS = {"Cache-Control": "no-store", "Content-Type": "application/problem+json"}


def refuses(door: Http, event: dict[str, Any]) -> tuple[int, str]:
    """Expect that nothing is done. Returns the status and the reason of the problem."""
    answer = door(event)
    assert (door.ended, door.scheduled) == ([], [])
    assert answer["headers"].items() >= PROBLEM_HEADERS.items()
    return answer["statusCode"], json.loads(answer["body"])["reason"]


@pytest.mark.parametrize("name", ["http-api", "rest-api", "function-url"])
def test_each_sample_request_ends_its_conversation(name: str) -> None:
    """One of the samples has a body, which is ignored."""
    door = Http()

    answer = door(sample(name))

    assert door.ended == [Conversation("d1234567890abcdef", "c123456")]
    assert door.telemetry.results == [("http", ENDED)]
    assert (answer["statusCode"], answer["headers"]["Cache-Control"]) == (200, "no-store")


def test_unconfirmed_is_a_202() -> None:
    """Tavus did not confirm the end, so a 200 would claim too much."""
    answer = Http(Result(Status.UNCONFIRMED, Reason.UNEXPECTED_ANSWER, NOW, 1, 200))(request())

    assert answer["statusCode"] == 202
    assert json.loads(answer["body"]) == {"conversation_id": "c1", "status": "unconfirmed"}


@pytest.mark.parametrize("path", [PATH, f"/prod{PATH}", f"/a/b{PATH}", f"/v2/deployments/x{PATH}"])
@pytest.mark.parametrize("parameters", [{"proxy": PATH}, {"deployment_id": "d2"}, {"conversation_id": "c2"}, {}, None])
def test_ids_come_from_the_end_of_the_path(path: str, parameters: dict[str, str] | None) -> None:
    """A stage or a base path may precede it. A greedy {proxy+} route, for example, names no ids."""
    door = Http()

    assert door(request(path, pathParameters=parameters))["statusCode"] == 200
    assert door.ended == [Conversation("d1", "c1")]


@pytest.mark.parametrize("path", [PATH, "/custom/d2/c2/end", "end"])
def test_ids_come_from_the_path_parameters(path: str) -> None:
    """Then only the last segment of the path is read."""
    door = Http()

    assert door(request(path, pathParameters=IDS))["statusCode"] == 200
    assert door.ended == [Conversation("d2", "c2")]


@pytest.mark.parametrize(
    "event",
    [
        *map(request, ["/", "", f"{PATH}/", f"{PATH}\n", f"{PATH}/x", PATH.replace("v2", "v1"), "/end", None, 5]),
        *(request(path, pathParameters=IDS) for path in ["/", "", f"{PATH}/", f"{PATH}-it", "/End", None]),
        {"requestContext": {}, "httpMethod": "POST", "pathParameters": IDS},
    ],
)
def test_another_path_is_unknown(event: dict[str, Any]) -> None:
    door = Http()

    assert refuses(door, event) == (404, "unknown_path")
    assert door.telemetry.invalids == [("http", "unknown_path")]


@both_operations
@pytest.mark.parametrize("parameters", [None, IDS])
@pytest.mark.parametrize("other", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "post", "put", ""])
def test_each_path_has_one_method(
    path: str, method: str, trigger: str, other: str, parameters: dict[str, str] | None
) -> None:
    door = Http()
    event = request(path, other, pathParameters=parameters)
    if other == method:
        assert door(event)["statusCode"] == 200
        return

    assert refuses(door, event) == (405, "method_not_allowed")
    assert door(event)["headers"]["Allow"] == method
    assert door.telemetry.invalids[0] == (trigger, "method_not_allowed")


@both_operations
@pytest.mark.parametrize("place", ["deployment_id", "conversation_id"])
@pytest.mark.parametrize("malformed", MALFORMED_IDS)
def test_malformed_ids(path: str, method: str, trigger: str, place: str, malformed: Any) -> None:
    """The answer names the id and does not quote it. Valid ids in the path do not count beside path parameters."""
    ids = {"deployment_id": "d1", "conversation_id": "c1"} | {place: malformed}
    door = Http()
    event = request(path, method, pathParameters=ids)

    assert refuses(door, event) == (400, "invalid_id")
    assert json.loads(door(event)["body"])["detail"] == f"{place} {ID_RULE}."
    assert door.telemetry.invalids[0] == (trigger, "invalid_id")
    if isinstance(malformed, str):
        in_path = path.replace({"deployment_id": "d1", "conversation_id": "c1"}[place], malformed)
        assert refuses(door, request(in_path, method)) == (
            (404, "unknown_path") if "/" in malformed else (400, "invalid_id")
        )


@both_operations
def test_a_deployment_that_is_not_allowed_is_a_403(path: str, method: str, trigger: str) -> None:
    """It is the first thing that counts about a request with valid ids."""
    door = Http()

    assert refuses(door, request(path.replace("d1", "d3"), method, body="junk")) == (403, "deployment_not_allowed")
    [(counted, result)] = door.telemetry.results
    assert (counted, result.status, result.reason) == (trigger, Status.REJECTED, Reason.DEPLOYMENT_NOT_ALLOWED)
    assert result.attempts == 0


@pytest.mark.parametrize(
    ("retry_after", "header"),
    [(None, "5"), (0, "1"), (0.2, "1"), (1.2, "2"), (30, "30"), (3600, "3600"), (3601, "3600"), (float("inf"), "3600")],
)
def test_a_503_has_a_retry_after(retry_after: float | None, header: str) -> None:
    """It is Tavus' own, limited to 1 to 3600 seconds, or else 5 seconds."""
    assert Http(unavailable(Reason.TAVUS_THROTTLED, retry_after))(request())["headers"]["Retry-After"] == header


def test_a_504_has_no_retry_after() -> None:
    """The caller may try again at once."""
    assert "Retry-After" not in Http(unavailable(Reason.TAVUS_TIMEOUT))(request())["headers"]


@pytest.mark.parametrize(
    ("path", "method", "remaining_ms", "seconds"),
    [(PATH, "POST", 3_000, 3), (PATH, "POST", 60_000, 25), (TIMEOUT, "PUT", 2_000, 2), (TIMEOUT, "PUT", 10_000, 4.5)],
)
def test_time_is_limited(path: str, method: str, remaining_ms: int, seconds: float) -> None:
    """By Lambda and by API Gateway, and for a limit to less than five seconds."""
    door = Http()

    door(request(path, method), remaining_ms)

    assert door.seconds == [seconds]


def test_a_bug_is_raised_so_that_alarms_see_it() -> None:
    def broken(conversation: Conversation, deadline: Deadline) -> Result:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        HttpDoor({"end": EndNow(broken, FakeTelemetry())}, {"d1"}, "http", FakeTelemetry(), FakeClock())(
            request(), Context()
        )
