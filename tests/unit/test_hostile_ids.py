"""Malformed and malicious ids: none reaches Tavus or Scheduler, through any trigger or in either place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from moto import mock_aws

from end_conversation.bootstrap import bootstrap
from end_conversation.errors import InvalidEvent
from tests.unit.fakes import TIMER_SETTINGS, Context
from tests.unit.fault_server import FaultServer, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVENTS = Path(__file__).parents[2] / "events"

type Ids = dict[str, Any]
type Handler = Callable[[Any, Any], Any]

HOSTILE_TEXTS = {
    "empty": "",
    "dots": "..",
    "one dot": ".",
    "encoded dots": "%2e%2e",
    "encoded slash": "a%2Fb",
    "encoded NUL": "a%00",
    "dots and slash": "../a",
    "slash": "a/b",
    "slash behind": "a/",
    "backslash": "a\\b",
    "query": "a?b",
    "fragment": "a#b",
    "parameter": "a;b",
    "user": "a@b",
    "colon": "a:b",
    "space": "a b",
    "space behind": "a ",
    "newline behind": "a\n",
    "CRLF and a header": "a\r\nHost: b",
    "NUL": "a\0",
    "leading hyphen": "-a",
    "leading underscore": "_a",
    "unicode digits": "\u0661\u0662\u0663",
    "full-width letter": "\uff41",
    "accent": "caf\u00e9",
    "lone surrogate": "\ud800",
    "right to left": "a\u202eb",
    "129 characters": "a" * 129,
    "5,000 characters": "a" * 5000,
}
HOSTILE = HOSTILE_TEXTS | {
    "null": None,
    "true": True,
    "number": 7,
    "fraction": 1.5,
    "list": ["a"],
    "empty list": [],
    "dict": {"a": "b"},
}


def sample(name: str, **changes: Any) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text())
    return event | changes


def path(ids: Ids, operation: str = "end") -> str:
    return f"/v2/deployments/{ids['deployment_id']}/conversations/{ids['conversation_id']}/{operation}"


BY_PARAMETERS: dict[str, Callable[[Ids], dict[str, Any]]] = {
    "payload 2.0": lambda ids: sample("http-api", pathParameters=ids),
    "payload 1.0": lambda ids: sample("rest-api", pathParameters=ids),
    "timer": lambda ids: sample("limit", pathParameters=ids),
}
BY_PATH: dict[str, Callable[[Ids], dict[str, Any]]] = {
    "payload 2.0": lambda ids: sample("http-api", pathParameters=None, rawPath=path(ids)),
    "payload 1.0": lambda ids: sample("rest-api", pathParameters=None, path=path(ids)),
    "function URL": lambda ids: sample("function-url", rawPath=path(ids)),
    "timer": lambda ids: sample("limit", pathParameters=None, rawPath=path(ids, "timeout")),
}

either_place = pytest.mark.parametrize("place", ["deployment_id", "conversation_id"])


def ids_with(hostile: Any, place: str) -> Ids:
    return {"deployment_id": "d1", "conversation_id": "c1"} | {place: hostile}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    """Stands in for Tavus and for Scheduler, and remembers every request."""
    with FaultServer(answer(404)) as server:
        yield server


@pytest.fixture(scope="module")
def handler(server: FaultServer) -> Iterator[Handler]:
    """The composed handler, for requests, timers and events."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        patch.setenv("AWS_ENDPOINT_URL_SCHEDULER", server.url)
        environ = {"TAVUS_API_URL": server.url, "ALLOWED_DEPLOYMENT_IDS": "*", "EVENT_BUS_NAME": "default"}
        yield bootstrap(environ | TIMER_SETTINGS)


@pytest.fixture(autouse=True)
def _nothing_sent_yet(server: FaultServer) -> None:
    server.requests.clear()


@either_place
@pytest.mark.parametrize("trigger", BY_PARAMETERS)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_path_parameter_is_an_invalid_id(
    handler: Handler, server: FaultServer, trigger: str, hostile: str, place: str
) -> None:
    """The path of these requests has valid ids, but is not used."""
    event = BY_PARAMETERS[trigger](ids_with(HOSTILE[hostile], place))

    response = handler(event, Context())

    assert (response["statusCode"], json.loads(response["body"])["reason"]) == (400, "invalid_id")
    assert server.requests == []


@either_place
@pytest.mark.parametrize("trigger", BY_PATH)
@pytest.mark.parametrize("hostile", HOSTILE_TEXTS)
def test_a_hostile_path_is_an_invalid_id_or_unknown(
    handler: Handler, server: FaultServer, trigger: str, hostile: str, place: str
) -> None:
    text = HOSTILE_TEXTS[hostile]
    event = BY_PATH[trigger](ids_with(text, place))

    response = handler(event, Context())

    expected = (404, "unknown_path") if "/" in text else (400, "invalid_id")
    assert (response["statusCode"], json.loads(response["body"])["reason"]) == expected
    assert server.requests == []


@either_place
@pytest.mark.parametrize("hostile", HOSTILE)
def test_an_event_with_a_hostile_id_is_invalid(handler: Handler, server: FaultServer, hostile: str, place: str) -> None:
    event = sample("session-timeout", detail=ids_with(HOSTILE[hostile], place))

    with pytest.raises(InvalidEvent):
        handler(event, Context())

    assert server.requests == []


@pytest.mark.parametrize(
    "event",
    [
        *(make(ids_with("c1", "conversation_id")) for make in (*BY_PARAMETERS.values(), *BY_PATH.values())),
        sample("session-timeout", detail=ids_with("c1", "conversation_id")),
    ],
    ids=[*(f"{name} by parameters" for name in BY_PARAMETERS), *(f"{name} by path" for name in BY_PATH), "event"],
)
def test_valid_ids_reach_tavus_or_scheduler_once(handler: Handler, server: FaultServer, event: dict[str, Any]) -> None:
    """Without this, the tests above would pass if no request ever reached them."""
    handler(event, Context())

    timer = event.get("routeKey", "").startswith("PUT")
    expected = (
        f"/schedules/{hashlib.sha256(b'd1/c1').hexdigest()}" if timer else path(ids_with("c1", "conversation_id"))
    )
    assert [request.path for request in server.requests] == [expected]
