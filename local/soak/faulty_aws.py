"""A proxy in front of the bus, the table and the queues. It makes calls fail, and shortens the function's pauses."""

from __future__ import annotations

import json
import time
from collections import Counter
from enum import StrEnum
from http import HTTPStatus
from threading import Lock
from typing import TYPE_CHECKING, Any, override

import urllib3

from local.server import Reset, Server
from local.soak.sandboxes import kill_sandbox

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from local.server import Request

FAULTY_SHARE = 0.06  # of the calls outside the outages
OUTAGE_BEGINS = {"bus": 20, "table": 45, "queue": 70}  # seconds after the start
OUTAGE_SECONDS = 6
# After a failed try, the function pauses for 27 s to 15 minutes, too long for this test: the proxy shortens it.
# A shorter pause is a wait for `ends_at`, and stays exact.
LONGEST_WAIT_SECONDS = 26
SPEEDUP = 40
TRIES = 2  # the function's tries of one call


class Fault(StrEnum):
    """What happens to one call."""

    FAIL = "500"
    THROTTLE = "throttled"
    RESET = "reset before the call"
    LOSE = "reset after the call"
    KILL = "sandbox killed before the call"
    KILL_LATE = "sandbox killed after the call"
    REFUSE = "refused within a 200"  # by the bus, and only for chosen conversations


ANSWERS: dict[Fault, tuple[HTTPStatus, dict[str, Any]]] = {
    Fault.FAIL: (HTTPStatus.INTERNAL_SERVER_ERROR, {"__type": "InternalFailure"}),
    Fault.THROTTLE: (HTTPStatus.BAD_REQUEST, {"__type": "ThrottlingException"}),
    Fault.REFUSE: (HTTPStatus.OK, {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "InternalFailure"}]}),
}


class FaultyAws(Server):
    """Passes calls on to the AWS at `endpoint_url`.

    PutEvents is refused for the conversations in `refused` until the function gives up once. `unmade` holds the
    operation and the conversation of calls that the function could not make, and `waits` counts waits for `ends_at`.
    """

    def __init__(self, rng: random.Random, endpoint_url: str, refused: Iterable[str]) -> None:
        super().__init__()
        self._rng = rng
        self._pool = urllib3.connection_from_url(endpoint_url, maxsize=20, retries=False)
        self._refusals = Counter(dict.fromkeys(refused, TRIES))
        self._begun = time.monotonic()
        self._state = Lock()
        self._failures: Counter[tuple[str, str]] = Counter()  # in a row, by operation and conversation
        self.unmade: set[tuple[str, str]] = set()
        self.faults_met: Counter[str] = Counter()
        self.waits = 0

    @override
    def answer(self, request: Request) -> tuple[HTTPStatus, dict[str, Any]]:
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        members = json.loads(request.body)
        fault = self._next_fault(operation, _conversation_id(members))
        if fault in ANSWERS:
            return ANSWERS[fault]
        if fault is Fault.KILL:
            kill_sandbox(request.connection)
        if fault in (Fault.KILL, Fault.RESET):
            raise Reset
        if operation == "ChangeMessageVisibility":
            if (seconds := members["VisibilityTimeout"]) > LONGEST_WAIT_SECONDS:
                members["VisibilityTimeout"] = max(1, seconds // SPEEDUP)
            else:
                self.waits += 1
        headers = {name: value for name, value in request.headers.items() if name != "Content-Length"}
        response = self._pool.urlopen("POST", request.path, body=json.dumps(members), headers=headers)
        if fault is Fault.KILL_LATE:
            kill_sandbox(request.connection)
        if fault in (Fault.KILL_LATE, Fault.LOSE):
            raise Reset
        return HTTPStatus(response.status), json.loads(response.data or "{}")

    def _next_fault(self, operation: str, conversation_id: str) -> Fault | None:
        service = {"PutEvents": "bus", "GetItem": "table", "PutItem": "table"}.get(operation, "queue")
        call = operation, conversation_id
        with self._state:
            fault = None
            if 0 < time.monotonic() - self._begun - OUTAGE_BEGINS[service] < OUTAGE_SECONDS:
                fault = self._rng.choice([Fault.FAIL, Fault.RESET])
            elif operation == "PutEvents" and self._refusals[conversation_id]:
                self._refusals[conversation_id] -= 1
                fault = Fault.REFUSE
            elif self._rng.random() < FAULTY_SHARE:
                fault = self._rng.choice([kind for kind in Fault if kind is not Fault.REFUSE])
            if fault is None:
                self._failures[call] = 0
                return None
            self._failures[call] += 1
            if fault is Fault.KILL or self._failures[call] == TRIES:
                self.unmade.add(call)
            self.faults_met[f"{service}: {fault}"] += 1
        return fault


def _conversation_id(members: dict[str, Any]) -> str:
    match members:
        case {"Entries": [{"Detail": detail}]}:
            return str(json.loads(detail)["conversation_id"])
        case {"Key": {"conversation": {"S": key}}} | {"Item": {"conversation": {"S": key}}}:
            return str(key).rpartition("/")[2]
    return ""  # a call of a queue
