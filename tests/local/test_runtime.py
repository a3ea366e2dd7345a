"""The built function under AWS Lambda's own Python runtime and Runtime Interface Emulator."""

import json
import socket
import sys

import pytest

from local.build import build
from local.process import ROOT
from local.runtime import sandbox
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


def test_a_warm_sandbox_keeps_its_connection(tavus: Tavus) -> None:
    """A second call at once starts neither the function nor a connection to Tavus."""
    first, second = tavus.start(DEPLOYMENT_ID), tavus.start(DEPLOYMENT_ID)
    with sandbox("HttpFunction", 29, TAVUS_API_URL=tavus.url, ALLOWED_DEPLOYMENT_IDS=DEPLOYMENT_ID) as running:
        for conversation_id in (first, second):
            running.invoke(request_for(conversation_id))
        lines = logged(running.log().splitlines())
    paths = [end_path(DEPLOYMENT_ID, first), end_path(DEPLOYMENT_ID, second)]
    assert len({request.connection for request in tavus.requests if request.path in paths}) == 1
    assert [line["cold_start"] for line in lines] == [True, False]


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


def test_a_session_timeout_fails_before_lambda_kills_the_function(stack: Stack, subscriber: Subscriber) -> None:
    """If Tavus never answers, the function raises, and the same sandbox serves the next event."""
    event = timeout_of("c123456")
    with FaultServer(hang, ENDED) as server:  # there is time for one attempt
        settings = {
            "ALLOWED_DEPLOYMENT_IDS": DEPLOYMENT_ID,
            "AWS_ENDPOINT_URL": stack.endpoint_url,
            "ENDED_TABLE_NAME": stack.outputs["EndedTableName"],
            "EVENT_BUS_NAME": stack.outputs["EventBusName"],
            "TAVUS_API_URL": server.url,
        }
        with sandbox("EventFunction", 6, **settings) as running:
            assert running.invoke(event)["errorType"] == "TavusUnavailable"
            assert running.invoke(event) is None
    assert subscriber.result_of(event["id"])["detail"]["status"] == "ended"


def test_the_trace_shows_the_call_to_tavus(tavus: Tavus) -> None:
    """A sampled call has a remote subsegment with Tavus' status code and the number of attempts."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(2)
        settings = {
            "ALLOWED_DEPLOYMENT_IDS": DEPLOYMENT_ID,
            "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}",
            "PYTHONPATH": str(ROOT / "tests/local"),
            "TAVUS_API_URL": tavus.url,
        }
        with sandbox("HttpFunction", 29, "traced.handler", **settings) as running:
            running.invoke(request_for(tavus.start(DEPLOYMENT_ID)))
            call = json.loads(daemon.recv(65536).decode().partition("\n")[2])
    assert (call["trace_id"], call["name"], call["namespace"]) == (TRACE_ID, "Tavus", "remote")
    assert call["http"]["response"]["status"] == 200
    assert call["annotations"] == {"status": "ended", "attempts": 1}
