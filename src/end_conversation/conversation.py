"""The room both doors lead to: what a conversation and a result are, and whose conversations may be ended.

Standard library only: nothing here knows HTTP, Lambda or AWS.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Container
    from datetime import datetime

    from end_conversation.deadline import Clock, Deadline

_ID = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


def is_id(value: object) -> bool:
    """Whether `value` may stand in Tavus' URL: a superset of the ids Tavus is known to make, none of them a path."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


class Status(StrEnum):
    """What became of a conversation, as far as one invocation can truthfully say."""

    ENDED = "ended"
    UNCONFIRMED = "unconfirmed"
    NOT_FOUND = "not_found"
    REJECTED = "rejected"


class Reason(StrEnum):
    """Why a result is no plain `ended` or `not_found`, or why there is none yet."""

    UNEXPECTED_ANSWER = "unexpected_answer"
    EARLIER_ATTEMPT = "earlier_attempt"
    TAVUS_REJECTED = "tavus_rejected"
    DEPLOYMENT_NOT_ALLOWED = "deployment_not_allowed"
    TAVUS_THROTTLED = "tavus_throttled"
    TAVUS_ERROR = "tavus_error"
    TAVUS_UNREACHABLE = "tavus_unreachable"
    TAVUS_TIMEOUT = "tavus_timeout"


class InvalidId(ValueError):
    """An id that can't be one of Tavus'. Says which it is and what it should be, and does not quote it."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation named by ids that are safe to put in a URL. Raises InvalidId for any others."""

    deployment_id: str
    conversation_id: str

    def __post_init__(self) -> None:
        for name in ("deployment_id", "conversation_id"):
            if not is_id(getattr(self, name)):
                raise InvalidId(
                    f"{name} must be 1 to 128 letters, digits, hyphens or underscores, the first a letter or digit"
                )


@dataclass(frozen=True, slots=True)
class Result:
    """What one invocation can truthfully say. A value, never an exception.

    `may_have_ended` tells the record alone that an attempt before this refusal may have ended the conversation.
    """

    status: Status
    reason: Reason | None
    decided_at: datetime
    attempts: int
    tavus_status_code: int | None = None
    tavus_request_id: str | None = None
    may_have_ended: bool = False

    @property
    def settled(self) -> bool:
        """Whether an answer of Tavus' led to it, and not the mere suspicion that an attempt without one did."""
        return self.tavus_status_code is not None

    def outranks(self, other: Result) -> bool:
        """Whether this is the stronger truth: `ended` before `unconfirmed` before the others."""
        return _STRENGTH[self.status] > _STRENGTH[other.status]

    def told(self) -> dict[str, Any]:
        """Give the members that are published and kept."""
        members = asdict(self)
        del members["may_have_ended"]
        return members


_STRENGTH = {Status.ENDED: 2, Status.UNCONFIRMED: 1, Status.NOT_FOUND: 0, Status.REJECTED: 0}


class End(Protocol):
    """Ends a conversation before the deadline. Raises TavusUnavailable where nothing can be said yet."""

    def __call__(self, conversation: Conversation, deadline: Deadline) -> Result: ...


class EndAllowed:
    """Ends conversations of the deployments on the allow-list; no other reaches Tavus."""

    def __init__(self, end: End, allowed_deployment_ids: Container[str], clock: Clock) -> None:
        self._end = end
        self._allowed = allowed_deployment_ids
        self._clock = clock

    def __call__(self, conversation: Conversation, deadline: Deadline) -> Result:
        if conversation.deployment_id in self._allowed:
            return self._end(conversation, deadline)
        return Result(Status.REJECTED, Reason.DEPLOYMENT_NOT_ALLOWED, self._clock.now(), attempts=0)
