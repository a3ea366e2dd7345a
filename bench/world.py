"""Tavus and AWS on loopback over TLS."""

from __future__ import annotations

import ctypes
import json
import os
import ssl
import struct
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any, Self

import certifi
import trustme

if TYPE_CHECKING:
    from pathlib import Path

_AWS_ANSWERS: dict[str, dict[str, Any]] = {
    "AWSEvents.PutEvents": {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]},
    "DynamoDB_20120810.PutItem": {},
}
_IN_NONBLOCK, _IN_OPEN, _IN_CLOSE = 0o4000, 0x20, 0x10


class World(ThreadingHTTPServer):
    """Serves inside a `with` block. `environment` directs a contestant to it, and `trust` names a CA bundle."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, scratch: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        authority = trustme.CA()
        self.authority = authority.cert_pem.bytes().decode()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        # The time to load a bundle depends on its size, so this one includes the authorities of a real bundle.
        bundle = scratch / "authorities.pem"
        bundle.write_text(certifi.contents() + self.authority)
        url = f"https://127.0.0.1:{self.server_port}"
        self.environment = {"TAVUS_API_URL": url, "AWS_ENDPOINT_URL": url}
        self.trust = {"SSL_CERT_FILE": str(bundle), "REQUESTS_CA_BUNDLE": str(bundle)}
        self.connections: set[int] = set()
        libc = ctypes.CDLL(None)
        self._inotify = libc.inotify_init1(_IN_NONBLOCK)
        # Linux merges equal consecutive events. The close events keep the open events apart.
        libc.inotify_add_watch(self._inotify, bytes(bundle), _IN_OPEN | _IN_CLOSE)

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, args=(0.05,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        os.close(self._inotify)

    def take_counts(self) -> tuple[int, int]:
        """Return the connections to Tavus and the loads of the CA bundle since the last call."""
        loads = 0
        with suppress(BlockingIOError):
            while events := os.read(self._inotify, 65536):
                loads += sum(mask & _IN_OPEN > 0 for _, mask, _, _ in struct.iter_unpack("iIII", events))
        connections, self.connections = self.connections, set()
        return len(connections), loads

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a contestant drops its connections when it is stopped."""


class _Handler(BaseHTTPRequestHandler):
    server: World
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if target := self.headers.get("X-Amz-Target"):
            answer = _AWS_ANSWERS[target]
        elif self.path.startswith("/schedules/"):
            answer = {"ScheduleArn": "arn"}
        else:
            self.server.connections.add(self.client_address[1])
            answer = {"conversation_id": self.path.split("/")[-2], "status": "ended"}
        body = json.dumps(answer).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)

    def log_message(self, *_: object) -> None:
        """Print nothing: the console shows the results."""
