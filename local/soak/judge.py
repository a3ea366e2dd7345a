"""Compares what was published with what Tavus knows, what the table holds, and what the function could not know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING

from local.soak.storm import STATUSES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from local.soak.faulty_aws import FaultyAws
    from local.soak.faulty_tavus import Truth

# An invocation that has ended a conversation records that within this time, after at most two further attempts.
RECORD_SECONDS = 5
# Tavus may end a conversation this long after the sandbox that requested it was killed.
LATE_SECONDS = 1


class Verdict(StrEnum):
    """A judgement of a conversation's strongest result. The last three excuse a result that says too little."""

    TRUE = "true"
    UNTRUE = "untrue"
    UNREAD = "excused, record not read"
    UNWRITTEN = "excused, record not written"
    KILLED = "excused, killed before the record"


@dataclass(frozen=True)
class Judge:
    """What is known at the end of a run. `records` holds the recorded statuses, and `kills` the times of the kills."""

    truths: Mapping[str, Truth]
    records: Mapping[str, str]
    aws: FaultyAws
    kills: Sequence[float]

    def verdict(self, conversation_id: str, strongest: str | None) -> Verdict:
        """Judge the strongest result of a conversation, which is None if there is no result."""
        truth, record = self.truths[conversation_id], self.records.get(conversation_id, "not_found")
        unread, unwritten = ((call, conversation_id) in self.aws.failed for call in ("GetItem", "PutItem"))
        if agrees(strongest, truth):
            return Verdict.TRUE
        if truth.ended_at is None or strongest not in ("not_found", "unconfirmed"):
            return Verdict.UNTRUE
        if STATUSES.index(record) > STATUSES.index(strongest):
            return Verdict.UNREAD if unread else Verdict.UNTRUE
        if unwritten:
            return Verdict.UNWRITTEN
        recorded_at = min((at for at in self.aws.writes[conversation_id] if at > truth.ended_at), default=inf)
        until = min(recorded_at, truth.ended_at + RECORD_SECONDS)
        killed = any(truth.ended_at - LATE_SECONDS < kill < until for kill in self.kills)
        return Verdict.KILLED if killed else Verdict.UNTRUE


def agrees(strongest: str | None, truth: Truth) -> bool:
    """Whether the strongest result says what Tavus' answers prove, no more and no less."""
    ended = truth.ended_at is not None
    match strongest:
        case "ended":
            return truth.confirmed
        case "unconfirmed":
            return truth.doubtful and not truth.confirmed
        case "not_found":
            return not ended
        case "rejected":
            return truth.refused and not ended
    return truth.hopeless
