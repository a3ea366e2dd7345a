"""The fault table: whatever Tavus and the network do, the client tells the truth, in time, and sends no more than that.

The client is the real one. Its clock is real where time is the point, and else one that only steps.
"""

from __future__ import annotations

import gzip
import logging
import socket
import threading
import time
import tracemalloc
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from logging.handlers import BufferingHandler
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from end_conversation.attempt import MAX_IDLE_SECONDS, Endpoint
from end_conversation.bootstrap import trust
from end_conversation.conversation import Conversation, Result
from end_conversation.deadline import Clock, Deadline
from end_conversation.errors import TavusUnavailable
from end_conversation.exchange import MAX_BODY_BYTES
from end_conversation.settings import Origin
from end_conversation.tavus import LEAST_SECONDS, MAX_ATTEMPTS, Tavus
from tests.fakes import FakeClock
from tests.fault_server import (
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
    import ssl
    from collections.abc import Callable, Iterator

    from tests.fault_server import Step

SECONDS = 1.5
ROOM_SECONDS = 1
WORKER_SECONDS = 3

PATH = "/v2/deployments/d1/conversations/c1/end"
ENDED_BODY = b'{"conversation_id": "c1", "status": "ended"}'
ENDED = answer(200, ENDED_BODY)
ENDED_KEPT = answer(200, ENDED_BODY, keep=True)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Told:
    """What the client told: a status, with its reason behind a slash, or the reason alone of what Tavus left open."""

    outcome: Result | TavusUnavailable
    seconds: float

    def __str__(self) -> str:
        if isinstance(self.outcome, TavusUnavailable):
            return str(self.outcome.reason)
        return "/".join(filter(None, (self.outcome.status, self.outcome.reason)))

    @property
    def attempts(self) -> int:
        return self.outcome.attempts


def client(url: str, clock: Clock) -> Tavus:
    """The client as bootstrap composes it, but for jitter, which is none."""
    tls = trust("SSL_CERT_FILE", None)
    endpoint = Endpoint(Origin.parse(url), {"User-Agent": "end-conversation/1"}, tls, clock)
    return Tavus(endpoint.post, clock, lambda least, _: least)


def end(tavus: Tavus, clock: Clock, seconds: float = SECONDS, conversation_id: str = "c1") -> Told:
    begun = time.monotonic()
    outcome: Result | TavusUnavailable
    try:
        outcome = tavus.end(Conversation("d1", conversation_id), Deadline(clock, seconds, reserve=0))
    except TavusUnavailable as unavailable:
        outcome = unavailable
    return Told(outcome, time.monotonic() - begun)


def ask(url: str, clock: Clock | None = None, seconds: float = SECONDS) -> Told:
    """What a new client tells of conversation c1, having asked within so many seconds."""
    clock = clock or FakeClock()
    told = end(client(url, clock), clock, seconds)
    assert told.seconds < SECONDS + ROOM_SECONDS
    return told


@pytest.fixture(autouse=True)
def _no_worker_stays() -> Iterator[None]:
    """Every thread that was given up ends by itself."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(WORKER_SECONDS)
        assert not thread.is_alive()


def test_the_request_is_as_tavus_documents_it() -> None:
    """One POST to the documented path, without a body and without a key."""
    with FaultServer(ENDED) as server:
        told = ask(server.url)

    assert str(told) == "ended"
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
        *((status, "rejected/tavus_rejected", 1) for status in (300, 301, 302, 303, 304, 307, 308)),
        *((status, "rejected/tavus_rejected", 1) for status in (400, 401, 402, 403, 405, 409, 422, 426, 451, 499)),
        *((status, "not_found", 1) for status in (404, 410)),
        *((status, "tavus_throttled", MAX_ATTEMPTS) for status in (423, 429)),
        *((status, "tavus_error", MAX_ATTEMPTS) for status in (408, 425, 500, 502, 503, 504, 506, 599)),
        *((status, "rejected/tavus_rejected", 1) for status in (501, 505)),
        *((status, "tavus_unreachable", MAX_ATTEMPTS) for status in (101, 600, 999)),
    ],
)
def test_status(status: int, expected: str, attempts: int) -> None:
    """A status without a body means what the contract says, and only where it may pass is Tavus asked again."""
    with FaultServer(answer(status)) as server:
        told = ask(server.url)

    assert (str(told), told.attempts, len(server.requests)) == (expected, attempts, attempts)
    assert told.outcome.tavus_status_code == (None if expected == "tavus_unreachable" else status)


def test_a_success_other_than_200_may_say_ended_too() -> None:
    """What the body says counts, whichever 2xx carries it."""
    with FaultServer(answer(202, ENDED_BODY)) as server:
        assert str(ask(server.url)) == "ended"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is a refusal; where it leads to is never asked."""
    with FaultServer(ENDED) as target, FaultServer(answer(status, b"", f"Location: {target.url}{PATH}")) as server:
        told = ask(server.url)

    assert (str(told), len(server.requests), target.connections) == ("rejected/tavus_rejected", 1, 0)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(ENDED_BODY, id="plain"),
        pytest.param(b' {"status":"ended",\r\n "conversation_id":"c1"}\n', id="other spacing and order"),
        pytest.param(b'{"conversation_id": "c1", "status": "ended", "more": [{}]}', id="more members"),
        pytest.param(b'{"conversation_id": "\\u00631", "status": "ended"}', id="escaped"),
        pytest.param(ENDED_BODY.ljust(MAX_BODY_BYTES), id="just not too large"),
    ],
)
def test_a_body_that_says_ended(body: bytes) -> None:
    """A 200 that names the conversation and says `ended` is believed."""
    with FaultServer(answer(200, body)) as server:
        told = ask(server.url)

    assert (str(told), len(server.requests)) == ("ended", 1)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{}", id="empty object"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"ended"', id="string"),
        pytest.param(b"[" + ENDED_BODY + b"]", id="array"),
        pytest.param(b"<html><title>ended</title></html>", id="HTML"),
        pytest.param(b'{"conversation_id": "c1", "status": "Ended"}', id="other case"),
        pytest.param(b'{"conversation_id": "c1", "status": "ended "}', id="space behind"),
        pytest.param(b'{"conversation_id": "c1", "status": "active"}', id="active"),
        pytest.param(b'{"conversation_id": "c1", "status": ["ended"]}', id="status in an array"),
        pytest.param(b'{"conversation_id": "c1", "status": true}', id="status true"),
        pytest.param(b'{"conversation_id": "c1"}', id="no status"),
        pytest.param(b'{"status": "ended"}', id="no id"),
        pytest.param(b'{"conversation_id": "c2", "status": "ended"}', id="other id"),
        pytest.param(b'{"conversation_id": "C1", "status": "ended"}', id="id in other case"),
        pytest.param(b'{"conversation_id": null, "status": "ended"}', id="id null"),
        pytest.param(b'{"data": ' + ENDED_BODY + b"}", id="one level down"),
        pytest.param(b"\xef\xbb\xbf" + ENDED_BODY, id="BOM"),
        pytest.param(ENDED_BODY.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(ENDED_BODY[:-1] + b', "x": "\xff"}', id="not UTF-8"),
        pytest.param(ENDED_BODY[:-1] + b', "x": NaN}', id="NaN"),
        pytest.param(ENDED_BODY[:-1] + b', "x": -Infinity}', id="infinity"),
        pytest.param(ENDED_BODY[:-1] + b', "x": ' + b"9" * 5000 + b"}", id="5,000 digits"),
        pytest.param(ENDED_BODY[:-1] + b', "status": "ended"}', id="duplicate status"),
        pytest.param(b'{"conversation_id": "c2", ' + ENDED_BODY[1:], id="duplicate id"),
        pytest.param(ENDED_BODY[:-1] + b', "x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", id="deep nesting"),
        pytest.param(ENDED_BODY + ENDED_BODY, id="twice"),
        pytest.param(ENDED_BODY[:-1], id="cut"),
        pytest.param(ENDED_BODY.ljust(MAX_BODY_BYTES + 1), id="one byte too large"),
    ],
)
def test_a_body_that_does_not_say_ended(body: bytes) -> None:
    """Any other 200 confirms nothing, and asking again would not either."""
    with FaultServer(answer(200, body)) as server:
        told = ask(server.url)

    assert (str(told), told.attempts, len(server.requests)) == ("unconfirmed/unexpected_answer", 1, 1)
    assert told.outcome.tavus_status_code == 200


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(ENDED.replace(b"1.1", b"1.0"), "ended", id="HTTP/1.0"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + ENDED, "ended", id="100 before it"),
        pytest.param(b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + ENDED, "ended", id="102s before it"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ENDED, "ended", id="103 before it"),
        pytest.param(b"HTTP/1.1 199 Unheard Of\r\n\r\n" + ENDED, "ended", id="199 before it"),
        pytest.param((b"HTTP/1.1 200 OK\r\n\r\n" + ENDED_BODY, close), "ended", id="ended by closing"),
        pytest.param(CHUNKED + b"2c\r\n" + ENDED_BODY + b"\r\n0\r\n\r\n", "ended", id="one chunk"),
        pytest.param(CHUNKED + b"2c;a=b\r\n" + ENDED_BODY + b"\r\n0\r\nA: b\r\n\r\n", "ended", id="extension, trailer"),
        pytest.param(answer(200, ENDED_BODY, "X-Long: " + "x" * 60_000), "ended", id="long header"),
        pytest.param(ENDED.replace(b"\r\n\r\n", b"\r\nno colon\r\n\r\n"), "ended", id="header without a colon"),
        pytest.param(ENDED + answer(404), "ended", id="another answer behind it"),
        pytest.param(
            answer(200, gzip.compress(ENDED_BODY), "Content-Encoding: gzip"),
            "unconfirmed/unexpected_answer",
            id="gzip that nobody asked for",
        ),
        pytest.param(
            answer(404, b"", "Retry-After: 1", "Location: /"), "not_found", id="headers that belong elsewhere"
        ),
    ],
)
def test_odd_but_whole(reply: Reply, expected: str) -> None:
    """An answer that is whole counts, however oddly it is put."""
    with FaultServer(reply) as server:
        told = ask(server.url)

    assert (str(told), len(server.requests)) == (expected, 1)


BROKEN = [
    pytest.param(close, id="closed before the answer"),
    pytest.param(reset, id="reset before the answer"),
    pytest.param((b"HTTP/1.", close), id="closed in the status line"),
    pytest.param((b"HTTP/1.1 200 OK\r\nContent-", reset), id="reset in the headers"),
    pytest.param((b"HTTP/1.1 200 OK\r\nContent-", close), id="closed in a header"),
    pytest.param((b"HTTP/1.1 404 Gone\r\n", close), id="closed between headers"),
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
    pytest.param(b"HTTP/1.1 " + b"2" * 70_000, id="status line over 64 KiB"),
    pytest.param(answer(200, ENDED_BODY, "X-Long: " + "x" * 70_000), id="header line over 64 KiB"),
    pytest.param(answer(200, ENDED_BODY, *["X-Many: 1"] * 10_000), id="10,000 headers"),
]


@pytest.mark.parametrize("reply", BROKEN)
def test_broken(reply: Reply) -> None:
    """What is no whole answer is none: Tavus is asked again, and each request may have ended the conversation."""
    with FaultServer(reply) as server:
        told = ask(server.url)

    assert (str(told), told.attempts, len(server.requests)) == ("tavus_unreachable", MAX_ATTEMPTS, MAX_ATTEMPTS)
    assert isinstance(told.outcome, TavusUnavailable)
    assert told.outcome.may_have_ended


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(hang, id="no answer"),
        pytest.param(drip(ENDED), id="dripped headers"),
        pytest.param((ENDED[:-40], drip(ENDED[-40:])), id="dripped body"),
        pytest.param((CHUNKED, endlessly(b"1\r\n \r\n", every=0.02)), id="dripped chunks"),
        pytest.param(endlessly(b"HTTP/1.1 100 Continue\r\n\r\n", every=0.01), id="100 flood"),
        pytest.param(endlessly(b"HTTP/1.1 103 Early Hints\r\n\r\n", every=0.01), id="103 flood"),
        pytest.param((CHUNKED + b"0\r\n", endlessly(b"X-Trailer: 1\r\n", every=0.01)), id="endless trailers"),
        pytest.param((ENDED[:-1], hang), id="last byte missing"),
        pytest.param((b"HTTP/1.1 200 OK\r\n\r\n" + ENDED_BODY, hang), id="body without an end"),
    ],
)
def test_too_slow(reply: Reply) -> None:
    """However an answer is drawn out, each attempt is given up at its share of the deadline."""
    with FaultServer(reply) as server:
        told = ask(server.url, Clock())

    assert (str(told), told.attempts, len(server.requests)) == ("tavus_timeout", MAX_ATTEMPTS, MAX_ATTEMPTS)
    assert isinstance(told.outcome, TavusUnavailable)
    assert told.outcome.may_have_ended


@pytest.mark.parametrize("seconds", [0, LEAST_SECONDS / 2])
def test_no_time(seconds: float) -> None:
    """With too little time left nothing is sent, so nothing can have ended."""
    with FaultServer(ENDED) as server:
        told = ask(server.url, seconds=seconds)

    assert (str(told), told.attempts, server.connections) == ("tavus_timeout", 0, 0)


def test_refused() -> None:
    """A refused connection is tried again; nothing was sent on it."""
    with unused_port() as port:
        told = ask(f"http://127.0.0.1:{port}")

    assert (str(told), told.attempts) == ("tavus_unreachable", MAX_ATTEMPTS)
    assert isinstance(told.outcome, TavusUnavailable)
    assert not told.outcome.may_have_ended


def test_connecting_hangs() -> None:
    """A host that never accepts is given up in time; nothing was sent to it."""
    with full_port() as port:
        told = ask(f"http://127.0.0.1:{port}", Clock())

    assert (str(told), told.attempts) == ("tavus_timeout", MAX_ATTEMPTS)
    assert isinstance(told.outcome, TavusUnavailable)
    assert not told.outcome.may_have_ended


def test_dns_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that can't be resolved is tried again."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    told = ask("https://tavus.test")

    assert (str(told), told.attempts) == ("tavus_unreachable", MAX_ATTEMPTS)
    assert isinstance(told.outcome, TavusUnavailable)
    assert not told.outcome.may_have_ended


def resolve_late(monkeypatch: pytest.MonkeyPatch, wait: Callable[[], object]) -> list[threading.Thread]:
    """Let each name be resolved to this machine, but not before a wait; the threads that do."""
    workers: list[threading.Thread] = []

    def resolve(_: str, port: int, *__: object) -> list[Any]:
        workers.append(threading.current_thread())
        wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return workers


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_dns_hangs(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging resolver is given up in time, and nothing is sent once it wakes up, no TLS greeting either."""
    awake = threading.Event()
    workers = resolve_late(monkeypatch, awake.wait)
    with FaultServer(ENDED) as server:
        told = ask(f"{scheme}://localhost:{server.port}", Clock())
        awake.set()
        for worker in workers:
            worker.join(WORKER_SECONDS)

    assert (str(told), told.attempts, len(workers)) == ("tavus_timeout", MAX_ATTEMPTS, MAX_ATTEMPTS)
    assert server.received == 0
    assert isinstance(told.outcome, TavusUnavailable)
    assert not told.outcome.may_have_ended


@pytest.mark.parametrize("first", [423, 425, 429])
@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (200, "unconfirmed/unexpected_answer"),
        (400, "rejected/tavus_rejected"),
        (404, "not_found"),
        (409, "rejected/tavus_rejected"),
        (410, "not_found"),
    ],
)
def test_after_an_attempt_that_did_nothing(first: int, second: int, expected: str) -> None:
    """An attempt that Tavus put off has no part in what the next answer means."""
    with FaultServer(answer(first), answer(second)) as server:
        told = ask(server.url)

    assert (str(told), told.attempts, len(server.requests)) == (expected, 2, 2)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(reset, id="reset"),
        pytest.param((ENDED[:-1], close), id="short body"),
        *(pytest.param(answer(status), id=str(status)) for status in (408, 500, 502, 503, 504)),
    ],
)
@pytest.mark.parametrize(
    ("second", "expected"),
    [
        *((status, "unconfirmed/earlier_attempt") for status in (400, 404, 409, 410)),
        *((status, "rejected/tavus_rejected") for status in (302, 401, 403, 422, 501)),
    ],
)
def test_after_an_attempt_that_may_have_done_it(first: Reply, second: int, expected: str) -> None:
    """That a conversation is over, or in no state to be ended, may be our own doing; any other refusal is not."""
    with FaultServer(first, answer(second)) as server:
        told = ask(server.url)

    assert (str(told), told.attempts, len(server.requests)) == (expected, 2, 2)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param([answer(503), ENDED], "ended", id="503, 200"),
        pytest.param([answer(429), ENDED], "ended", id="429, 200"),
        pytest.param([reset, close, ENDED], "ended", id="reset, closed, 200"),
        pytest.param([reset, answer(429), answer(404)], "unconfirmed/earlier_attempt", id="reset, 429, 404"),
        pytest.param([answer(425), answer(500), answer(404)], "unconfirmed/earlier_attempt", id="425, 500, 404"),
        pytest.param([reset, answer(503), answer(429)], "tavus_throttled", id="reset, 503, 429"),
        pytest.param([answer(429), answer(503), reset], "tavus_unreachable", id="429, 503, reset"),
        pytest.param([reset, answer(429), answer(500)], "tavus_error", id="reset, 429, 500"),
    ],
)
def test_mixed(script: list[Reply], expected: str) -> None:
    """The last answer counts, in the light of what any earlier attempt may have done."""
    with FaultServer(*script) as server:
        told = ask(server.url)

    assert (str(told), told.attempts, len(server.requests)) == (expected, len(script), len(script))


@pytest.mark.parametrize(
    ("second", "expected"), [(answer(404), "unconfirmed/earlier_attempt"), (ENDED, "ended")], ids=["404", "200"]
)
def test_after_a_timeout(second: Reply, expected: str) -> None:
    """An attempt that was given up leaves time for another, and may have ended the conversation."""
    with FaultServer(hang, second) as server:
        told = ask(server.url, Clock())

    assert (str(told), told.attempts, len(server.requests)) == (expected, 2, 2)


def in_http(seconds: float, form: str = "%a, %d %b %Y %H:%M:%S GMT") -> str:
    """The date so many seconds after a FakeClock's beginning."""
    return (FakeClock().now() + timedelta(seconds=seconds)).strftime(form)


@pytest.mark.parametrize(
    ("values", "waits", "carried"),
    [
        pytest.param(["0"], [0, 0], 0, id="0"),
        pytest.param(["1"], [1, 1], 1, id="1"),
        pytest.param(["9"], [9], 9, id="9, fits once"),
        pytest.param(["10"], [], 10, id="10, all there is"),
        pytest.param(["3600"], [], 3600, id="3600"),
        pytest.param(["9" * 400], [], float("inf"), id="400 digits"),
        pytest.param([in_http(3)], [3, 0], 0, id="near date"),
        pytest.param([in_http(3, "%A, %d-%b-%y %H:%M:%S GMT")], [3, 0], 0, id="near date, RFC 850"),
        pytest.param([in_http(3, "%a %b %e %H:%M:%S %Y")], [3, 0], 0, id="near date, asctime"),
        pytest.param([in_http(86400)], [], 86400, id="far date"),
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
                "past date": [in_http(-1)],
                "date without an end": ["Sun, 22 Nov 2026"],
                "year 10^20": ["Sun, 22 Nov 100000000000000000000 00:00:03 GMT"],
                "offset of years": ["Sun, 22 Nov 2026 00:00:03 +999999999999999"],
                "repeated": ["1", "3600"],
            }.items()
        ),
    ],
)
def test_retry_after(values: list[str], waits: list[float], carried: float | None) -> None:
    """Retry-After is waited for where it fits the 10 s there are; else nobody asks again, and callers are told."""
    clock = FakeClock()
    with FaultServer(answer(503, b"", *(f"Retry-After: {value}" for value in values))) as server:
        told = ask(server.url, clock, seconds=10)

    assert (str(told), told.attempts, len(server.requests)) == ("tavus_error", 1 + len(waits), 1 + len(waits))
    assert clock.slept == [0, *waits]
    assert isinstance(told.outcome, TavusUnavailable)
    assert told.outcome.retry_after == carried


@pytest.fixture
def _trusted(ca_bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", ca_bundle)


@pytest.mark.usefixtures("_trusted")
@pytest.mark.parametrize(
    ("reply", "expected", "attempts"),
    [
        pytest.param(ENDED, "ended", 1, id="ended"),
        pytest.param(answer(404), "not_found", 1, id="404"),
        pytest.param(close, "tavus_unreachable", 3, id="closed before the answer"),
        pytest.param(reset, "tavus_unreachable", 3, id="reset before the answer"),
        pytest.param((ENDED[:-1], close), "tavus_unreachable", 3, id="short body"),
        pytest.param((ENDED[:-1], reset), "tavus_unreachable", 3, id="reset in the body"),
        pytest.param(lambda peer: peer.send_unprotected(ENDED), "tavus_unreachable", 1, id="answer without TLS"),
        pytest.param(hang, "tavus_timeout", 3, id="no answer"),
        pytest.param((ENDED[:-40], drip(ENDED[-40:])), "tavus_timeout", 3, id="dripped body"),
    ],
)
def test_over_tls(authority: trustme.CA, reply: Reply, expected: str, attempts: int) -> None:
    """Over TLS the same faults are told the same."""
    with FaultServer(reply, tls=serving_tls(authority)) as server:
        told = ask(server.url, Clock())

    assert (str(told), told.attempts, len(server.requests)) == (expected, attempts, attempts)


@pytest.mark.usefixtures("_trusted")
def test_the_default_port_is_not_named(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tavus is asked for by its name alone, as any client of its would."""
    with FaultServer(ENDED, tls=serving_tls(authority, host="tavus.test")) as server:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", server.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        told = ask("https://tavus.test", Clock())

    assert str(told) == "ended"
    assert [request.headers["host"] for request in server.requests] == ["tavus.test"]


@pytest.mark.usefixtures("_trusted")
@pytest.mark.parametrize("fault", ["untrusted", "wrong host", "expired"])
def test_a_certificate_that_fails(authority: trustme.CA, fault: str) -> None:
    """A server that can't show who it is gets no request, and isn't tried again: it will fail again."""
    context = {
        "untrusted": lambda: serving_tls(trustme.CA()),
        "wrong host": lambda: serving_tls(authority, host="tavus.test"),
        "expired": lambda: serving_tls(authority, valid_until=datetime(2020, 1, 1, tzinfo=UTC)),
    }[fault]()
    with FaultServer(ENDED, tls=context) as server:
        told = ask(server.url)

    assert (str(told), told.attempts) == ("tavus_unreachable", 1)
    assert (server.connections, server.requests) == (1, [])
    assert isinstance(told.outcome, TavusUnavailable)
    assert not told.outcome.may_have_ended


@pytest.mark.parametrize(
    ("greeting", "expected", "attempts"),
    [
        pytest.param((b"220 mail.test ESMTP\r\n", hang), "tavus_unreachable", 1, id="garbage"),
        pytest.param(close, "tavus_unreachable", 3, id="closed"),
        pytest.param(reset, "tavus_unreachable", 3, id="reset"),
        pytest.param(hang, "tavus_timeout", 3, id="no answer"),
        pytest.param(drip(b"\x16\x03\x03\x40\x00" + bytes(2**14)), "tavus_timeout", 3, id="dripped"),
    ],
)
def test_a_handshake_that_fails(greeting: Reply, expected: str, attempts: int) -> None:
    """Before the handshake is over nothing was sent that could end a conversation."""
    with FaultServer(greeting=greeting) as server:
        told = ask(server.url.replace("http:", "https:"), Clock())

    assert (str(told), told.attempts) == (expected, attempts)
    assert (server.connections, server.requests) == (attempts, [])
    assert isinstance(told.outcome, TavusUnavailable)
    assert not told.outcome.may_have_ended


def test_a_handshake_is_given_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handshake that began late does not go on until its socket would time out: it ends with its attempt."""
    workers = resolve_late(monkeypatch, lambda: time.sleep(SECONDS * 0.3))
    with FaultServer(greeting=hang) as server:
        told = ask(f"https://localhost:{server.port}", Clock())
        workers[-1].join(SECONDS * 0.2)
        assert not workers[-1].is_alive()

    assert (str(told), server.connections, server.requests) == ("tavus_timeout", MAX_ATTEMPTS, [])


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param((b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n", endlessly(b" " * 2**14)), id="200 MB"),
        pytest.param((b"HTTP/1.1 200 OK\r\n\r\n", endlessly(b" " * 2**14)), id="no end"),
        pytest.param((CHUNKED, endlessly(b"400\r\n" + b" " * 2**10 + b"\r\n")), id="endless chunks"),
        pytest.param((CHUNKED + b"-1\r\n", endlessly(b" " * 2**14)), id="chunk of -1 bytes"),
        pytest.param(answer(200, gzip.compress(bytes(60_000_000)), "Content-Encoding: gzip"), id="gzip bomb"),
    ],
)
def test_size(reply: Reply) -> None:
    """Of an answer that is too large not much more is read than could be an answer, and nothing is unpacked."""
    tracemalloc.start()
    with FaultServer(reply) as server:
        told = ask(server.url)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (str(told), len(server.requests)) == ("unconfirmed/unexpected_answer", 1)
    assert server.sent < 2**20
    assert peak < 2**20


@pytest.fixture(params=["http", "https"])
def context(request: pytest.FixtureRequest) -> ssl.SSLContext | None:
    """What a server needs to take plain connections, or TLS."""
    if request.param == "http":
        return None
    request.getfixturevalue("_trusted")
    return serving_tls(request.getfixturevalue("authority"))


def test_a_connection_is_kept_in_a_burst(context: ssl.SSLContext | None) -> None:
    """Calls that follow each other within seconds share a connection."""
    clock = FakeClock()
    with FaultServer(ENDED_KEPT, answer(404, keep=True), answer(503, keep=True), ENDED, tls=context) as server:
        tavus = client(server.url, clock)
        told = []
        for _ in range(3):
            told.append(str(end(tavus, clock)))
            clock.advance(MAX_IDLE_SECONDS)

    assert told == ["ended", "not_found", "ended"]
    assert (len(server.requests), server.connections) == (4, 1)


@pytest.mark.parametrize("seconds", [MAX_IDLE_SECONDS + 0.1, 3600, -1], ids=["just over", "an hour", "clock set back"])
def test_a_connection_that_idled_is_not_used_again(seconds: float) -> None:
    """The sandbox may have been frozen in between: the connection may be dead, and nobody would know."""
    clock = FakeClock()
    with FaultServer(ENDED_KEPT, ENDED) as server:
        tavus = client(server.url, clock)
        end(tavus, clock)
        clock.advance(seconds)
        told = end(tavus, clock)

    assert (str(told), told.attempts) == ("ended", 1)
    assert (len(server.requests), server.connections) == (2, 2)


@pytest.mark.parametrize("leave", [close, reset])
def test_a_connection_closed_while_idle_is_replaced(leave: Step, context: ssl.SSLContext | None) -> None:
    """Tavus may close a kept connection when it likes: that costs no attempt."""
    clock, answered, left = FakeClock(), threading.Event(), threading.Event()
    reply = (ENDED_KEPT, lambda _: answered.wait(), leave, lambda _: left.set())
    with FaultServer(reply, ENDED, tls=context) as server:
        tavus = client(server.url, clock)
        end(tavus, clock)
        answered.set()
        left.wait()
        told = end(tavus, clock)

    assert (str(told), told.attempts) == ("ended", 1)
    assert (len(server.requests), server.connections) == (2, 2)


@pytest.mark.parametrize(
    ("second", "third", "expected"),
    [
        pytest.param(reset, ENDED, "ended", id="reset, 200"),
        pytest.param(reset, answer(404), "unconfirmed/earlier_attempt", id="reset, 404"),
        pytest.param(hang, ENDED, "ended", id="black hole, 200"),
        pytest.param(hang, answer(404), "unconfirmed/earlier_attempt", id="black hole, 404"),
    ],
)
def test_a_kept_connection_that_dies_as_the_request_arrives(second: Reply, third: Reply, expected: str) -> None:
    """Whether Tavus took the request nobody knows: another attempt, on a new connection, and it may have been ours."""
    clock = Clock()
    with FaultServer(ENDED_KEPT, second, third) as server:
        tavus = client(server.url, clock)
        end(tavus, clock)
        told = end(tavus, clock)

    assert (str(told), told.attempts) == (expected, 2)
    assert (len(server.requests), server.connections) == (3, 2)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(
            answer(200, b" " * (MAX_BODY_BYTES + 1), keep=True), "unconfirmed/unexpected_answer", id="too large"
        ),
        pytest.param(ENDED_KEPT + ENDED_KEPT, "ended", id="two answers to one request"),
        pytest.param(answer(404, b"", keep=True) + ENDED_KEPT, "not_found", id="other answer behind it"),
    ],
)
def test_what_is_left_of_an_answer_is_not_the_next(reply: Reply, expected: str) -> None:
    """Whatever comes after the answer to one request is not taken for the answer to another."""
    clock = FakeClock()
    with FaultServer(reply, answer(404)) as server:
        tavus = client(server.url, clock)
        told = [str(end(tavus, clock)), str(end(tavus, clock, conversation_id="c2"))]

    assert told == [expected, "not_found"]
    assert [request.path.split("/")[-2] for request in server.requests] == ["c1", "c2"]


def test_an_interim_answer_is_not_the_last() -> None:
    """After early hints the answer is still to come; it is not taken for that of the next attempt."""
    with FaultServer((b"HTTP/1.1 103 Early Hints\r\n\r\n", hang), answer(404)) as server:
        told = ask(server.url)

    assert (str(told), told.attempts, server.connections) == ("unconfirmed/earlier_attempt", 2, 2)


def test_nothing_of_an_answer_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither our error nor urllib3's log quotes what the server sent."""
    log = BufferingHandler(capacity=100)
    monkeypatch.setattr(logging.getLogger(), "handlers", [log])
    monkeypatch.setattr(logging.getLogger("urllib3"), "propagate", True)
    with FaultServer(answer(503).replace(b"\r\n\r\n", b"\r\nhidden\r\n\r\n"), b"hidden\r\n") as server:
        told = ask(server.url)

    assert str(told.outcome) == "tavus_unreachable after 3 attempts: BadStatusLine"
    assert log.buffer == []
