"""One attempt: a single POST to Tavus' origin over urllib3, given up for good when its time is over."""

from __future__ import annotations

import logging
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from http.client import BadStatusLine, HTTPException
from threading import Lock
from typing import TYPE_CHECKING

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from end_conversation.deadline import within

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3.response import HTTPResponse

    from end_conversation.deadline import Clock
    from end_conversation.settings import Origin

MAX_BODY_BYTES = 64 * 1024
MAX_IDLE_SECONDS = 3

# urllib3 warns of odd headers by quoting them and the URL: neither may reach our log.
logging.getLogger("urllib3").propagate = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer. `body` is undecoded, and None where it is larger than MAX_BODY_BYTES."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes | None


class NoAnswer(Exception):
    """There was no whole answer. Keeps the kind of the cause and drops its text, which can quote the server."""

    def __init__(self, kind: str, *, timeout: bool, sent: bool, untrusted: bool = False) -> None:
        super().__init__(kind)
        self.kind = kind
        self.timeout = timeout
        self.sent = sent
        self.untrusted = untrusted


class Endpoint:
    """An HTTP origin that takes POSTs without a body, one at a time.

    A connection is kept for the next POST while it has idled MAX_IDLE_SECONDS at most: a Lambda sandbox is frozen
    between invocations, and its connections die unseen.
    """

    def __init__(self, origin: Origin, headers: Mapping[str, str], clock: Clock) -> None:
        self._origin = origin
        self._headers = headers
        self._clock = clock
        # Loading the CA bundle is a third of a lean cold start: once, here, and not at each connection.
        self._tls = ssl.create_default_context() if origin.scheme == "https" else None
        self._kept: HTTPConnection | None = None
        self._idle_since = clock.now()

    def post(self, path: str, seconds: float) -> Answer:
        """Tavus' answer, whole and within so many seconds. Raises NoAnswer; after that nothing more is sent."""
        exchange = _Exchange(self._connection(seconds))
        try:
            answer = within(seconds, lambda: exchange.run(path, self._headers))
        except (TimeoutError, Urllib3TimeoutError) as error:
            raise NoAnswer(type(error).__name__, timeout=True, sent=exchange.give_up()) from None
        except (OSError, HTTPException, HTTPError) as error:
            sent = exchange.give_up()
            # An EOF inside the handshake is a reset like any other; trust that fails will fail again.
            untrusted = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError) and not sent
            raise NoAnswer(type(error).__name__, timeout=False, sent=sent, untrusted=untrusted) from None
        if answer.body is not None and not exchange.connection.is_closed:
            self._kept, self._idle_since = exchange.connection, self._clock.now()
        return answer

    def _connection(self, seconds: float) -> HTTPConnection:
        kept, self._kept = self._kept, None
        if kept is not None:
            # The wall clock, which goes on while the sandbox is frozen.
            idle = (self._clock.now() - self._idle_since).total_seconds()
            if 0 <= idle <= MAX_IDLE_SECONDS and kept.is_connected:
                kept.timeout = seconds
                return kept
            kept.close()
        if self._tls is None:
            return HTTPConnection(self._origin.host, self._origin.port, timeout=seconds)
        return HTTPSConnection(self._origin.host, self._origin.port, timeout=seconds, ssl_context=self._tls)


class _Exchange:
    """A request and its answer on one connection: run in one thread, given up from another."""

    def __init__(self, connection: HTTPConnection) -> None:
        self.connection = connection
        self.connection.auto_open = 0  # a connection lost in between is a failure, not to be mended unseen
        self._socket: socket.socket | None = None
        self._sent = False
        self._given_up = False
        self._lock = Lock()

    def run(self, path: str, headers: Mapping[str, str]) -> Answer:
        try:
            if self.connection.is_closed:
                self.connection.connect()
            self._begin_sending()
            self.connection.request("POST", path, headers=headers, preload_content=False, decode_content=False)
            response = self.connection.getresponse()
            body = _body(response)
        except BaseException:
            self.connection.close()
            raise
        if body is None:
            self.connection.close()
        return Answer(response.status, response.headers, body)

    def _begin_sending(self) -> None:
        with self._lock:
            if self._given_up:
                raise TimeoutError
            # Kept here: http.client lets go of it before the body of an answer that closes the connection.
            self._socket = self.connection.sock
            self._sent = True

    def give_up(self) -> bool:
        """Stop the exchange, whichever thread is at it. Whether any of the request may have been sent."""
        with self._lock:
            self._given_up = True
        if self._socket is not None:
            # Past SSLSocket's own shutdown, which would turn to plain text under the reading thread.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        return self._sent


def _body(response: HTTPResponse) -> bytes | None:
    if not 200 <= response.status <= 599:  # noqa: PLR2004 - the final statuses of HTTP (RFC 9110, 15)
        raise BadStatusLine(str(response.status))
    body = b""
    while chunk := response.read(MAX_BODY_BYTES + 1 - len(body), decode_content=False):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return body
