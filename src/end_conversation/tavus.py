"""Tavus' end endpoint behind one method: what its answers mean, and when to ask again.

Tavus' "End Deployment Conversation" page promises a 200 with `conversation_id` and `status`, and a 404; no more.
"""

from __future__ import annotations

import json
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol

from end_conversation.attempt import NoAnswer
from end_conversation.conversation import Reason, Result, Status
from end_conversation.errors import TavusUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from end_conversation.conversation import Conversation
    from end_conversation.deadline import Clock, Deadline
    from end_conversation.exchange import Answer

MAX_ATTEMPTS = 3
LEAST_SECONDS = 0.25
BACKOFF_SECONDS = 0.5

type Verdict = tuple[Status, Reason | None]


class Post(Protocol):
    """One POST to `path` at Tavus, over in so many seconds. Raises NoAnswer where there is no whole answer."""

    def __call__(self, path: str, seconds: float) -> Answer: ...


class Tavus:
    """Ends conversations at Tavus: at most MAX_ATTEMPTS attempts, each with an equal share of the time left."""

    def __init__(self, post: Post, clock: Clock, jitter: Callable[[float, float], float]) -> None:
        self._post = post
        self._clock = clock
        self._jitter = jitter

    def end(self, conversation: Conversation, deadline: Deadline) -> Result:
        """What Tavus' answers amount to before the deadline. Raises TavusUnavailable where that is nothing yet."""
        path = f"/v2/deployments/{conversation.deployment_id}/conversations/{conversation.conversation_id}/end"
        unavailable, wait = TavusUnavailable(Reason.TAVUS_TIMEOUT, "no time was left"), 0.0
        for attempt in range(1, MAX_ATTEMPTS + 1):
            if deadline.left_for_tavus() < wait + LEAST_SECONDS:
                break
            self._clock.sleep(wait)
            share = deadline.left_for_tavus() / (MAX_ATTEMPTS + 1 - attempt)
            earlier = unavailable.may_have_ended
            try:
                answer = self._post(path, share)
            except NoAnswer as error:
                cause = Reason.TAVUS_TIMEOUT if error.timeout else Reason.TAVUS_UNREACHABLE
                unavailable = TavusUnavailable(cause, error.kind, attempt, may_have_ended=earlier or error.sent)
                if error.untrusted:
                    break
            else:
                reason, may_have_ended = _unsettled(answer.status_code)
                if reason is None:
                    return self._result(answer, attempt, conversation, earlier=earlier)
                unavailable = TavusUnavailable(
                    reason,
                    f"HTTP {answer.status_code}",
                    attempt,
                    may_have_ended=earlier or may_have_ended,
                    retry_after=self._retry_after(answer),
                    tavus_status_code=answer.status_code,
                    tavus_request_id=_request_id(answer),
                )
            wait = max(unavailable.retry_after or 0, self._jitter(0, BACKOFF_SECONDS * 2 ** (attempt - 1)))
        raise unavailable

    def _result(self, answer: Answer, attempts: int, conversation: Conversation, *, earlier: bool) -> Result:
        match answer.status_code:
            case code if code < 300:
                said = _says_ended(answer.body, conversation)
                verdict: Verdict = (Status.ENDED, None) if said else (Status.UNCONFIRMED, Reason.UNEXPECTED_ANSWER)
            case 400 | 404 | 409 | 410 if earlier:
                verdict = Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT
            case 404 | 410:
                verdict = Status.NOT_FOUND, None
            case _:
                verdict = Status.REJECTED, Reason.TAVUS_REJECTED
        may_have_ended = earlier and verdict[0] is Status.REJECTED
        return Result(*verdict, self._clock.now(), attempts, answer.status_code, _request_id(answer), may_have_ended)

    def _retry_after(self, answer: Answer) -> float | None:
        """Seconds that Tavus asks to wait, as whole seconds or a date (RFC 9110, 10.2.3); None for junk or the past."""
        value = _header(answer, "Retry-After")
        if re.fullmatch("[0-9]+", value):
            return float(value)
        try:
            date = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - self._clock.now()).total_seconds()
        return seconds if seconds >= 0 else None


def _unsettled(status_code: int) -> tuple[Reason | None, bool]:
    """Why an answer settles nothing (None where it does), and whether its request may have ended the conversation."""
    if status_code in (423, 429):
        return Reason.TAVUS_THROTTLED, False
    if status_code == 425:
        return Reason.TAVUS_ERROR, False
    if status_code == 408 or (status_code >= 500 and status_code not in (501, 505)):
        return Reason.TAVUS_ERROR, True
    return None, False


def _says_ended(body: bytes | None, conversation: Conversation) -> bool:
    """Whether the body is strict JSON, each member once, that names this conversation and says `ended`."""
    try:
        said = json.loads((body or b"").decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    expected = {"conversation_id": conversation.conversation_id, "status": "ended"}
    return isinstance(said, dict) and expected.items() <= said.items()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError  # a member stands twice
    return members


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _header(answer: Answer, name: str) -> str:
    # http.client leaves the white space behind a value, which is none of it (RFC 9110, 5.5).
    return answer.headers.get(name, "").strip(" \t")


def _request_id(answer: Answer) -> str | None:
    value = _header(answer, "X-Tavus-Request-Id")
    return value if re.fullmatch("[A-Za-z0-9-]{1,64}", value) else None
