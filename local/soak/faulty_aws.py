"""A proxy in front of the bus, the table and the queues. It makes calls fail, and shortens the function's pauses."""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from threading import Lock
from typing import Any, override

import psutil
import urllib3

from local.server import Request, Reset, Server
from local.stack import Stack

FAULTY_SHARE = 0.06  # of the calls outside the outages
OUTAGE_BEGINS = {"bus": 20, "table": 45, "queue": 70}  # seconds after the start
OUTAGE_SECONDS = 6
# After a failed try, the function pauses for 27 s or more. Here, a minute of that lasts a second. A shorter pause
# is a wait for `ends_at` and stays exact.
LONGEST_WAIT_SECONDS = 26
SPEEDUP = 60

SERVICES = {"PutEvents": "bus", "GetItem": "table", "PutItem": "table"}  # all other calls are to the queues
FAIL, THROTTLE, REFUSE = "500", "throttled", "refused within a 200"
RESET, LOSE = "reset before the call", "reset after the call"
KILL, KILL_LATE = "sandbox killed before the call", "sandbox killed after the call"
ANSWERS: dict[str | None, tuple[HTTPStatus, dict[str, Any]]] = {
    FAIL: (HTTPStatus.INTERNAL_SERVER_ERROR, {"__type": "InternalFailure"}),
    THROTTLE: (HTTPStatus.BAD_REQUEST, {"__type": "ThrottlingException"}),
    REFUSE: (HTTPStatus.OK, {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "InternalFailure"}]}),
}


class FaultyAws(Server):
    """Passes calls on to the AWS of a stack.

    PutEvents is refused for the conversations in `refused` until the function gives up once. `unmade` holds the
    operation and the conversation of calls that the function could not make, and `waits` counts waits for `ends_at`.
    """

    def __init__(self, rng: random.Random, stack: Stack, refused: Iterable[str]) -> None:
        super().__init__()
        self._rng = rng
        self._pool = urllib3.connection_from_url(stack.endpoint_url, maxsize=20, retries=False)
        self._sqs = stack.client("sqs")
        self._refusals = Counter(dict.fromkeys(refused, 2))  # the call and its second try
        self._begun = time.monotonic()
        self._state = Lock()
        self._failed: set[tuple[str, str]] = set()  # calls whose last try failed
        self.unmade: set[tuple[str, str]] = set()
        self.faults_met: Counter[str] = Counter()
        self.waits = 0

    @override
    def answer(self, request: Request) -> tuple[HTTPStatus, dict[str, Any]]:
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        with self._state:
            fault = self._next_fault(operation, request.body)
        if fault in ANSWERS:
            return ANSWERS[fault]
        if fault == KILL:
            kill_sandbox(request.connection)
        if fault in (KILL, RESET):
            raise Reset
        response = self._pool.urlopen("POST", request.path, body=request.body, headers=request.headers)
        if operation == "ChangeMessageVisibility" and response.status == HTTPStatus.OK:
            change = json.loads(request.body)
            if (seconds := change["VisibilityTimeout"]) > LONGEST_WAIT_SECONDS:
                self._sqs.change_message_visibility(**change | {"VisibilityTimeout": max(1, seconds // SPEEDUP)})
            else:
                self.waits += 1
        if fault == KILL_LATE:
            kill_sandbox(request.connection)
        if fault in (KILL_LATE, LOSE):
            raise Reset
        return HTTPStatus(response.status), json.loads(response.data or "{}")

    def _next_fault(self, operation: str, body: bytes) -> str | None:
        service = SERVICES.get(operation, "queue")
        named = re.search(rb"\bc[0-9]{4}\b", body)
        call = operation, named[0].decode() if named else ""
        fault = None
        if 0 < time.monotonic() - self._begun - OUTAGE_BEGINS[service] < OUTAGE_SECONDS:
            fault = self._rng.choice([FAIL, RESET])
        elif service == "bus" and self._refusals[call[1]]:
            self._refusals[call[1]] -= 1
            fault = REFUSE
        elif self._rng.random() < FAULTY_SHARE:
            fault = self._rng.choice([FAIL, THROTTLE, RESET, LOSE, KILL, KILL_LATE])
        if fault == KILL or (fault and call in self._failed):
            self.unmade.add(call)
        if fault in (None, KILL, KILL_LATE):  # the next call is a first try
            self._failed.discard(call)
        else:
            self._failed.add(call)
        self.faults_met[f"{service}: {fault or 'no fault'}"] += 1
        return fault


def kill_sandbox(port: int) -> None:
    """Kill the sandbox that waits for an answer at this TCP port, as Lambda does when a host fails."""
    (supervisor,) = psutil.Process().children()  # the soak test keeps no other process running
    (local_aws,) = supervisor.children()
    for sandbox in local_aws.children():
        with suppress(psutil.Error):
            if port in (connection.laddr[1] for connection in sandbox.net_connections("tcp4")):
                sandbox.kill()
