"""The AWS clients: what they trust, which calls are tried again, and how their failures are named."""

import json
import logging
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from itertools import count
from logging.handlers import BufferingHandler
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from end_conversation.aws import client as aws_client
from end_conversation.aws.bus import EventBus
from end_conversation.aws.client import PAUSE_SECONDS, TRY_SECONDS, call_with_retry
from end_conversation.deadline import Deadline
from end_conversation.errors import AwsCallFailed
from end_conversation.trust import Trust
from tests.unit.fakes import FakeClock, create_client, let_aws_answer
from tests.unit.fault_server import (
    FaultServer,
    Reply,
    answer,
    close,
    drip,
    full_port,
    hang,
    reset,
    serving_tls,
    unused_port,
)

BODY = b'{"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}'
ACCEPTED, ACCEPTED_KEPT = answer(200, BODY), answer(200, BODY, keep=True)

type Put = Callable[[], Any]


class CountingContext(ssl.SSLContext):
    """Counts how often it loads CA certificates."""

    loads = 0

    def load_verify_locations(self, *arguments: Any, **options: Any) -> None:
        self.loads += 1
        super().load_verify_locations(*arguments, **options)


@pytest.fixture
def tls(authority: trustme.CA) -> CountingContext:
    context = CountingContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    context.loads = 0
    return context


@pytest.fixture
def putting(tls: CountingContext, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Put]:
    """Returns, for the URL of a server, a function that puts an event there, always with the same client."""

    def putting(url: str) -> Put:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        client = create_client("events", Trust(tls))
        return lambda: client.put_events(Entries=[{"Source": "s", "DetailType": "t", "Detail": "{}"}])

    return putting


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_client, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(aws_client, "READ_SECONDS", 0.2)


def call_and_retry(call: Put) -> list[float]:
    """Make a call with plenty of time. Returns the pauses before its second try, if it needs one."""
    clock = FakeClock()
    call_with_retry(call, Deadline(clock, 10, 5), clock)
    return clock.slept


def test_connections_load_no_ca_bundle(
    authority: trustme.CA, tls: CountingContext, putting: Callable[[str], Put]
) -> None:
    """All connections use the TLS context of the cold start."""
    with FaultServer(ACCEPTED, tls=serving_tls(authority)) as server:
        put = putting(server.url)
        assert [put()["FailedEntryCount"] for _ in range(3)] == [0, 0, 0]

    assert (server.connections, tls.loads) == (3, 0)


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_botocore_reads_no_ca_bundle_variable(
    tls: CountingContext, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """An empty one would be an error of botocore's."""
    monkeypatch.setenv(variable, "")

    assert create_client("events", Trust(tls)).meta.region_name == "us-east-1"


def test_a_burst_reuses_one_connection(authority: trustme.CA, putting: Callable[[str], Put]) -> None:
    with FaultServer(ACCEPTED_KEPT, ACCEPTED_KEPT, ACCEPTED, tls=serving_tls(authority)) as server:
        put = putting(server.url)
        for _ in range(3):
            put()

    assert (server.connections, len(server.requests)) == (1, 3)
    for request in server.requests:
        assert request.headers["x-amz-target"] == "AWSEvents.PutEvents"
        assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=test/")
        # botocore and Powertools append their versions.
        assert request.headers["user-agent"].startswith("end-conversation/1 ")


@pytest.mark.parametrize("death", [close, reset])
def test_a_dead_kept_connection_is_replaced(putting: Callable[[str], Put], death: Reply) -> None:
    """A sandbox that was frozen notices only by sending that its connection is dead."""
    with FaultServer(ACCEPTED_KEPT, death, ACCEPTED) as server:
        put = putting(server.url)
        put()
        assert call_and_retry(put) == [PAUSE_SECONDS]

    assert (server.connections, len(server.requests)) == (2, 3)


@pytest.mark.parametrize(
    ("reply", "kind", "tries"),
    [
        pytest.param(answer(500), "500", 2, id="500"),
        pytest.param(answer(307, b"", "Location: /elsewhere"), "307", 1, id="redirect"),
        pytest.param(close, "ProtocolError", 2, id="closed before the answer"),
        pytest.param(reset, "ProtocolError", 2, id="reset before the answer"),
        pytest.param((ACCEPTED[:-1], close), "ProtocolError", 2, id="truncated body"),
    ],
)
def test_a_call_is_sent_at_most_twice(putting: Callable[[str], Put], reply: Reply, kind: str, tries: int) -> None:
    """Neither botocore nor urllib3 retries, and neither follows a redirect."""
    with FaultServer(reply) as server, pytest.raises(AwsCallFailed, match=f"^{kind}$"):
        call_and_retry(putting(server.url))

    assert [request.path for request in server.requests] == ["/"] * tries


@pytest.mark.usefixtures("short_timeouts")
@pytest.mark.parametrize("reply", [hang, (ACCEPTED[:-1], hang)], ids=["no answer", "half an answer"])
def test_a_silent_server_is_abandoned(putting: Callable[[str], Put], reply: Reply) -> None:
    """FaultServer fails if the client stays in a connection."""
    with FaultServer(reply) as server:
        put = putting(server.url)
        start = time.monotonic()
        with pytest.raises(AwsCallFailed, match="^ReadTimeoutError$"):
            call_and_retry(put)
        assert time.monotonic() - start < 1

    assert len(server.requests) == 2


@pytest.mark.usefixtures("short_timeouts")
@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_dripping_answer_is_abandoned(
    putting: Callable[[str], Put], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """No timeout of a single read ends it."""
    monkeypatch.setattr(aws_client, "TRY_SECONDS", 0.3)
    at_once = ACCEPTED.index(b"\r\n\r\n") + 4 if part == "body" else 0
    with FaultServer((ACCEPTED[:at_once], drip(ACCEPTED[at_once:], every=0.01))) as server:
        put = putting(server.url)
        start = time.monotonic()
        with pytest.raises(AwsCallFailed, match="^TimeoutError$"):
            call_and_retry(put)
        assert time.monotonic() - start < 1.5


def test_a_hanging_resolver_is_abandoned(putting: Callable[[str], Put], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_client, "TRY_SECONDS", 0.2)
    over = Event()
    put = putting("http://aws.test")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: over.wait(5))
    start = time.monotonic()
    with pytest.raises(AwsCallFailed, match="^TimeoutError$"):
        call_and_retry(put)
    over.set()

    assert time.monotonic() - start < 1.5


@pytest.mark.usefixtures("short_timeouts")
@pytest.mark.parametrize(
    ("port", "kind"), [(unused_port, "NewConnectionError"), (full_port, "ConnectTimeoutError")], ids=["closed", "full"]
)
def test_an_unreachable_server_is_named_by_kind(
    putting: Callable[[str], Put], port: Callable[[], AbstractContextManager[int]], kind: str
) -> None:
    """The text has no address."""
    with port() as number:
        put = putting(f"http://127.0.0.1:{number}")
        start = time.monotonic()
        with pytest.raises(AwsCallFailed, match=f"^{kind}$"):
            call_and_retry(put)
        assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    ("seconds", "keep_seconds", "tries"),
    [
        (PAUSE_SECONDS + TRY_SECONDS, 0, 2),
        (PAUSE_SECONDS + TRY_SECONDS - 0.1, 0, 1),
        (PAUSE_SECONDS + TRY_SECONDS + 1, 1, 2),
        (PAUSE_SECONDS + TRY_SECONDS + 0.9, 1, 1),
    ],
)
def test_a_second_try_is_made_only_if_there_is_time_for_it(seconds: float, keep_seconds: float, tries: int) -> None:
    clock = FakeClock()
    tried_at = []

    def throttled() -> None:
        tried_at.append(clock.elapsed)
        raise AwsCallFailed("Throttling", retryable=True)

    with pytest.raises(AwsCallFailed, match="^Throttling$"):
        call_with_retry(throttled, Deadline(clock, seconds, 0), clock, keep_seconds)

    assert tried_at == [0, PAUSE_SECONDS][:tries]


def test_missing_credentials_are_not_looked_up_again(tls: CountingContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    client: Any = create_client("events", Trust(tls))
    clock = FakeClock()

    with pytest.raises(AwsCallFailed, match="^NoCredentialsError$"):
        call_with_retry(lambda: client.put_events(Entries=[{"Source": "s"}]), Deadline(clock, 10, 5), clock)

    assert clock.slept == []


@pytest.fixture
def late_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 20 minutes pass between two signatures, as in a sandbox that was frozen."""
    start, minutes = datetime(2026, 11, 22, tzinfo=UTC), count(step=20)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: start + timedelta(minutes=next(minutes)))


def refused_call(code: str) -> tuple[int, bytes]:
    return 400, json.dumps({"__type": f"com.amazon.coral.service#{code}", "message": "from AWS"}).encode()


def refused_entry(code: str) -> tuple[int, bytes]:
    entry = {"ErrorCode": code, "ErrorMessage": "from AWS"}
    return 200, json.dumps({"FailedEntryCount": 1, "Entries": [entry]}).encode()


@pytest.mark.usefixtures("late_clock")
@pytest.mark.parametrize("refused", [refused_call, refused_entry])
@pytest.mark.parametrize(
    "code", ["InvalidSignatureException", "RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch"]
)
def test_the_second_try_has_a_new_signature(
    tls: CountingContext, code: str, refused: Callable[[str], tuple[int, bytes]]
) -> None:
    """A signature is valid for 15 minutes, and a sandbox may be frozen for longer."""
    clock = FakeClock()
    client = create_client("events", Trust(tls))
    requests: Any = let_aws_answer(client, refused(code), (200, BODY))

    EventBus(client, "bus", "source", lambda: None, clock).publish("type", {}, Deadline(clock, 10, 5))

    assert [request.headers["X-Amz-Date"].decode() for request in requests] == ["20261122T000000Z", "20261122T002000Z"]
    assert len({request.headers["Authorization"] for request in requests}) == 2


@pytest.mark.parametrize(
    "client",
    [
        SimpleNamespace(),
        SimpleNamespace(_endpoint=SimpleNamespace()),
        SimpleNamespace(_endpoint=SimpleNamespace(http_session=object())),
    ],
)
def test_changed_botocore_internals_stop_the_start(
    tls: CountingContext, monkeypatch: pytest.MonkeyPatch, client: object
) -> None:
    """Our HTTP session must not be ignored silently."""
    monkeypatch.setattr("boto3.session.Session.client", lambda *_, **__: client)

    with pytest.raises(TypeError, match="adapt ClientFactory"):
        create_client("events", Trust(tls))


def test_botocore_logs_nothing(
    putting: Callable[[str], Put], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG, which Lambda can set for every logger, botocore logs whole requests and answers."""
    log = BufferingHandler(capacity=1000)
    monkeypatch.setattr(logging.getLogger(), "handlers", [log])
    monkeypatch.setattr(logging.getLogger("botocore"), "propagate", True)
    caplog.set_level(logging.DEBUG)
    with FaultServer(ACCEPTED) as server:
        putting(server.url)()

    assert [record for record in log.buffer if record.name.startswith("botocore")] == []
