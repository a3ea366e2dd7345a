"""An HTTP server on the loopback interface, for stand-ins of the outside world."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self


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
            return
        answer = json.dumps(members).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Keep the console clean."""


class Server(ThreadingHTTPServer):
    """Serves inside a `with` block, over TLS if `tls` is given."""

    handler: type[Handler] = Handler

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), self.handler)
        if tls is not None:
            # The handshake runs in the thread of each connection, so that a slow client delays no other.
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, args=(0.05,), name=type(self).__name__).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def answer(self, request: Request) -> tuple[HTTPStatus, dict[str, Any]]:
        """Handle one POST, PUT or OPTIONS. Raises Reset."""
        raise NotImplementedError

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: clients under test close connections and reject certificates on purpose."""
