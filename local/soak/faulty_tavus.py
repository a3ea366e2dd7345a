"""A Tavus that fails in many ways and knows the true outcome of each conversation. A seed selects the faults."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from threading import Lock
from typing import TYPE_CHECKING, override

from local.server import Reset
from local.tavus import Tavus, TavusHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from local.server import Request

LATE_SECONDS = 0.5
HANG_SECONDS = 6
RETRY_AFTER_SECONDS = 1


class Fault(StrEnum):
    """What happens to one request."""

    THROTTLE = "429 with Retry-After"
    FAIL = "503"
    RESET = "reset before processing"
    LATE = "late answer"
    REFUSE = "403"
    END_AND_FAIL = "ended, then 503"
    END_AND_RESET = "ended, then reset"
    END_AND_HANG = "ended, then no answer in time"
    END_ODDLY = "ended, then 200 with {}"
    END_AND_KILL = "ended, then sandbox killed"


# After one of these, the sender can't know whether its request ended the conversation.
DOUBTFUL = set(Fault) - {Fault.THROTTLE, Fault.REFUSE, Fault.LATE, Fault.END_AND_KILL}
ALWAYS = 1000  # more requests than any conversation gets
# The first invocation records `ended`, but the bus refuses its result. The second one gets no usable answer, and must
# not replace the record with `unconfirmed`.
RECORDED_THEN_DOUBTFUL = (None, Fault.FAIL, Fault.FAIL, Fault.FAIL)
# The faults of successive requests for one conversation, and the number of conversations in a thousand, on
# average, that get each sequence. Requests after the last fault succeed.
SCRIPTS: dict[tuple[Fault | None, ...], int] = {
    (): 530,
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
    (Fault.END_AND_KILL,): 40,
    RECORDED_THEN_DOUBTFUL: 10,
    # The whole first invocation fails, although its first request ended the conversation.
    (Fault.END_AND_FAIL, Fault.FAIL, Fault.FAIL): 5,
    (Fault.END_AND_RESET, Fault.RESET, Fault.THROTTLE): 5,
    (Fault.REFUSE,) * ALWAYS: 8,
    (Fault.FAIL,) * ALWAYS: 5,
    (Fault.RESET,) * ALWAYS: 3,
    (Fault.THROTTLE,) * ALWAYS: 2,
    (Fault.END_AND_FAIL, *(Fault.FAIL,) * ALWAYS): 2,
}


@dataclass
class Truth:
    """The true outcome of a conversation.

    hopeless: no request will ever get a conclusive answer
    ended_at: the time at which one of our requests ended it
    confirmed: we received a complete answer that says so
    refused: a request was refused
    doubtful: after some request, its sender can't know whether that request ended the conversation
    """

    hopeless: bool
    ended_at: float | None = None
    confirmed: bool = False
    refused: bool = False
    doubtful: bool = False


class _FaultyHandler(TavusHandler):
    @override
    def send_response(self, code: int, message: str | None = None) -> None:
        super().send_response(code, message)
        if code == HTTPStatus.TOO_MANY_REQUESTS:
            self.send_header("Retry-After", str(RETRY_AFTER_SECONDS))


class FaultyTavus(Tavus):
    """Answers the requests for each conversation with its faults first, then correctly.

    `kill_sender` kills the sandbox with the given TCP port. `recorded_then_doubtful` holds the conversations with that
    script, and `truths` the true outcomes by conversation id. `faults_met` counts requests by fault, and
    `max_concurrent` is the highest number of simultaneous requests.
    """

    handler = _FaultyHandler

    def __init__(self, seed: int, conversation_ids: Sequence[str], kill_sender: Callable[[int], None]) -> None:
        super().__init__()
        rng = random.Random(seed)  # noqa: S311 - must be reproducible
        drawn = rng.choices(list(SCRIPTS), list(SCRIPTS.values()), k=len(conversation_ids))
        scripts = dict(zip(conversation_ids, drawn, strict=True))
        self.truths = {
            conversation_id: Truth(hopeless=len(script) >= ALWAYS and Fault.REFUSE not in script)
            for conversation_id, script in scripts.items()
        }
        self.recorded_then_doubtful = [known for known, script in scripts.items() if script is RECORDED_THEN_DOUBTFUL]
        self._kill_sender = kill_sender
        self._faults = {conversation_id: iter(script) for conversation_id, script in scripts.items()}
        self._state = Lock()
        self._concurrent = 0
        self.faults_met: Counter[Fault | None] = Counter()
        self.max_concurrent = 0

    @override
    def answer(self, request: Request) -> tuple[HTTPStatus, dict[str, str]]:
        conversation_id = request.path.split("/")[-2]
        with self._state:
            fault = next(self._faults[conversation_id], None)
            self.faults_met[fault] += 1
            self._concurrent += 1
            self.max_concurrent = max(self.max_concurrent, self._concurrent)
        if fault is Fault.END_AND_KILL:
            self._kill_sender(request.connection)
        try:
            return self._apply(fault, request, self.truths[conversation_id])
        finally:
            with self._state:
                self._concurrent -= 1

    def _apply(self, fault: Fault | None, request: Request, truth: Truth) -> tuple[HTTPStatus, dict[str, str]]:
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
        truth.ended_at = time.monotonic() if status is HTTPStatus.OK else truth.ended_at
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
