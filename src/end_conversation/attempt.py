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
from urllib3.exceptions import HTTPError, NewConnectionError
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
        exchange = _Exchange(self._connection(seconds), self._tls)
        try:
            answer = within(seconds, lambda: exchange.run(path, self._headers))
        except (OSError, HTTPException, HTTPError) as error:
            sent = exchange.give_up()
            # Among urllib3's timeouts are refused connections and names that can't be resolved.
            refused = isinstance(error, NewConnectionError)
            timeout = isinstance(error, TimeoutError | Urllib3TimeoutError) and not refused
            # An EOF inside the handshake is a reset like any other; trust that fails will fail again.
            untrusted = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError) and not sent
            raise NoAnswer(type(error).__name__, timeout=timeout, sent=sent, untrusted=untrusted) from None
        if not exchange.connection.is_closed:
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
        kind = HTTPConnection if self._tls is None else HTTPSConnection
        return kind(self._origin.host, self._origin.port, timeout=seconds)


class _Exchange:
    """A request and its answer on one connection: run in one thread, given up from another."""

    def __init__(self, connection: HTTPConnection, tls: ssl.SSLContext | None) -> None:
        self.connection = connection
        self.connection.auto_open = 0  # a connection lost in between is a failure, not to be mended unseen
        self._tls = tls
        self._socket: socket.socket | None = None
        self._sent = False
        self._given_up = False
        self._lock = Lock()

    def run(self, path: str, headers: Mapping[str, str]) -> Answer:
        try:
            if self.connection.is_closed:
                self._connect()
            self._go_on(sending=True)
            self.connection.request("POST", path, headers=headers, preload_content=False, decode_content=False)
            with self.connection.getresponse() as response:
                body = _body(response)
        except BaseException:
            self.connection.close()
            raise
        if body is None:
            self.connection.close()
        return Answer(response.status, response.headers, body)

    def _connect(self) -> None:
        # In steps, where HTTPSConnection's own connect shows no socket to give up before its handshake is over.
        HTTPConnection.connect(self.connection)
        self._go_on()
        if self._tls is not None:
            self.connection.sock = secured = self._tls.wrap_socket(
                self.connection.sock, server_hostname=self.connection.host, do_handshake_on_connect=False
            )
            self._go_on()
            secured.do_handshake()

    def _go_on(self, *, sending: bool = False) -> None:
        """Keep the socket for give_up, as http.client may let go of it. Raises TimeoutError if that came first."""
        with self._lock:
            if self._given_up:
                raise TimeoutError
            self._socket = self.connection.sock
            self._sent = sending

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
    body = bytearray()
    # read1, as read may take all there is for a chunk whose size is negative.
    while chunk := response.read1(MAX_BODY_BYTES + 1 - len(body), decode_content=False):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)
