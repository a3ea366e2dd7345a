"""A proxy in front of the bus and the table. It makes calls fail, and knows what the function could not record."""

from __future__ import annotations

import json
import random
import time
from collections import Counter, defaultdict
from enum import StrEnum
from http import HTTPStatus
from threading import Lock
from typing import TYPE_CHECKING, Any, override

import urllib3

from local.server import Reset, Server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from local.server import Request

FAULTY_SHARE = 0.05  # of the calls outside the outages
OUTAGE_SECONDS = 6
# Each is down once, from its call with this number on. The table follows long after the bus.
OUTAGE_BEGINS = {"bus": 300, "table": 900}


class Fault(StrEnum):
    """What happens to one call."""

    REFUSE = "refused within a 200"
    FAIL = "500"
    THROTTLE = "throttled"
    RESET = "reset before the call"
    LOSE = "reset after the call"


_FAULTS: dict[str, list[Fault]] = {"bus": [*Fault], "table": [Fault.FAIL, Fault.THROTTLE, Fault.RESET, Fault.LOSE]}
_TRIES = 2  # the function's tries of one call


class FaultyAws(Server):
    """Passes calls on to the AWS at `endpoint_url`.

    `refused_twice` are conversations whose first two PutEvents are refused. `faults_met` counts calls by service and
    fault. `failed` holds the operation and the conversation of calls that failed in spite of a second try, and `writes`
    the times at which each conversation was recorded.
    """

    def __init__(self, seed: int, endpoint_url: str, refused_twice: Iterable[str]) -> None:
        super().__init__()
        self._rng = random.Random(seed)  # noqa: S311 - must be reproducible
        self._pool = urllib3.connection_from_url(endpoint_url, maxsize=20, retries=False)
        self._refusals = Counter(dict.fromkeys(refused_twice, _TRIES))
        self._state = Lock()
        self._calls: Counter[str] = Counter()
        self._down_until: dict[str, float] = {}
        self._failures: Counter[tuple[str, str]] = Counter()  # in a row, by operation and conversation
        self.faults_met: Counter[str] = Counter()
        self.failed: set[tuple[str, str]] = set()
        self.writes: defaultdict[str, list[float]] = defaultdict(list)

    @override
    def answer(self, request: Request) -> tuple[HTTPStatus, dict[str, Any]]:
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        conversation_id = _conversation_id(operation, json.loads(request.body))
        fault = self._next_fault(operation, conversation_id)
        match fault:
            case Fault.REFUSE:
                return HTTPStatus.OK, {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "InternalFailure"}]}
            case Fault.FAIL:
                return HTTPStatus.INTERNAL_SERVER_ERROR, {"__type": "InternalFailure"}
            case Fault.THROTTLE:
                return HTTPStatus.BAD_REQUEST, {"__type": "ThrottlingException"}
            case Fault.RESET:
                raise Reset
        response = self._pool.urlopen("POST", request.path, body=request.body, headers=request.headers)
        if operation == "PutItem" and response.status == HTTPStatus.OK:
            self.writes[conversation_id].append(time.monotonic())
        if fault is Fault.LOSE:
            raise Reset
        return HTTPStatus(response.status), response.json()

    def _next_fault(self, operation: str, conversation_id: str) -> Fault | None:
        service = "bus" if operation == "PutEvents" else "table"
        now = time.monotonic()
        with self._state:
            self._calls[service] += 1
            if self._calls[service] == OUTAGE_BEGINS[service]:
                self._down_until[service] = now + OUTAGE_SECONDS
            fault = None
            if now < self._down_until.get(service, now):
                fault = self._rng.choice([Fault.FAIL, Fault.RESET])
            elif service == "bus" and self._refusals[conversation_id]:
                self._refusals[conversation_id] -= 1
                fault = Fault.REFUSE
            elif self._rng.random() < FAULTY_SHARE:
                fault = self._rng.choice(_FAULTS[service])
            call = operation, conversation_id
            if fault is None:
                self._failures[call] = 0
                return None
            self.faults_met[f"{service}: {fault}"] += 1
            self._failures[call] += 1
            if self._failures[call] == _TRIES:
                self.failed.add(call)
        return fault


def _conversation_id(operation: str, request: dict[str, Any]) -> str:
    if operation == "PutEvents":
        conversation_id: str = json.loads(request["Entries"][0]["Detail"])["conversation_id"]
        return conversation_id
    key: str = request["Key" if operation == "GetItem" else "Item"]["conversation"]["S"]
    return key.rpartition("/")[2]
