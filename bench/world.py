"""What the contestants talk to: Tavus and AWS over TLS, and a CA bundle that tells how often it was read."""

from __future__ import annotations

import ctypes
import json
import os
import ssl
import struct
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import certifi
import trustme

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_AWS_ANSWERS: dict[str, dict[str, Any]] = {
    "AWSEvents.PutEvents": {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]},
    "DynamoDB_20120810.PutItem": {},
}
_IN_NONBLOCK, _IN_OPEN, _IN_CLOSE = 0o4000, 0x20, 0x10


class World:
    """Serves on loopback. Counts the connections made to Tavus and the CA bundles loaded."""

    def __init__(self, scratch: Path) -> None:
        authority = trustme.CA()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        # As many authorities as a real bundle has, since their number is what loading costs.
        self._bundle = scratch / "authorities.pem"
        self._bundle.write_bytes(certifi.contents().encode() + authority.cert_pem.bytes())
        libc = ctypes.CDLL(None)
        self._inotify = libc.inotify_init1(_IN_NONBLOCK)
        libc.inotify_add_watch(self._inotify, bytes(self._bundle), _IN_OPEN | _IN_CLOSE)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a contestant here, for each of the libraries that it may use."""
        bundle = str(self._bundle)
        trust = {"SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": bundle}  # botocore goes by the latter too
        return trust | {"TAVUS_API_URL": self.url, "AWS_ENDPOINT_URL": self.url}

    def count(self) -> tuple[int, int]:
        """Connections made to Tavus, and CA bundles loaded, since the last count."""
        loaded = 0
        with suppress(BlockingIOError):
            while events := os.read(self._inotify, 65536):
                loaded += sum(mask & _IN_OPEN > 0 for _, mask, _, _ in struct.iter_unpack("iIII", events))
        connections, self._server.connections = self._server.connections, set()
        return len(connections), loaded

    @contextmanager
    def serving(self) -> Iterator[World]:
        """Serve for a while."""
        thread = Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            os.close(self._inotify)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connections: set[int] = set()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a contestant's connections end with it."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if target := self.headers.get("X-Amz-Target"):
            answer = _AWS_ANSWERS[target]
        else:
            self.server.connections.add(self.client_address[1])
            answer = {"conversation_id": self.path.split("/")[-2], "status": "ended"}
        body = json.dumps(answer).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)

    def log_message(self, *_: object) -> None:
        """Keep the console for the table."""
