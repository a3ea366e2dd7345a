"""The fault table: whatever Tavus and the network do, the result is correct and in time, and no request is unnecessary.

The client is the real one. Tests in which nothing hangs have a fake clock and ample time. The others have little time.
"""

from __future__ import annotations

import gzip
import logging
import socket
import ssl
import threading
import time
import tracemalloc
from datetime import timedelta
from logging.handlers import BufferingHandler
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from end_conversation import tavus
from end_conversation.conversation import Conversation, Result
from end_conversation.deadline import Clock, Deadline
from end_conversation.settings import Origin
from end_conversation.tavus import (
    MAX_ATTEMPTS,
    MAX_BODY_BYTES,
    MAX_IDLE_SECONDS,
    TavusClient,
    TavusConnection,
)
from end_conversation.trust import Trust
from tests.unit.fakes import FakeClock
from tests.unit.fault_server import (
    FaultServer,
    Reply,
    Request,
    answer,
    close,
    drip,
    endlessly,
    full_port,
    hang,
    reset,
    serving_tls,
    unused_port,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.unit.fault_server import Step

AMPLE_SECONDS = 12
# By a real clock, an attempt that hangs leaves too little time for another one. By a fake clock, it costs no time.
SHORT_SECONDS = 0.3
# Two attempts that hang leave too little time for a third one. Connections that hang leave enough.
CONNECT_SECONDS = 0.6
# For a machine that is busy.
SLACK_SECONDS = 1
WORKER_SECONDS = 3

PATH = "/v2/deployments/d1/conversations/c1/end"
ENDED_BODY = b'{"conversation_id": "c1", "status": "ended"}'
ENDED = answer(200, ENDED_BODY)
ENDED_KEPT = answer(200, ENDED_BODY, keep=True)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def create_client(url: str, clock: Clock, tls: ssl.SSLContext = TRUSTS_NOBODY) -> TavusClient:
    """Compose the client as bootstrap does, but without jitter."""
    connection = TavusConnection(Origin.parse(url), {"User-Agent": "end-conversation/1"}, Trust(tls), clock)
    return TavusClient(connection.post, clock, lambda low, _: low)


def end(client: TavusClient, clock: Clock, seconds: float = AMPLE_SECONDS, conversation_id: str = "c1") -> Result:
    """End a conversation within this many seconds."""
    start = time.monotonic()
    result = client.end_conversation(Conversation("d1", conversation_id), Deadline(clock, seconds, reserve=0))
    assert time.monotonic() - start < seconds + SLACK_SECONDS
    return result


def end_at(
    url: str, clock: Clock | None = None, seconds: float = AMPLE_SECONDS, tls: ssl.SSLContext = TRUSTS_NOBODY
) -> Result:
    """End conversation c1 with a new client."""
    clock = clock or FakeClock()
    return end(create_client(url, clock, tls), clock, seconds)


def describe(result: Result) -> str:
    """The status, with the reason after a slash."""
    return "/".join(filter(None, (result.status, result.reason)))


@pytest.fixture(autouse=True)
def _short_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let attempts have less than a second, so that these tests are fast."""
    monkeypatch.setattr(tavus, "MIN_ATTEMPT_SECONDS", 0.25)


@pytest.fixture(autouse=True)
def _no_worker_stays() -> Iterator[None]:
    """Assert that every abandoned thread ends by itself."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(WORKER_SECONDS)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def trusting(ca_bundle: str) -> ssl.SSLContext:
    """The TLS context of a client that trusts the test authority only."""
    return ssl.create_default_context(cafile=ca_bundle)


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serving(scheme: str, authority: trustme.CA) -> ssl.SSLContext | None:
    """The TLS context of a server with that scheme."""
    return None if scheme == "http" else serving_tls(authority)


def test_the_request_is_as_tavus_documents_it() -> None:
    """One POST to the documented path, without a body and without a key."""
    with FaultServer(ENDED) as server:
        result = end_at(server.url)

    assert describe(result) == "ended"
    headers = {
        "host": f"127.0.0.1:{server.port}",
        "accept-encoding": "identity",
        "content-length": "0",
        "user-agent": "end-conversation/1",
    }
    assert server.requests == [Request("POST", PATH, headers)]


@pytest.mark.parametrize(
    ("status", "expected", "attempts"),
    [
        *((status, "unconfirmed/unexpected_answer", 1) for status in (201, 202, 204, 226)),
        *((status, "rejected/tavus_rejected", 1) for status in (300, 304, 400, 401, 403, 409, 499, 501, 505)),
        *((status, "not_found", 1) for status in (404, 410)),
        *((status, "unavailable/tavus_throttled", MAX_ATTEMPTS) for status in (423, 429)),
        *((status, "unavailable/tavus_error", MAX_ATTEMPTS) for status in (408, 425, 500, 502, 503, 504, 506, 599)),
        *((status, "unavailable/tavus_unreachable", MAX_ATTEMPTS) for status in (101, 600, 999)),
    ],
)
def test_each_status_has_its_result(status: int, expected: str, attempts: int) -> None:
    """Tavus is called again only where that can help. test_decision.py has all statuses."""
    with FaultServer(answer(status)) as server:
        result = end_at(server.url)

    assert (describe(result), result.attempts, len(server.requests)) == (expected, attempts, attempts)
    assert result.tavus_status_code == (None if expected == "unavailable/tavus_unreachable" else status)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with FaultServer(ENDED) as target, FaultServer(answer(status, b"", f"Location: {target.url}{PATH}")) as server:
        result = end_at(server.url)

    assert (describe(result), len(server.requests), target.connections) == ("rejected/tavus_rejected", 1, 0)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{}", id="empty object"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[" + ENDED_BODY + b"]", id="array"),
        pytest.param(b'{"conversation_id": "c1", "status": "Ended"}', id="other case"),
        pytest.param(b'{"conversation_id": "c1", "status": ["ended"]}', id="status in an array"),
        pytest.param(b'{"conversation_id": "c1"}', id="no status"),
        pytest.param(b'{"status": "ended"}', id="no id"),
        pytest.param(b'{"conversation_id": "c2", "status": "ended"}', id="other id"),
        pytest.param(b'{"data": ' + ENDED_BODY + b"}", id="one level down"),
        pytest.param(b"\xef\xbb\xbf" + ENDED_BODY, id="BOM"),
        pytest.param(ENDED_BODY[:-1] + b', "x": "\xff"}', id="not UTF-8"),
        pytest.param(ENDED_BODY[:-1] + b', "x": NaN}', id="NaN"),
        pytest.param(ENDED_BODY[:-1] + b', "x": ' + b"9" * 5000 + b"}", id="5,000 digits"),
        pytest.param(ENDED_BODY[:-1] + b', "status": "ended"}', id="duplicate status"),
        pytest.param(b'{"conversation_id": "c2", ' + ENDED_BODY[1:], id="duplicate id"),
        pytest.param(ENDED_BODY[:-1] + b', "x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", id="deep nesting"),
        pytest.param(ENDED_BODY[:-1], id="cut"),
        pytest.param(ENDED_BODY.ljust(MAX_BODY_BYTES + 1), id="one byte too large"),
    ],
)
def test_body_confirms_nothing(body: bytes) -> None:
    with FaultServer(answer(200, body)) as server:
        result = end_at(server.url)

    assert (describe(result), result.attempts, len(server.requests)) == ("unconfirmed/unexpected_answer", 1, 1)
    assert result.tavus_status_code == 200


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(
            answer(200, b' {"status":"ended",\r\n "conversation_id":"c1"}\n'), "ended", id="spacing and order"
        ),
        pytest.param(answer(200, ENDED_BODY[:-1] + b', "more": [{}]}'), "ended", id="more members"),
        pytest.param(answer(200, ENDED_BODY.replace(b"c1", b"\\u00631")), "ended", id="escaped"),
        pytest.param(answer(200, ENDED_BODY.ljust(MAX_BODY_BYTES)), "ended", id="as large as allowed"),
        pytest.param(ENDED.replace(b"1.1", b"1.0"), "ended", id="HTTP/1.0"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + ENDED, "ended", id="100 before it"),
        pytest.param((b"HTTP/1.1 200 OK\r\n\r\n" + ENDED_BODY, close), "ended", id="body ended by closing"),
        pytest.param(CHUNKED + b"2c\r\n" + ENDED_BODY + b"\r\n0\r\n\r\n", "ended", id="one chunk"),
        pytest.param(CHUNKED + b"2c;a=b\r\n" + ENDED_BODY + b"\r\n0\r\nA: b\r\n\r\n", "ended", id="extension, trailer"),
        pytest.param(answer(200, ENDED_BODY, "X-Long: " + "x" * 60_000), "ended", id="long header"),
        pytest.param(ENDED.replace(b"\r\n\r\n", b"\r\nno colon\r\n\r\n"), "ended", id="header without a colon"),
        pytest.param(ENDED + answer(404), "ended", id="second answer after it"),
        pytest.param(
            answer(200, gzip.compress(ENDED_BODY), "Content-Encoding: gzip"),
            "unconfirmed/unexpected_answer",
            id="unrequested gzip",
        ),
        pytest.param(answer(404, b"", "Retry-After: 1", "Location: /"), "not_found", id="misplaced headers"),
    ],
)
def test_unusual_valid_answers_are_accepted(
    serving: ssl.SSLContext | None, trusting: ssl.SSLContext, reply: Reply, expected: str
) -> None:
    with FaultServer(reply, tls=serving) as server:
        result = end_at(server.url, tls=trusting)

    assert (describe(result), len(server.requests)) == (expected, 1)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(close, id="closed before the answer"),
        pytest.param(reset, id="reset before the answer"),
        pytest.param((b"HTTP/1.", close), id="closed in the status line"),
        pytest.param((b"HTTP/1.1 200 OK\r\nContent-", reset), id="reset in the headers"),
        pytest.param((b"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n", close), id="closed after the headers"),
        pytest.param((b"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n", reset), id="reset after the headers"),
        pytest.param((ENDED[:-1], close), id="short body"),
        pytest.param((ENDED[:-1], reset), id="reset in the body"),
        pytest.param((answer(404, b"gone")[:-1], close), id="short body of a 404"),
        pytest.param((CHUNKED + b"2c\r\n" + ENDED_BODY, close), id="closed in a chunk"),
        pytest.param((CHUNKED + b"2c\r\n" + ENDED_BODY + b"\r\n", close), id="closed between chunks"),
        pytest.param(CHUNKED + b"forty\r\n" + ENDED_BODY, id="chunk size that is no number"),
        pytest.param((CHUNKED + b"-5\r\n" + ENDED_BODY, close), id="negative chunk size"),
        pytest.param(answer(200, ENDED_BODY, "Content-Length: 7", keep=True), id="two lengths"),
        pytest.param((b"SSH-2.0-OpenSSH_9.9\r\n", close), id="not HTTP"),
        pytest.param((b"\x00\xff\r\n\r\n", close), id="not even text"),
        pytest.param(ENDED.replace(b"HTTP/1.1", b"HTTP/2"), id="another HTTP"),
        pytest.param(b"HTTP/1.1 ok\r\n\r\n", id="status that is no number"),
        pytest.param(b"HTTP/1.1 42 Short\r\n\r\n", id="status of two digits"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n" + ENDED, id="interim response"),
        pytest.param(b"HTTP/1.1 " + b"2" * 70_000, id="status line over 64 KiB"),
        pytest.param(answer(200, ENDED_BODY, "X-Long: " + "x" * 70_000), id="header line over 64 KiB"),
        pytest.param(answer(200, ENDED_BODY, *["X-Many: 1"] * 10_000), id="10,000 headers"),
    ],
)
def test_broken_answers_are_retried(serving: ssl.SSLContext | None, trusting: ssl.SSLContext, reply: Reply) -> None:
    with FaultServer(reply, tls=serving) as server:
        result = end_at(server.url, tls=trusting)

    assert describe(result) == "unavailable/tavus_unreachable"
    assert (result.attempts, len(server.requests), result.may_have_ended) == (MAX_ATTEMPTS, MAX_ATTEMPTS, True)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(hang, id="no answer"),
        pytest.param(drip(ENDED, every=0.02), id="dripped headers"),
        pytest.param((ENDED[:-40], drip(ENDED[-40:], every=0.02)), id="dripped body"),
        pytest.param((CHUNKED, endlessly(b"1\r\n \r\n", every=0.02)), id="dripped chunks"),
        pytest.param(endlessly(b"HTTP/1.1 100 Continue\r\n\r\n", every=0.01), id="100 flood"),
        pytest.param((CHUNKED + b"0\r\n", endlessly(b"X-Trailer: 1\r\n", every=0.01)), id="endless trailers"),
        pytest.param((ENDED[:-1], hang), id="last byte missing"),
        pytest.param((b"HTTP/1.1 200 OK\r\n\r\n" + ENDED_BODY, hang), id="body without an end"),
    ],
)
def test_slow_answers_are_abandoned(serving: ssl.SSLContext | None, trusting: ssl.SSLContext, reply: Reply) -> None:
    """The first call does the handshake, which can take too long on a busy machine."""
    clock = Clock()
    with FaultServer(ENDED_KEPT, reply, tls=serving) as server:
        client = create_client(server.url, clock, trusting)
        end(client, clock)
        result = end(client, clock, SHORT_SECONDS)

    assert describe(result) == "unavailable/tavus_timeout"
    assert (result.attempts, result.may_have_ended) == (1, True)
    assert (len(server.requests), server.connections) == (2, 1)


def test_an_unreachable_host_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses connections, or its name is unknown."""

    def fail(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown name")

    with unused_port() as port:
        results = [end_at(f"http://127.0.0.1:{port}")]
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    results.append(end_at("https://tavus.test"))

    for result in results:
        assert describe(result) == "unavailable/tavus_unreachable"
        assert (result.attempts, result.may_have_ended) == (MAX_ATTEMPTS, False)


def resolve(monkeypatch: pytest.MonkeyPatch, *ports: int, wait: Callable[[], object] = lambda: None) -> None:
    """Let each host have one address for each of these ports on this machine. Resolving it takes as long as `wait`."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port)) for port in ports]

    def getaddrinfo(*_: object) -> list[Any]:
        wait()
        return found

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_hanging_resolver(
    scheme: str, authority: trustme.CA, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over https, the worker may still complete the TLS handshake, but it sends no request."""
    awake = threading.Event()
    workers: list[threading.Thread] = []

    def wait() -> None:
        workers.append(threading.current_thread())
        awake.wait()

    serving = serving_tls(authority, host="tavus.test") if scheme == "https" else None
    with FaultServer(ENDED, tls=serving) as server:
        resolve(monkeypatch, server.port, wait=wait)
        result = end_at(f"{scheme}://tavus.test", Clock(), SHORT_SECONDS, trusting)
        awake.set()
        for worker in workers:
            worker.join(WORKER_SECONDS)

    assert describe(result) == "unavailable/tavus_timeout"
    assert (result.attempts, len(workers), result.may_have_ended) == (1, 1, False)
    assert workers[0].daemon, "an abandoned worker must not keep the process alive"
    assert server.requests == []
    assert scheme == "https" or server.received == 0


@pytest.fixture(scope="module")
def dead_port() -> Iterator[int]:
    """A port on which connecting hangs, as with an address that drops every SYN."""
    with full_port() as port:
        yield port


def test_connecting_to_a_dead_address_is_given_up_early(dead_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit for connecting does not grow with the time that is left."""
    assert tavus.MAX_CONNECT_SECONDS <= 2
    monkeypatch.setattr(tavus, "MAX_CONNECT_SECONDS", 0.1)
    with FaultServer(ENDED) as server:
        resolve(monkeypatch, dead_port, server.port)
        start = time.monotonic()
        result = end_at("http://tavus.test", Clock(), 10 * AMPLE_SECONDS)

    assert time.monotonic() - start < AMPLE_SECONDS / 4
    assert (describe(result), result.attempts, len(server.requests)) == ("ended", 1, 1)


@pytest.mark.parametrize("others", ["dead, dead", "dead, refused", "refused, dead", "refused, refused"])
def test_a_host_is_reached_through_its_last_address(
    others: str, dead_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer(ENDED) as server, unused_port() as refused_port:
        ports = {"dead": dead_port, "refused": refused_port}
        resolve(monkeypatch, *(ports[kind] for kind in others.split(", ")), server.port)
        result = end_at("http://tavus.test", Clock(), CONNECT_SECONDS)

    assert (describe(result), result.attempts, len(server.requests)) == ("ended", 1, 1)


def test_a_host_with_a_dead_address_is_reached_over_tls(
    authority: trustme.CA, trusting: ssl.SSLContext, dead_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer(ENDED, tls=serving_tls(authority, host="tavus.test")) as server:
        resolve(monkeypatch, dead_port, server.port)
        result = end_at("https://tavus.test", Clock(), 3 * CONNECT_SECONDS, trusting)

    assert (describe(result), result.attempts, len(server.requests)) == ("ended", 1, 1)


def test_a_host_with_dead_addresses_only_is_retried(dead_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, dead_port, dead_port)
    result = end_at("http://tavus.test", seconds=SHORT_SECONDS)

    assert describe(result) == "unavailable/tavus_timeout"
    assert (result.attempts, result.may_have_ended) == (MAX_ATTEMPTS, False)


def test_nothing_is_sent_to_an_address_reached_too_late(dead_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dead addresses before it take longer than the attempt may."""
    with FaultServer(ENDED) as server:
        resolve(monkeypatch, *[dead_port] * 6, server.port)
        result = end_at("http://tavus.test", Clock(), SHORT_SECONDS)
        for thread in threading.enumerate():
            if thread.daemon:
                thread.join(WORKER_SECONDS)

    assert describe(result) == "unavailable/tavus_timeout"
    assert (result.attempts, server.connections, server.received, result.may_have_ended) == (1, 1, 0, False)


def test_dead_address_and_hanging_handshake(dead_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(greeting=hang) as server:
        resolve(monkeypatch, dead_port, server.port)
        result = end_at("https://tavus.test", Clock(), CONNECT_SECONDS)

    assert describe(result) == "unavailable/tavus_timeout"
    assert (result.attempts, server.connections, result.may_have_ended) == (MAX_ATTEMPTS, MAX_ATTEMPTS, False)
    assert server.requests == []


def refuse_threads(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let the client's next threads fail to start, as when the process may have no more of them."""
    failures = iter(range(count))

    class Refused(threading.Thread):
        def start(self) -> None:
            if next(failures, None) is not None:
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr("end_conversation.deadline.Thread", Refused)


def test_without_threads_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_threads(monkeypatch, MAX_ATTEMPTS)
    with FaultServer(ENDED) as server:
        result = end_at(server.url)

    assert (describe(result), result.failure) == ("unavailable/tavus_unreachable", "ThreadNotStarted")
    assert (result.attempts, server.connections, result.may_have_ended) == (MAX_ATTEMPTS, 0, False)


def test_an_attempt_without_a_thread_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is retried, and has not ended the conversation."""
    clock = FakeClock()
    with FaultServer(ENDED_KEPT, answer(404)) as server:
        client = create_client(server.url, clock)
        end(client, clock)
        refuse_threads(monkeypatch, 1)
        result = end(client, clock)

    assert (describe(result), result.attempts) == ("not_found", 2)
    assert (len(server.requests), server.connections) == (2, 2)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param([answer(503), ENDED], "ended", id="503, 200"),
        pytest.param([hang, ENDED], "ended", id="no answer, 200"),
        pytest.param([reset, close, ENDED], "ended", id="reset, closed, 200"),
        pytest.param([answer(500), answer(200)], "unconfirmed/unexpected_answer", id="500, 200 without a body"),
        pytest.param([answer(425), answer(404)], "not_found", id="425, 404"),
        pytest.param([answer(429), answer(423), answer(409)], "rejected/tavus_rejected", id="429, 423, 409"),
        pytest.param([reset, answer(404)], "unconfirmed/earlier_attempt", id="reset, 404"),
        pytest.param([hang, answer(404)], "unconfirmed/earlier_attempt", id="no answer, 404"),
        pytest.param([(ENDED[:-1], close), answer(403)], "unconfirmed/earlier_attempt", id="short body, 403"),
        pytest.param([answer(500), answer(302)], "unconfirmed/earlier_attempt", id="500, 302"),
        pytest.param([reset, answer(429), answer(404)], "unconfirmed/earlier_attempt", id="reset, 429, 404"),
        pytest.param([answer(425), answer(500), answer(403)], "unconfirmed/earlier_attempt", id="425, 500, 403"),
        pytest.param([reset, answer(503), answer(429)], "unavailable/tavus_throttled", id="reset, 503, 429"),
        pytest.param([answer(429), answer(503), reset], "unavailable/tavus_unreachable", id="429, 503, reset"),
        pytest.param([reset, answer(429), answer(500)], "unavailable/tavus_error", id="reset, 429, 500"),
        pytest.param([hang] * 3, "unavailable/tavus_timeout", id="no answer three times"),
    ],
)
def test_the_last_attempt_decides(script: list[Reply], expected: str) -> None:
    """The last answer counts, given what the attempts before it may have done.

    Tavus may refuse a later request because an earlier one ended the conversation.
    """
    with FaultServer(*script) as server:
        result = end_at(server.url, seconds=SHORT_SECONDS if hang in script else AMPLE_SECONDS)

    assert (describe(result), result.attempts, len(server.requests)) == (expected, len(script), len(script))
    if result.status == "unavailable":
        assert result.may_have_ended


def http_date(seconds: float, form: str = "%a, %d %b %Y %H:%M:%S GMT") -> str:
    """The date this many seconds after the start of a FakeClock."""
    return (FakeClock().now() + timedelta(seconds=seconds)).strftime(form)


@pytest.mark.parametrize(
    ("values", "waits", "retry_after"),
    [
        pytest.param(["0"], [0, 0], 0, id="0"),
        pytest.param(["1"], [1, 1], 1, id="1"),
        pytest.param(["9"], [9], 9, id="9, fits once"),
        pytest.param(["10"], [], 10, id="10, all the time"),
        pytest.param(["3600"], [], 3600, id="3600"),
        pytest.param(["9" * 400], [], float("inf"), id="400 digits"),
        pytest.param([http_date(3)], [3, 0], 0, id="near date"),
        pytest.param([http_date(3, "%A, %d-%b-%y %H:%M:%S GMT")], [3, 0], 0, id="near date, RFC 850"),
        pytest.param([http_date(3, "%a %b %e %H:%M:%S %Y")], [3, 0], 0, id="near date, asctime"),
        pytest.param([http_date(86400)], [], 86400, id="far date"),
        *(
            pytest.param(values, [0, 0], None, id=name)
            for name, values in {
                "none": [],
                "empty": [""],
                "1.5": ["1.5"],
                "-5": ["-5"],
                "+5": ["+5"],
                "abc": ["abc"],
                "superscript": ["\u00b2"],
                "past date": [http_date(-1)],
                "truncated date": ["Sun, 22 Nov 2026"],
                "year 10^20": ["Sun, 22 Nov 100000000000000000000 00:00:03 GMT"],
                "offset of years": ["Sun, 22 Nov 2026 00:00:03 +999999999999999"],
                "repeated": ["1", "3600"],
            }.items()
        ),
    ],
)
def test_retry_after(values: list[str], waits: list[float], retry_after: float | None) -> None:
    """Where it does not fit into the 10 seconds, no further attempt is made, and the result has it as `retry_after`."""
    clock = FakeClock()
    with FaultServer(answer(503, b"", *(f"Retry-After: {value}" for value in values))) as server:
        result = end_at(server.url, clock, seconds=10)

    assert describe(result) == "unavailable/tavus_error"
    assert (result.attempts, len(server.requests)) == (1 + len(waits), 1 + len(waits))
    assert clock.slept == [0, *waits]
    assert result.retry_after == retry_after


def test_an_answer_without_tls_is_not_retried(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    with FaultServer(lambda peer: peer.send_unprotected(ENDED), tls=serving_tls(authority)) as server:
        result = end_at(server.url, tls=trusting)

    assert (describe(result), result.attempts) == ("unavailable/tavus_unreachable", 1)
    assert (len(server.requests), result.may_have_ended) == (1, True)


def test_the_host_header_leaves_out_the_default_port(
    authority: trustme.CA, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer(ENDED, tls=serving_tls(authority, host="tavus.test")) as server:
        resolve(monkeypatch, server.port)
        result = end_at("https://tavus.test", tls=trusting)

    assert describe(result) == "ended"
    assert [request.headers["host"] for request in server.requests] == ["tavus.test"]


def test_a_server_with_a_bad_certificate_gets_no_request(trusting: ssl.SSLContext) -> None:
    """A second attempt would fail in the same way. test_trust.py has other bad certificates."""
    with FaultServer(ENDED, tls=serving_tls(trustme.CA())) as server:
        result = end_at(server.url, tls=trusting)

    assert (describe(result), result.attempts) == ("unavailable/tavus_unreachable", 1)
    assert (server.connections, server.requests, result.may_have_ended) == (1, [], False)


@pytest.mark.parametrize(
    ("greeting", "attempts"),
    [
        pytest.param((b"220 mail.test ESMTP\r\n", hang), 1, id="garbage"),
        pytest.param(close, MAX_ATTEMPTS, id="closed"),
        pytest.param(reset, MAX_ATTEMPTS, id="reset"),
    ],
)
def test_a_failed_handshake_has_not_ended_the_conversation(greeting: Reply, attempts: int) -> None:
    """Only a connection that was lost is tried again."""
    with FaultServer(greeting=greeting) as server:
        result = end_at(server.url.replace("http:", "https:"))

    assert (describe(result), result.attempts) == ("unavailable/tavus_unreachable", attempts)
    assert (server.connections, server.requests, result.may_have_ended) == (attempts, [], False)


@pytest.mark.parametrize(
    "greeting",
    [
        pytest.param(hang, id="no answer"),
        pytest.param(drip(b"\x16\x03\x03\x40\x00" + bytes(2**14), every=0.02), id="dripped"),
    ],
)
def test_slow_handshakes_are_abandoned_early(greeting: Reply) -> None:
    """The limit for connecting holds for the whole handshake, so that there is time for three attempts."""
    with FaultServer(greeting=greeting) as server:
        result = end_at(server.url.replace("http:", "https:"), Clock(), CONNECT_SECONDS)

    assert (describe(result), result.attempts) == ("unavailable/tavus_timeout", MAX_ATTEMPTS)
    assert (server.connections, server.requests, result.may_have_ended) == (MAX_ATTEMPTS, [], False)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param((b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n", endlessly(b" " * 2**14)), id="200 MB"),
        pytest.param((b"HTTP/1.1 200 OK\r\n\r\n", endlessly(b" " * 2**14)), id="no end"),
        pytest.param((CHUNKED, endlessly(b"400\r\n" + b" " * 2**10 + b"\r\n")), id="endless chunks"),
        pytest.param((CHUNKED + b"-1\r\n", endlessly(b" " * 2**14)), id="chunk of -1 bytes"),
        pytest.param(answer(200, gzip.compress(bytes(20_000_000)), "Content-Encoding: gzip"), id="gzip bomb"),
    ],
)
def test_large_answers_are_not_read(reply: Reply) -> None:
    tracemalloc.start()
    with FaultServer(reply) as server:
        result = end_at(server.url)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (describe(result), len(server.requests)) == ("unconfirmed/unexpected_answer", 1)
    assert server.sent < 2**20
    assert peak < 2**20


def test_calls_within_seconds_share_a_connection(serving: ssl.SSLContext | None, trusting: ssl.SSLContext) -> None:
    clock = FakeClock()
    with FaultServer(ENDED_KEPT, answer(404, keep=True), answer(503, keep=True), ENDED, tls=serving) as server:
        client = create_client(server.url, clock, trusting)
        results = []
        for _ in range(3):
            results.append(describe(end(client, clock)))
            clock.advance(MAX_IDLE_SECONDS)

    assert results == ["ended", "not_found", "ended"]
    assert (len(server.requests), server.connections) == (4, 1)


@pytest.mark.parametrize("seconds", [MAX_IDLE_SECONDS + 0.1, 3600, -1], ids=["just over", "an hour", "clock set back"])
def test_a_connection_is_not_reused_after_an_idle_time(seconds: float) -> None:
    """The sandbox may have been frozen, and the connection may be dead without a sign."""
    clock = FakeClock()
    with FaultServer(ENDED_KEPT, ENDED) as server:
        client = create_client(server.url, clock)
        end(client, clock)
        clock.advance(seconds)
        result = end(client, clock)

    assert (describe(result), result.attempts) == ("ended", 1)
    assert (len(server.requests), server.connections) == (2, 2)


@pytest.mark.parametrize("leave", [close, reset])
def test_a_connection_closed_while_idle_is_replaced_without_an_attempt(
    leave: Step, serving: ssl.SSLContext | None, trusting: ssl.SSLContext
) -> None:
    clock, answered, left = FakeClock(), threading.Event(), threading.Event()
    reply = (ENDED_KEPT, lambda _: answered.wait(), leave, lambda _: left.set())
    with FaultServer(reply, ENDED, tls=serving) as server:
        client = create_client(server.url, clock, trusting)
        end(client, clock)
        answered.set()
        left.wait()
        result = end(client, clock)

    assert (describe(result), result.attempts) == ("ended", 1)
    assert (len(server.requests), server.connections) == (2, 2)


@pytest.mark.parametrize(
    ("second", "third", "expected"),
    [
        pytest.param(reset, ENDED, "ended", id="reset, 200"),
        pytest.param(reset, answer(404), "unconfirmed/earlier_attempt", id="reset, 404"),
        pytest.param(hang, answer(404), "unconfirmed/earlier_attempt", id="no answer, 404"),
    ],
)
def test_a_kept_connection_that_dies_may_have_ended_the_conversation(
    second: Reply, third: Reply, expected: str
) -> None:
    """The next attempt uses a new connection."""
    clock = FakeClock()
    with FaultServer(ENDED_KEPT, second, third) as server:
        client = create_client(server.url, clock)
        end(client, clock)
        result = end(client, clock, SHORT_SECONDS)

    assert (describe(result), result.attempts) == (expected, 2)
    assert (len(server.requests), server.connections) == (3, 2)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(
            answer(200, b" " * (MAX_BODY_BYTES + 1), keep=True), "unconfirmed/unexpected_answer", id="too large"
        ),
        pytest.param(ENDED_KEPT + ENDED_KEPT, "ended", id="two answers to one request"),
        pytest.param(answer(404, b"", keep=True) + ENDED_KEPT, "not_found", id="another answer after it"),
    ],
)
def test_bytes_after_an_answer_are_not_the_next_answer(reply: Reply, expected: str) -> None:
    clock = FakeClock()
    with FaultServer(reply, answer(404)) as server:
        client = create_client(server.url, clock)
        results = [describe(end(client, clock)), describe(end(client, clock, conversation_id="c2"))]

    assert results == [expected, "not_found"]
    assert [request.path.split("/")[-2] for request in server.requests] == ["c1", "c2"]


@pytest.mark.parametrize("cut", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-", ENDED.partition(b"{")[0]])
def test_truncated_headers_never_mean_ended(cut: bytes) -> None:
    """http.client takes a truncated header block for a whole one (python/cpython#42550)."""
    with FaultServer((cut, close), answer(404)) as server:
        result = end_at(server.url)

    assert describe(result).startswith("unconfirmed/")


def test_nothing_of_an_answer_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the result nor urllib3's log quotes what the server sent."""
    log = BufferingHandler(capacity=100)
    monkeypatch.setattr(logging.getLogger(), "handlers", [log])
    monkeypatch.setattr(logging.getLogger("urllib3"), "propagate", True)
    with FaultServer(answer(503).replace(b"\r\n\r\n", b"\r\nhidden\r\n\r\n"), b"hidden\r\n") as server:
        result = end_at(server.url)

    assert (describe(result), result.failure) == ("unavailable/tavus_unreachable", "BadStatusLine")
    assert log.buffer == []
