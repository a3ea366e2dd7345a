"""A Tavus that fails in many ways, the same ones for one seed, and knows what truly became of each conversation."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from threading import Lock
from typing import TYPE_CHECKING, override

from local.tavus import Handler, Tavus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local.tavus import Request

LATE_SECONDS = 0.5
HANG_SECONDS = 6
RETRY_AFTER_SECONDS = 1


class Fault(StrEnum):
    """What one request meets."""

    THROTTLE = "throttled with Retry-After"
    FAIL = "503"
    RESET = "reset before it was read"
    LATE = "answered late"
    REFUSE = "403"
    END_AND_FAIL = "ended, then 503"
    END_AND_RESET = "ended, then reset"
    END_AND_HANG = "ended, then no answer in time"
    END_ODDLY = "ended, then 200 with {}"


# After one of these a request may have ended the conversation, for all that its sender knows.
DOUBTFUL = set(Fault) - {Fault.THROTTLE, Fault.REFUSE, Fault.LATE}
FOR_GOOD = 1000
# What the requests for one conversation meet, in turn, and how many conversations of a thousand meet it. After the last
# fault Tavus is well again.
SCRIPTS: dict[tuple[Fault, ...], int] = {
    (): 580,
    (Fault.THROTTLE,): 80,
    (Fault.THROTTLE, Fault.THROTTLE): 40,
    (Fault.FAIL,): 40,
    (Fault.FAIL, Fault.THROTTLE): 20,
    (Fault.RESET,): 50,
    (Fault.RESET, Fault.FAIL): 20,
    (Fault.LATE,): 30,
    (Fault.END_AND_FAIL,): 40,
    (Fault.END_AND_RESET,): 40,
    (Fault.END_AND_HANG,): 10,
    (Fault.END_ODDLY,): 20,
    # A whole invocation that fails, having ended the conversation.
    (Fault.END_AND_FAIL, Fault.FAIL, Fault.FAIL): 5,
    (Fault.END_AND_RESET, Fault.RESET, Fault.THROTTLE): 5,
    (Fault.REFUSE,) * FOR_GOOD: 8,
    (Fault.FAIL,) * FOR_GOOD: 5,
    (Fault.RESET,) * FOR_GOOD: 3,
    (Fault.THROTTLE,) * FOR_GOOD: 2,
    (Fault.END_AND_FAIL, *(Fault.FAIL,) * FOR_GOOD): 2,
}


@dataclass
class Truth:
    """What became of a conversation, as Tavus knows.

    It was `ended` at our request; that was `confirmed` by a whole answer; a request was `refused`; some answer left it
    `doubtful` whether its request ended the conversation. It is `hopeless` where no answer will ever settle it.
    """

    hopeless: bool
    ended: bool = False
    confirmed: bool = False
    refused: bool = False
    doubtful: bool = False


class FaultyTavus(Tavus):
    """Meets the requests for each conversation with faults, then well; `met` counts them, `truths` tells the outcome.

    `most_at_once` is the most requests that were under way at one time.
    """

    def __init__(self, seed: int, conversation_ids: Sequence[str]) -> None:
        super().__init__()
        self._server.RequestHandlerClass = _FaultyHandler
        scripts = random.Random(seed).choices(list(SCRIPTS), list(SCRIPTS.values()), k=len(conversation_ids))  # noqa: S311 - no secret
        self.truths = {
            name: Truth(hopeless=len(script) >= FOR_GOOD and Fault.REFUSE not in script)
            for name, script in zip(conversation_ids, scripts, strict=True)
        }
        self._faults = dict(zip(conversation_ids, map(iter, scripts), strict=True))
        self._state = Lock()
        self._under_way = 0
        self.met: Counter[Fault | None] = Counter()
        self.most_at_once = 0

    @override
    def answer(self, request: Request) -> tuple[HTTPStatus, dict[str, str]]:
        """Take one request, and do and say what its fault makes of it. Raises Reset."""
        conversation_id = request.path.split("/")[-2]
        with self._state:
            fault = next(self._faults[conversation_id], None)
            self.met[fault] += 1
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            return self._meet(fault, request, self.truths[conversation_id])
        finally:
            with self._state:
                self._under_way -= 1

    def _meet(self, fault: Fault | None, request: Request, truth: Truth) -> tuple[HTTPStatus, dict[str, str]]:
        truth.doubtful = truth.doubtful or fault in DOUBTFUL
        match fault:
            case Fault.THROTTLE:
                return HTTPStatus.TOO_MANY_REQUESTS, {"message": "Too many requests"}
            case Fault.REFUSE:
                truth.refused = True
                return HTTPStatus.FORBIDDEN, {"message": "Forbidden"}
            case Fault.FAIL:
                return HTTPStatus.SERVICE_UNAVAILABLE, {"message": "Service unavailable"}
            case Fault.RESET:
                raise Reset
            case Fault.LATE:
                time.sleep(LATE_SECONDS)
        status, members = super().answer(request)
        truth.ended = truth.ended or status is HTTPStatus.OK
        match fault:
            case Fault.END_AND_FAIL:
                return HTTPStatus.SERVICE_UNAVAILABLE, {"message": "Service unavailable"}
            case Fault.END_AND_RESET:
                raise Reset
            case Fault.END_AND_HANG:
                time.sleep(HANG_SECONDS)
                raise Reset
            case Fault.END_ODDLY:
                return HTTPStatus.OK, {}
        truth.confirmed = truth.confirmed or status is HTTPStatus.OK
        return status, members


class Reset(Exception):
    """The connection is to be reset in place of an answer."""


class _FaultyHandler(Handler):
    @override
    def do_POST(self) -> None:
        try:
            super().do_POST()
        except Reset:
            self.close_connection = True
            # Closed with no time to linger, and by nobody else before, a connection is reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.close(self.connection.detach())

    @override
    def send_response(self, code: int, message: str | None = None) -> None:
        super().send_response(code, message)
        if code == HTTPStatus.TOO_MANY_REQUESTS:
            self.send_header("Retry-After", str(RETRY_AFTER_SECONDS))
