"""The connections to AWS: what they trust, what they cost, and how they fail."""

import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trustme

from end_conversation import aws
from end_conversation.deadline import Clock
from tests.fakes import FakeClock
from tests.fault_server import FaultServer, Reply, answer, close, hang, reset, unused_port

BODY = b'{"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}'
TAKEN, TAKEN_KEPT = answer(200, BODY), answer(200, BODY, keep=True)

type Put = Callable[[], Any]


class Trust(ssl.SSLContext):
    """Counts how often it is told to load authorities."""

    loads = 0

    def load_verify_locations(self, *arguments: Any, **options: Any) -> None:
        self.loads += 1
        super().load_verify_locations(*arguments, **options)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


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
        events = aws.client("events", trust)
        return lambda: events.put_events(Entries=[{"Source": "s", "DetailType": "t", "Detail": "{}"}])

    return putting


def tls(authority: trustme.CA) -> ssl.SSLContext:
    """What a server with a certificate of that authority needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_no_connection_loads_a_ca_bundle(authority: trustme.CA, trust: Trust, putting: Callable[[str], Put]) -> None:
    """Loading one takes longer than all else that an event costs; what was loaded at cold start serves them all."""
    with FaultServer(TAKEN, tls=tls(authority)) as server:
        put = putting(server.url)
        assert [put()["FailedEntryCount"] for _ in range(3)] == [0, 0, 0]

    assert (server.connections, trust.loads) == (3, 0)


def test_a_connection_is_kept(authority: trustme.CA, putting: Callable[[str], Put]) -> None:
    """A burst of events shakes hands once."""
    with FaultServer(TAKEN_KEPT, TAKEN_KEPT, TAKEN, tls=tls(authority)) as server:
        put = putting(server.url)
        for _ in range(3):
            put()

    assert (server.connections, len(server.requests)) == (1, 3)


def test_an_untrusted_server_gets_no_request(putting: Callable[[str], Put]) -> None:
    """Whoever can't show to be AWS learns nothing of a conversation."""
    with FaultServer(TAKEN, tls=tls(trustme.CA())) as server, pytest.raises(aws.AwsRefused, match="^SSLError$"):
        aws.ask(putting(server.url), 2, Clock())

    assert server.requests == []


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer(500), "500"),
        (answer(307, b"", "Location: /elsewhere"), "307"),
        (close, "ProtocolError"),
        (reset, "ProtocolError"),
        ((TAKEN[:-1], close), "ProtocolError"),
    ],
)
def test_a_client_tries_once(putting: Callable[[str], Put], reply: Reply, kind: str) -> None:
    """Neither botocore nor urllib3 tries again or follows; what failed counts as not done, and is asked once more."""
    with FaultServer(reply) as server, pytest.raises(aws.AwsRefused, match=f"^{kind}$"):
        aws.ask(putting(server.url), 2, Clock())

    assert [request.path for request in server.requests] in (["/"], ["/", "/"])
    assert len(server.requests) == (1 if kind == "307" else 2)


def test_a_server_that_hangs_is_left(putting: Callable[[str], Put], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a caller gave up ends soon after by itself."""
    monkeypatch.setattr(aws, "READ_SECONDS", 0.2)
    with FaultServer(hang) as server, pytest.raises(aws.AwsRefused, match="^ReadTimeoutError$"):
        aws.ask(putting(server.url), 2, Clock())

    assert len(server.requests) == 2


def test_what_can_not_be_sent_is_not_tried_again(trust: Trust, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter that is wrong is wrong the second time, too."""
    clock = FakeClock()

    with pytest.raises(aws.AwsRefused, match="^ParamValidationError$"):
        aws.ask(lambda: aws.client("events", trust).put_events(Entries=[{"Source": 1}]), 2, clock)

    assert clock.slept == []


def test_an_unreachable_server_is_told_by_kind(putting: Callable[[str], Put]) -> None:
    """The operator reads what went wrong, and no address."""
    with unused_port() as port, pytest.raises(aws.AwsRefused, match="^NewConnectionError$"):
        aws.ask(putting(f"http://127.0.0.1:{port}"), 2, Clock())
