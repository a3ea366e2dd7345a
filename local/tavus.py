"""A stand-in for Tavus' end endpoint. It behaves as Tavus documents, and remembers its requests."""

import re
import ssl
from http import HTTPStatus
from threading import Lock
from typing import override
from uuid import uuid4

from local.server import Handler, Request, Server

_END = re.compile(r"/v2/deployments/([^/]+)/conversations/([^/]+)/end")


class TavusHandler(Handler):
    @override
    def send_response(self, code: int, message: str | None = None) -> None:
        super().send_response(code, message)
        self.send_header("X-Tavus-Request-Id", str(uuid4()))


class Tavus(Server):
    """Answers requests to end conversations.

    `active` holds the deployment id and the conversation id of every active conversation. While `down` is set, every
    answer is 503. POSTs to /stand-in/start/DEPLOYMENT_ID, /stand-in/down and /stand-in/up do the same from a shell.
    """

    handler = TavusHandler

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.requests: list[Request] = []
        self.down = False
        self.active: set[tuple[str, str]] = set()
        self._lock = Lock()

    def start(self, deployment_id: str, conversation_id: str | None = None) -> str:
        """Start a conversation and return its id. The default is a new id that looks like one of Tavus'."""
        conversation_id = conversation_id or f"c{uuid4().hex[:12]}"
        self.active.add((deployment_id, conversation_id))
        return conversation_id

    @override
    def answer(self, request: Request) -> tuple[HTTPStatus, dict[str, str]]:
        with self._lock:
            match request.path.split("/"):
                case ["", "stand-in", "start", deployment_id]:
                    return HTTPStatus.OK, {"conversation_id": self.start(deployment_id)}
                case ["", "stand-in", ("down" | "up") as state]:
                    self.down = state == "down"
                    return HTTPStatus.OK, {"tavus": state}
            self.requests.append(request)
            if self.down:
                return HTTPStatus.SERVICE_UNAVAILABLE, {"message": "Service unavailable"}
            named = _END.fullmatch(request.path)
            if named is None or named.groups() not in self.active:
                return HTTPStatus.NOT_FOUND, {"message": "Not found"}
            self.active.remove((named[1], named[2]))
            return HTTPStatus.OK, {"conversation_id": named[2], "status": "ended"}
