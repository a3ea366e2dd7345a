"""A website on the loopback interface: a page that ends conversations, its next page, and one that sets a limit."""

from __future__ import annotations

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from threading import Thread
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from local.process import ROOT

_FILES = {"/": "page.html", "/widget": "widget.html", "/limit.js": "limit.js"}


class Site(ThreadingHTTPServer):
    """Serves its pages inside a `with` block. page.html puts the answer that it read into `read` when it leaves."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.read: Queue[Any] = Queue()
        self.origin = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, args=(0.05,), name="site").start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: a browser opens spare connections and drops them when it stops."""


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/javascript" if asked.path.endswith(".js") else "text/html")
        self.end_headers()
        if asked.path == "/left":
            self.wfile.write(b"<!doctype html><title>The next page</title>")
            self.server.read.put(json.loads(parse_qs(asked.query)["read"][0]))
        else:
            self.wfile.write((ROOT / "local" / _FILES[asked.path]).read_bytes())

    def log_message(self, *_: object) -> None:
        """Keep the console clean."""
