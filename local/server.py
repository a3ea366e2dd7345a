"""An HTTP server on the loopback interface, for stand-ins of the outside world."""

from __future__ import annotations

import json
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from http import HTTPStatus


@dataclass(frozen=True)
class Request:
    """One request. `connection` is the client's port, which identifies the connection."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


class Reset(Exception):
    """Raised to reset the connection instead of sending an answer."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, self.path, dict(self.headers), body, connection=self.client_address[1])
        try:
            status, members = self.server.answer(request)
        except Reset:
            self.close_connection = True
            # Closing with a linger time of 0 sends RST. detach() keeps the server from closing the connection first.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.close(self.connection.detach())
        else:
            self.send(status, "application/json", json.dumps(members).encode())

    def send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the console clean."""


class Server(ThreadingHTTPServer):
    """Serves inside a `with` block, over TLS if `tls` is given."""

    handler = Handler
    daemon_threads = False  # closing the server waits for its threads

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), self.handler)
        self._connections: set[socket.socket] = set()
        if tls is not None:
            # The handshake runs in the thread of each connection, so that a slow client delays no other.
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, args=(0.05,), name=type(self).__name__).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        # Close the connections that clients keep alive.
        for connection in self._connections.copy():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def answer(self, request: Request) -> tuple[HTTPStatus, dict[str, Any]]:
        """Handle one POST. Raises Reset."""
        raise NotImplementedError

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: clients under test close connections and reject certificates on purpose."""
