"""The domain types: a conversation, and the result of ending it. Standard library only."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple, Self

from end_conversation.errors import InvalidId

# The `trigger.source` and the `trigger.detail_type` of the results of limits.
LIMIT_SOURCE = "end-conversation"
LIMIT_DETAIL_TYPE = "Session Limit"
# How far ahead the `ends_at` of a session timeout may be.
MAX_SECONDS_AHEAD = 15 * 60

_ID = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
# What a broken caller sends in place of an id that it does not have.
_MISSING = {"undefined", "null", "nan", "none"}


def is_id(value: object) -> bool:
    """Whether `value` is safe to put into Tavus' URL. Accepts every form of id that Tavus is known to use."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None and value.lower() not in _MISSING


def format_utc(time: datetime) -> str:
    """Format a time in UTC as in events and answers, such as 2026-11-29T08:37:41Z."""
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def parse_utc(text: object) -> datetime:
    """Parse a time in exactly the format of `format_utc`. Raises ValueError."""
    if isinstance(text, str):
        time = datetime.fromisoformat(text)
        if time.tzinfo == UTC and format_utc(time) == text:
            return time
    raise ValueError(text)


class Status(StrEnum):
    """What one invocation knows about a conversation."""

    ENDED = "ended"
    UNCONFIRMED = "unconfirmed"
    NOT_FOUND = "not_found"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"


class Reason(StrEnum):
    """Why the status is what it is. `ended` and `not_found` have no reason."""

    UNEXPECTED_ANSWER = "unexpected_answer"
    EARLIER_ATTEMPT = "earlier_attempt"
    TAVUS_REJECTED = "tavus_rejected"
    DEPLOYMENT_NOT_ALLOWED = "deployment_not_allowed"
    TAVUS_THROTTLED = "tavus_throttled"
    TAVUS_ERROR = "tavus_error"
    TAVUS_UNREACHABLE = "tavus_unreachable"
    TAVUS_TIMEOUT = "tavus_timeout"


class _Ids(NamedTuple):  # typing forbids a `__new__` here, so the subclass validates
    deployment_id: str
    conversation_id: str


class Conversation(_Ids):
    """A conversation, named by two valid ids. Raises InvalidId."""

    __slots__ = ()

    def __new__(cls, deployment_id: str, conversation_id: str) -> Self:
        """Validate the ids."""
        for name, value in (("deployment_id", deployment_id), ("conversation_id", conversation_id)):
            if not is_id(value):
                raise InvalidId(
                    f"{name} must be 1 to 128 letters, digits, hyphens or underscores, the first a letter or digit, "
                    "and not undefined, null, NaN or None"
                )
        return super().__new__(cls, deployment_id, conversation_id)

    @property
    def key(self) -> str:
        """The two ids as one string: the key of the record, and the description of the schedule."""
        return f"{self.deployment_id}/{self.conversation_id}"


class Result(NamedTuple):
    """The result of one invocation.

    `decided_at` is in UTC. `attempts` counts the attempts to call Tavus, also those that could not connect. The last
    three members describe results that are `unavailable`: `failure` names what went wrong, `retry_after` is Tavus'
    Retry-After in seconds, and `may_have_ended` says whether an attempt may have ended the conversation anyway.
    """

    status: Status
    reason: Reason | None
    decided_at: datetime
    attempts: int
    tavus_status_code: int | None = None
    tavus_request_id: str | None = None
    failure: str | None = None
    retry_after: float | None = None
    may_have_ended: bool = False
