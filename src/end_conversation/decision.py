"""The two tables that decide every result. Standard library only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from end_conversation.conversation import Reason, Result, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from end_conversation.conversation import Conversation


class Answer(NamedTuple):
    """A complete HTTP answer from Tavus. `body` is undecoded, and None if it is larger than the limit."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes | None


class NoAnswer(NamedTuple):
    """An attempt without a complete answer.

    `reason` is TAVUS_TIMEOUT or TAVUS_UNREACHABLE, and `failure` names the failure without quoting the server. `sent`
    says whether Tavus may have received the request, and `retryable` whether another attempt can succeed.
    """

    reason: Reason
    failure: str
    sent: bool
    retryable: bool = True


def decide(  # noqa: PLR0911 - one return for each row of the table
    answer: Answer | NoAnswer, conversation: Conversation, *, earlier_may_have_ended: bool
) -> tuple[Status, Reason | None]:
    """Table 1: what the last answer means, given whether an earlier attempt may have ended the conversation."""
    if isinstance(answer, NoAnswer):
        return Status.UNAVAILABLE, answer.reason
    match answer.status_code:
        case code if 200 <= code < 300:
            if _says_ended(answer.body, conversation):
                return Status.ENDED, None
            return Status.UNCONFIRMED, Reason.UNEXPECTED_ANSWER
        case code if code in (423, 429) or (code == 403 and "Retry-After" in answer.headers):
            return Status.UNAVAILABLE, Reason.TAVUS_THROTTLED
        case code if code == 425 or _is_server_failure(code):
            return Status.UNAVAILABLE, Reason.TAVUS_ERROR
        # Every status from here on is a refusal.
        case _ if earlier_may_have_ended:
            return Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT
        case 404 | 410:
            return Status.NOT_FOUND, None
        case _:
            return Status.REJECTED, Reason.TAVUS_REJECTED


def may_have_ended(answer: Answer | NoAnswer) -> bool:
    """Whether an unavailable attempt with this outcome may have ended the conversation."""
    return answer.sent if isinstance(answer, NoAnswer) else _is_server_failure(answer.status_code)


def combine(result: Result, known: Result | None) -> Result:
    """Table 2: what is known after an invocation, given the record of earlier ones.

    `known` is None if nothing is recorded, `unconfirmed` if an earlier invocation may have ended the conversation, and
    `ended` if one has.
    """
    if known is None:
        return result
    match result.status, known.status:
        case Status.ENDED, _:
            return result
        case _, Status.ENDED:
            return known
        case ((Status.NOT_FOUND | Status.REJECTED), Status.UNCONFIRMED):
            return result._replace(status=Status.UNCONFIRMED, reason=Reason.EARLIER_ATTEMPT)
        case _:
            return result


def to_record(result: Result) -> Result | None:
    """What a result adds to the record: that the conversation has ended, that it may have ended, or nothing."""
    if result.status in (Status.ENDED, Status.UNCONFIRMED):
        return result
    if result.may_have_ended:
        return Result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, result.decided_at, result.attempts)
    return None


def _is_server_failure(status_code: int) -> bool:
    """Whether Tavus may have acted on the request before it failed: 408 and 5xx, but not 501 and 505 (RFC 9110, 15)."""
    return status_code == 408 or (status_code >= 500 and status_code not in (501, 505))


def _says_ended(body: bytes | None, conversation: Conversation) -> bool:
    """Whether the body is strict JSON without duplicate members, names this conversation, and says `ended`."""
    try:
        members = json.loads((body or b"").decode(), object_pairs_hook=_unique, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        return False
    expected = {"conversation_id": conversation.conversation_id, "status": "ended"}
    return isinstance(members, dict) and expected.items() <= members.items()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("duplicate member")
    return members


def _reject_constant(constant: str) -> None:
    raise ValueError(constant)
