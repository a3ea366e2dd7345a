"""One POST and its whole answer on one connection: run in one thread, given up for good from another."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import BadStatusLine, HTTPResponse, IncompleteRead
from io import BufferedReader
from threading import Lock
from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from urllib3.response import HTTPResponse as Urllib3Response

MAX_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer. `body` is undecoded, and None where it is larger than MAX_BODY_BYTES."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes | None


class Exchange:
    """A request and its answer. Runs once; may be given up at any moment, after which nothing more is sent."""

    def __init__(self, connection: HTTPConnection, tls: ssl.SSLContext | None) -> None:
        self.connection = connection
        self.connection.response_class = _WholeResponse
        self._tls = tls
        self._socket: socket.socket | None = None
        self._sent = False
        self._given_up = False
        self._lock = Lock()

    def run(self, path: str, headers: Mapping[str, str]) -> Answer:
        """POST to `path`. Raises OSError, http.client's HTTPException or urllib3's HTTPError for no whole answer."""
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

    def give_up(self) -> bool:
        """Stop the exchange, whichever thread is at it. Whether any of the request may have been sent."""
        with self._lock:
            self._given_up = True
        if self._socket is not None:
            # Past SSLSocket's own shutdown, which would turn to plain text under the reading thread.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        return self._sent

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


class _WholeResponse(HTTPResponse):
    """An answer to its end: http.client takes the end of a connection for that of the headers, and a 103 for all."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fp: BufferedReader = _WholeLines(self.fp.detach())

    def _read_status(self) -> tuple[str, int, str]:
        # Of interim answers (RFC 9110, 15.2) http.client passes over 100 alone; after 101 there is no HTTP to read.
        version, status, reason = super()._read_status()  # type: ignore[misc]  # typeshed has no private methods
        return version, HTTPStatus.CONTINUE if 101 < status < 200 else status, reason  # noqa: PLR2004 - as said above


class _WholeLines(BufferedReader):
    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size:
            raise IncompleteRead(line)
        return line


def _body(response: Urllib3Response) -> bytes | None:
    if not 200 <= response.status <= 599:  # noqa: PLR2004 - the final statuses of HTTP (RFC 9110, 15)
        raise BadStatusLine(str(response.status))
    body = bytearray()
    # read1, as read may take all there is for a chunk whose size is negative.
    while chunk := response.read1(MAX_BODY_BYTES + 1 - len(body)):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)
