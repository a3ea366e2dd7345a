"""The built function under AWS Lambda's own Python runtime and Runtime Interface Emulator."""

import json
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from local.build import build
from local.process import ROOT
from local.runtime import Sandbox, sandbox
from local.session import DEPLOYMENT_ID, end_path, logged, request_for, timeout_of
from local.stack import Stack
from local.subscriber import Subscriber
from local.tavus import Tavus
from tests.local.traced import TRACE_ID
from tests.unit.fault_server import FaultServer, Reply, answer, drip, endlessly, hang

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Lambda's runtime and its emulator are Linux programs")


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    build()


@pytest.fixture
def http(tavus: Tavus) -> Iterator[Sandbox]:
    """A sandbox of the function behind the HTTP API."""
    with sandbox("HttpFunction", 29, TAVUS_API_URL=tavus.url, ALLOWED_DEPLOYMENT_IDS=DEPLOYMENT_ID) as running:
        yield running


def event_settings(stack: Stack, tavus: Tavus) -> dict[str, str]:
    return {
        "ALLOWED_DEPLOYMENT_IDS": DEPLOYMENT_ID,
        "AWS_ENDPOINT_URL": stack.endpoint_url,
        "ENDED_TABLE_NAME": stack.outputs["EndedTableName"],
        "EVENT_BUS_NAME": stack.outputs["EventBusName"],
        "TAVUS_API_URL": tavus.url,
    }


def test_a_request_ends_the_conversation(http: Sandbox, tavus: Tavus) -> None:
    """Lambda's runtime returns the answer of the HTTP door."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    answer = http.invoke(request_for(conversation_id))
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"]) == {"conversation_id": conversation_id, "status": "ended"}


def test_a_warm_sandbox_keeps_its_connection(http: Sandbox, tavus: Tavus) -> None:
    """A second call at once starts neither the function nor a connection to Tavus."""
    first, second = tavus.start(DEPLOYMENT_ID), tavus.start(DEPLOYMENT_ID)
    http.invoke(request_for(first))
    http.invoke(request_for(second))
    paths = [end_path(DEPLOYMENT_ID, first), end_path(DEPLOYMENT_ID, second)]
    assert len({request.connection for request in tavus.requests if request.path in paths}) == 1
    assert [line["cold_start"] for line in logged(http.log().splitlines())] == [True, False]


def test_the_result_of_a_session_timeout_is_published(stack: Stack, tavus: Tavus) -> None:
    subscriber = Subscriber(stack)
    conversation_id = tavus.start(DEPLOYMENT_ID)
    event = timeout_of(conversation_id)
    with sandbox("EventFunction", 30, **event_settings(stack, tavus)) as running:
        assert running.invoke(event) is None
    result = subscriber.result_of(event["id"])
    assert (result["detail"]["conversation_id"], result["detail"]["status"]) == (conversation_id, "ended")


def test_a_failure_is_reported_by_its_kind(stack: Stack, tavus: Tavus) -> None:
    """An event that names no conversation fails as `InvalidEvent`."""
    with sandbox("EventFunction", 30, **event_settings(stack, tavus)) as running:
        report = running.invoke(timeout_of("not.an.id"))
    assert report["errorType"] == "InvalidEvent"
    assert "not.an.id" not in json.dumps(report)


SLOW = [
    pytest.param(hang, id="no answer"),
    pytest.param(endlessly(b"HTTP/1.1 100 Continue\r\n\r\n", every=0.01), id="100 flood"),
    pytest.param(drip(answer(200, b" " * 4096)), id="dripped answer"),
]
ENDED = answer(200, b'{"conversation_id": "c123456", "status": "ended"}')


@pytest.mark.parametrize("reply", SLOW)
def test_a_request_is_answered_before_lambda_kills_the_function(reply: Reply) -> None:
    """However Tavus is slow, the function answers 504, and the same sandbox serves the next request."""
    with FaultServer(reply, reply, ENDED) as server:  # there is time for two attempts
        settings = {"ALLOWED_DEPLOYMENT_IDS": DEPLOYMENT_ID, "TAVUS_API_URL": server.url}
        with sandbox("HttpFunction", 4, **settings) as running:
            late, next_one = running.invoke(request_for("c123456")), running.invoke(request_for("c123456"))
            lines = logged(running.log().splitlines())
    assert (late["statusCode"], json.loads(late["body"])["reason"]) == (504, "tavus_timeout")
    assert next_one["statusCode"] == 200
    assert [line["cold_start"] for line in lines] == [True, False]


def test_a_session_timeout_fails_before_lambda_kills_the_function(stack: Stack, tavus: Tavus) -> None:
    """If Tavus never answers, the function raises, and the same sandbox serves the next event."""
    subscriber = Subscriber(stack)
    event = timeout_of("c123456")
    with FaultServer(hang, ENDED) as server:  # there is time for one attempt
        settings = event_settings(stack, tavus) | {"TAVUS_API_URL": server.url}
        with sandbox("EventFunction", 6, **settings) as running:
            assert running.invoke(event)["errorType"] == "TavusUnavailable"
            assert running.invoke(event) is None
    assert subscriber.result_of(event["id"])["detail"]["status"] == "ended"


@pytest.fixture
def daemon() -> Iterator[socket.socket]:
    """A socket in place of the X-Ray daemon."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(2)
        yield listening


def traced_to(daemon: socket.socket) -> dict[str, str]:
    """Return the settings of a sandbox that runs traced.py and sends to this daemon."""
    return {
        "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}",
        "PYTHONPATH": str(ROOT / "tests/local"),
    }


def subsegment(daemon: socket.socket) -> dict[str, Any]:
    """Return the next subsegment that was sent."""
    _, document = daemon.recv(65536).decode().split("\n", 1)
    sent: dict[str, Any] = json.loads(document)
    return sent


def test_the_trace_shows_the_call_to_tavus(daemon: socket.socket, tavus: Tavus) -> None:
    """A sampled call has a remote subsegment with Tavus' status code and the number of attempts."""
    settings = {"ALLOWED_DEPLOYMENT_IDS": DEPLOYMENT_ID, "TAVUS_API_URL": tavus.url}
    with sandbox("HttpFunction", 29, "traced.handler", **settings, **traced_to(daemon)) as running:
        running.invoke(request_for(tavus.start(DEPLOYMENT_ID)))
        call = subsegment(daemon)
    assert (call["trace_id"], call["name"], call["namespace"]) == (TRACE_ID, "Tavus", "remote")
    assert call["http"]["response"]["status"] == 200
    assert call["annotations"] == {"status": "ended", "attempts": 1}


def test_the_trace_of_a_failure_quotes_nothing(daemon: socket.socket, stack: Stack, tavus: Tavus) -> None:
    """It marks the fault, and has nothing that Tavus sent."""
    settings = event_settings(stack, tavus) | traced_to(daemon)
    tavus.down = True
    try:
        with sandbox("EventFunction", 30, "traced.handler", **settings) as running:
            assert running.invoke(timeout_of("cdown"))["errorType"] == "TavusUnavailable"
            call = subsegment(daemon)
    finally:
        tavus.down = False
    assert (call["http"]["response"]["status"], call["annotations"]["attempts"], call["fault"]) == (503, 3, True)
    assert "Service unavailable" not in json.dumps(call)
