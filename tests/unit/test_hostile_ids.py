"""Malformed and malicious ids: none reaches Tavus or Scheduler, through any trigger or in either place."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from end_conversation.bootstrap import bootstrap
from end_conversation.errors import InvalidEvent
from tests.unit.fakes import TIMER_SETTINGS, Context, mocked_aws, sample
from tests.unit.fault_server import FaultServer, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    with mocked_aws() as patch:
        patch.setenv("AWS_ENDPOINT_URL_SCHEDULER", server.url)
        environ = {"TAVUS_API_URL": server.url, "ALLOWED_DEPLOYMENT_IDS": "*", "EVENT_BUS_NAME": "default"}
        yield bootstrap(environ | TIMER_SETTINGS)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("place", ["deployment_id", "conversation_id"])
def test_hostile_id(handler: Handler, server: FaultServer, hostile: str, place: str) -> None:
    """The path of the requests with path parameters has valid ids, but is not used."""
    ids = ids_with(HOSTILE[hostile], place)
    server.requests.clear()

    for trigger, request in BY_PARAMETERS.items():
        response = handler(request(ids), Context())
        assert (response["statusCode"], json.loads(response["body"])["reason"]) == (400, "invalid_id"), trigger
    with pytest.raises(InvalidEvent):
        handler(sample("session-timeout", detail=ids), Context())

    assert server.requests == []


@pytest.mark.parametrize("hostile", HOSTILE_TEXTS)
@pytest.mark.parametrize("place", ["deployment_id", "conversation_id"])
def test_hostile_path(handler: Handler, server: FaultServer, hostile: str, place: str) -> None:
    text = HOSTILE_TEXTS[hostile]
    expected = (404, "unknown_path") if "/" in text else (400, "invalid_id")
    server.requests.clear()

    for trigger, request in BY_PATH.items():
        response = handler(request(ids_with(text, place)), Context())
        assert (response["statusCode"], json.loads(response["body"])["reason"]) == expected, trigger

    assert server.requests == []


def test_valid_ids_reach_tavus_or_scheduler_once(handler: Handler, server: FaultServer) -> None:
    """Without this, the tests above would pass if no request ever reached them."""
    ids = ids_with("c1", "conversation_id")
    schedule = f"/schedules/{hashlib.sha256(b'd1/c1').hexdigest()}"
    requests = [*BY_PARAMETERS.items(), *BY_PATH.items()]
    events = [request(ids) for _, request in requests] + [sample("session-timeout", detail=ids)]
    server.requests.clear()

    for event in events:
        handler(event, Context())

    expected = [schedule if trigger == "timer" else path(ids) for trigger, _ in requests] + [path(ids)]
    assert [request.path for request in server.requests] == expected
