"""The connections to AWS: what they trust, what they cost, and how they fail."""

import logging
import ssl
from collections.abc import Callable
from logging.handlers import BufferingHandler
from typing import Any

import boto3
import pytest
import trustme

from end_conversation import aws
from end_conversation.aws import AwsRefused, ask
from end_conversation.deadline import Clock
from tests.fakes import FakeClock
from tests.fault_server import FaultServer, Reply, answer, close, hang, reset, serving_tls, unused_port

BODY = b'{"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}'
TAKEN, TAKEN_KEPT = answer(200, BODY), answer(200, BODY, keep=True)

type Put = Callable[[], Any]


class Trust(ssl.SSLContext):
    """Counts how often it is told to load authorities."""

    loads = 0

    def load_verify_locations(self, *arguments: Any, **options: Any) -> None:
        self.loads += 1
        super().load_verify_locations(*arguments, **options)


@pytest.fixture
def trust(authority: trustme.CA) -> Trust:
    context = Trust(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    context.loads = 0
    return context


@pytest.fixture
def putting(trust: Trust, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Put]:
    """Puts an event on a bus that is at a URL, each time with the same client."""

    def putting(url: str) -> Put:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        client = aws.client("events", trust)
        return lambda: client.put_events(Entries=[{"Source": "s", "DetailType": "t", "Detail": "{}"}])

    return putting


def test_no_connection_loads_a_ca_bundle(authority: trustme.CA, trust: Trust, putting: Callable[[str], Put]) -> None:
    """Loading one takes longer than all else that an event costs; what was loaded at cold start serves them all."""
    with FaultServer(TAKEN, tls=serving_tls(authority)) as server:
        put = putting(server.url)
        assert [put()["FailedEntryCount"] for _ in range(3)] == [0, 0, 0]

    assert (server.connections, trust.loads) == (3, 0)


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_trust_is_what_was_given(trust: Trust, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """botocore, which would refuse an empty one, is not asked to read it."""
    monkeypatch.setenv(variable, "")

    assert aws.client("events", trust).meta.region_name == "us-east-1"


def test_a_connection_is_kept(authority: trustme.CA, putting: Callable[[str], Put]) -> None:
    """A burst of events shakes hands once."""
    with FaultServer(TAKEN_KEPT, TAKEN_KEPT, TAKEN, tls=serving_tls(authority)) as server:
        put = putting(server.url)
        for _ in range(3):
            put()

    assert (server.connections, len(server.requests)) == (1, 3)


def test_an_untrusted_server_gets_no_request(putting: Callable[[str], Put]) -> None:
    """Whoever can't show to be AWS learns nothing of a conversation."""
    with FaultServer(TAKEN, tls=serving_tls(trustme.CA())) as server, pytest.raises(AwsRefused, match="^SSLError$"):
        ask(putting(server.url), 2, Clock())

    assert (server.connections, server.requests) == (2, [])


FAULTS = [
    pytest.param(answer(500), "500", 2, id="500"),
    pytest.param(answer(307, b"", "Location: /elsewhere"), "307", 1, id="redirect"),
    pytest.param(close, "ProtocolError", 2, id="closed before the answer"),
    pytest.param(reset, "ProtocolError", 2, id="reset before the answer"),
    pytest.param((TAKEN[:-1], close), "ProtocolError", 2, id="short body"),
]


@pytest.mark.parametrize(("reply", "kind", "tries"), FAULTS)
def test_nobody_tries_again_but_ask(putting: Callable[[str], Put], reply: Reply, kind: str, tries: int) -> None:
    """Once more, where it may pass; neither botocore nor urllib3 asks again for itself, or elsewhere."""
    with FaultServer(reply) as server, pytest.raises(AwsRefused, match=f"^{kind}$"):
        ask(putting(server.url), 2, Clock())

    assert [request.path for request in server.requests] == ["/"] * tries


def test_a_silent_server_is_left(putting: Callable[[str], Put]) -> None:
    """Whoever asks gets word in time; and what was given up doesn't stay in its connection."""
    with FaultServer(hang) as server, pytest.raises(AwsRefused, match="^TimeoutError$"):
        ask(putting(server.url), 2, Clock())

    assert [request.path for request in server.requests] == ["/", "/"]


def test_an_unreachable_server_is_told_by_kind(putting: Callable[[str], Put]) -> None:
    """The operator reads what went wrong, and no address."""
    with unused_port() as port, pytest.raises(AwsRefused, match="^NewConnectionError$"):
        ask(putting(f"http://127.0.0.1:{port}"), 2, Clock())


def test_a_wrong_parameter_is_not_sent_again(trust: Trust) -> None:
    """It is wrong the second time, too."""
    client: Any = aws.client("events", trust)
    clock = FakeClock()

    with pytest.raises(AwsRefused, match="^ParamValidationError$"):
        ask(lambda: client.put_events(Entries=[{"Source": 1}]), 2, clock)

    assert clock.slept == []


def test_missing_credentials_are_not_asked_for_again(trust: Trust, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function without a role has none the second time, either."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it would remember those of an earlier test
    client: Any = aws.client("events", trust)
    clock = FakeClock()

    with pytest.raises(AwsRefused, match="^NoCredentialsError$"):
        ask(lambda: client.put_events(Entries=[{"Source": "s"}]), 2, clock)

    assert clock.slept == []


def test_botocore_logs_nothing_of_a_conversation(
    putting: Callable[[str], Put], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even where Lambda is told to log everything at DEBUG."""
    log = BufferingHandler(capacity=1000)
    monkeypatch.setattr(logging.getLogger(), "handlers", [log])
    monkeypatch.setattr(logging.getLogger("botocore"), "propagate", True)
    caplog.set_level(logging.DEBUG)
    with FaultServer(TAKEN) as server:
        putting(server.url)()

    assert [record for record in log.buffer if record.name.startswith("botocore")] == []
