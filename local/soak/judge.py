"""Compares what was published with what Tavus knows, what the table holds, and what the function could not know."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

    from local.soak.faulty_tavus import Truth

STATUSES = ("rejected", "not_found", "unconfirmed", "ended")  # weakest first


class Verdict(StrEnum):
    """A judgement of a conversation's strongest result. The last three excuse a result that says too little."""

    TRUE = "true"
    UNTRUE = "untrue"
    UNREAD = "excused, record not read"
    UNWRITTEN = "excused, record not written"
    KILLED = "excused, killed before the answer"


def judge(strongest: str | None, truth: Truth, record: str | None, unmade: Container[str]) -> Verdict:
    """Judge the strongest result, which is None if there is none. `unmade` are the failed operations."""
    if agrees(strongest, truth):
        return Verdict.TRUE
    if strongest not in ("not_found", "unconfirmed"):
        return Verdict.UNTRUE
    if record is not None and STATUSES.index(record) > STATUSES.index(strongest):
        return Verdict.UNREAD if "GetItem" in unmade else Verdict.UNTRUE
    if truth.ended and "PutItem" in unmade:
        return Verdict.UNWRITTEN
    return Verdict.KILLED if truth.ended and truth.killed else Verdict.UNTRUE


def agrees(strongest: str | None, truth: Truth) -> bool:
    """Whether the strongest result says what Tavus' answers prove, no more and no less."""
    match strongest:
        case "ended":
            return truth.confirmed
        case "unconfirmed":
            return truth.doubtful and not truth.confirmed
        case "not_found":
            return not truth.ended
        case "rejected":
            return truth.refused and not truth.ended
    return truth.hopeless
