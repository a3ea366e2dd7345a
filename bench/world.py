"""Tavus and AWS on loopback over TLS."""

import json
import ssl
from typing import Any, override

import trustme

from local.server import Handler, Server

_AWS_ANSWERS: dict[str, dict[str, Any]] = {
    "AWSEvents.PutEvents": {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]},
    "DynamoDB_20120810.PutItem": {},
}


class _Handler(Handler):
    @override
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if target := self.headers.get("X-Amz-Target"):
            answer = _AWS_ANSWERS[target]
        elif self.path.startswith("/schedules/"):
            answer = {"ScheduleArn": "arn"}
        else:
            answer = {"conversation_id": self.path.split("/")[-2], "status": "ended"}
        body = json.dumps(answer).encode()
        # All of it in one write, so that every client reads it in the same number of steps.
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)


class World(Server):
    """Accepts every call. `environment` directs a contestant to it, and `authority` is its CA certificate (PEM)."""

    handler = _Handler

    def __init__(self) -> None:
        authority = trustme.CA()
        self.authority = authority.cert_pem.bytes().decode()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        super().__init__(tls)
        self.environment = {"TAVUS_API_URL": self.url, "AWS_ENDPOINT_URL": self.url}
