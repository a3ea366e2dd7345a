"""A stand-in for Tavus' end endpoint. It behaves as Tavus documents, and remembers its requests."""

from __future__ import annotations

import json
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

_END = re.compile(r"/v2/deployments/([^/]+)/conversations/([^/]+)/end")


@dataclass(frozen=True)
class Request:
    """One request. `connection` is the client's port, which identifies the connection."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


class Tavus:
    """Serves on the loopback interface inside a `with` block, over TLS if it is given a server's TLS context.

    `active` holds the deployment id and the conversation id of every active conversation. While `down` is set, every
    answer is 503.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.down = False
        self.active: set[tuple[str, str]] = set()
        self._lock = Lock()
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.tavus = self
        if tls is not None:
            # The handshake runs in the thread of each connection, so that a slow client delays no other.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, args=(0.05,), name="tavus").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()

    def start(self, deployment_id: str, conversation_id: str | None = None) -> str:
        """Start a conversation and return its id, which looks like one of Tavus' unless it is given."""
        conversation_id = conversation_id or f"c{uuid4().hex[:12]}"
        self.active.add((deployment_id, conversation_id))
        return conversation_id

    def answer(self, request: Request) -> tuple[HTTPStatus, dict[str, str]]:
        """Handle one request."""
        with self._lock:
            self.requests.append(request)
            if self.down:
                return HTTPStatus.SERVICE_UNAVAILABLE, {"message": "Service unavailable"}
            named = _END.fullmatch(request.path)
            if named is None or named.groups() not in self.active:
                return HTTPStatus.NOT_FOUND, {"message": "Not found"}
            self.active.remove((named[1], named[2]))
            return HTTPStatus.OK, {"conversation_id": named[2], "status": "ended"}


class _Server(ThreadingHTTPServer):
    tavus: Tavus
    daemon_threads = False  # closing the server waits for its threads

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Close the connections that clients keep alive."""
        for connection in self._connections.copy():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: clients under test close connections and reject certificates on purpose."""


class Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, self.path, dict(self.headers), body, connection=self.client_address[1])
        status, members = self.server.tavus.answer(request)
        answer = json.dumps(members).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("X-Tavus-Request-Id", str(uuid4()))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Keep the console clean."""
