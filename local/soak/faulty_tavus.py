"""A Tavus that fails in many ways, and knows the true outcome of each conversation."""

import random
import time
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from threading import Lock
from typing import NamedTuple, override

from local.server import Request, Reset
from local.session import seconds_ahead
from local.soak.judge import Truth
from local.tavus import Tavus


class Fault(NamedTuple):
    """What happens to one request. `status` is None if the connection is reset instead of an answer."""

    name: str
    ends: bool
    status: HTTPStatus | None


THROTTLE = Fault("429", ends=False, status=HTTPStatus.TOO_MANY_REQUESTS)
REFUSE = Fault("403", ends=False, status=HTTPStatus.FORBIDDEN)
FAIL = Fault("503", ends=False, status=HTTPStatus.SERVICE_UNAVAILABLE)
RESET = Fault("reset before processing", ends=False, status=None)
END_AND_FAIL = Fault("ended, then 503", ends=True, status=HTTPStatus.SERVICE_UNAVAILABLE)
END_AND_RESET = Fault("ended, then reset", ends=True, status=None)
END_AND_HANG = Fault("ended, then no answer in time", ends=True, status=None)
END_ODDLY = Fault("ended, then 200 with {}", ends=True, status=HTTPStatus.OK)
HANG_SECONDS = 6  # longer than the function waits for its first answer
ALWAYS = 1000  # more requests than any conversation gets

# The first try records `ended`, but the bus refuses its result. The second one gets no usable answer, and must not
# replace the record with `unconfirmed`.
RECORDED_THEN_DOUBTFUL = (None, FAIL, FAIL, FAIL)
# The faults of successive requests for one conversation, and how many conversations in a thousand get them. Requests
# after the last fault succeed. The function sends at most three before it postpones the message.
SCRIPTS: dict[tuple[Fault | None, ...], int] = {
    (): 614,
    (THROTTLE,): 90,
    (FAIL, THROTTLE): 45,
    (RESET,): 60,
    (RESET, FAIL, FAIL): 30,
    (END_AND_FAIL,): 40,
    (END_AND_RESET,): 40,
    (END_AND_HANG,): 10,
    (END_ODDLY,): 20,
    (END_AND_RESET, FAIL, FAIL): 15,
    RECORDED_THEN_DOUBTFUL: 15,
    (REFUSE,) * ALWAYS: 10,
    (FAIL,) * ALWAYS: 8,
    (END_AND_FAIL, *(FAIL,) * ALWAYS): 3,
}


class FaultyTavus(Tavus):
    """Answers the requests for each conversation with its faults first, then correctly.

    `truths` and `ends_at` have conversation ids as keys. `early` lists the requests that arrived before `ends_at`.
    """

    def __init__(self, rng: random.Random, ids: Sequence[str]) -> None:
        super().__init__()
        scripts = dict(zip(ids, rng.sample(list(SCRIPTS), len(ids), counts=SCRIPTS.values()), strict=True))
        self.truths = {key: Truth(len(script) >= ALWAYS and REFUSE not in script) for key, script in scripts.items()}
        self.recorded_then_doubtful = [key for key, script in scripts.items() if script is RECORDED_THEN_DOUBTFUL]
        self.ends_at: dict[str, str] = {}
        self.early: list[str] = []
        self.faults_met: Counter[str] = Counter()
        self._faults = {key: iter(script) for key, script in scripts.items()}
        self._state = Lock()

    @override
    def answer(self, request: Request) -> tuple[HTTPStatus, dict[str, str]]:
        conversation_id = request.path.split("/")[-2]
        if (now := seconds_ahead(0)) < (ends_at := self.ends_at.get(conversation_id, "")):
            self.early.append(f"{conversation_id}: Tavus got a request at {now}, before {ends_at}")
        with self._state:
            fault = next(self._faults[conversation_id], None)
            self.faults_met[fault.name if fault else "no fault"] += 1
        truth = self.truths[conversation_id]
        if fault is None or fault.ends:
            status, members = super().answer(request)
            truth.ended |= status is HTTPStatus.OK
        if fault is None:
            truth.confirmed |= status is HTTPStatus.OK
            return status, members
        truth.refused |= fault is REFUSE
        truth.doubtful |= fault not in (THROTTLE, REFUSE)
        if fault is END_AND_HANG:
            time.sleep(HANG_SECONDS)
        if fault.status is None:
            raise Reset
        return fault.status, {}
