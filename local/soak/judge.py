"""Compares a result with what Tavus knows, what the table holds, and what the function could not know."""

from collections.abc import Container
from dataclasses import dataclass

STATUSES = ("rejected", "not_found", "unconfirmed", "ended")  # weakest first
TRUE, UNTRUE = "true", "untrue"
UNREAD, UNWRITTEN = "record not read", "record not written"  # these excuse a result that says too little


@dataclass
class Truth:
    """The true outcome of a conversation."""

    hopeless: bool  # no request will ever get a conclusive answer
    ended: bool = False  # by one of our requests
    confirmed: bool = False  # the function got a complete answer that says so
    refused: bool = False  # a request was refused
    doubtful: bool = False  # the function can't know whether one of its requests ended it


def judge(strongest: str | None, truth: Truth, record: str | None, unmade: Container[str]) -> str:
    """Judge the strongest result, which is None if there is none. `unmade` are the calls that failed."""
    if agrees(strongest, truth):
        return TRUE
    if strongest not in ("not_found", "unconfirmed"):
        return UNTRUE
    stronger = record is not None and STATUSES.index(record) > STATUSES.index(strongest)
    if "GetItem" in unmade and (stronger or strongest == "unconfirmed"):  # an unread record counts as unconfirmed
        return UNREAD
    if stronger:
        return UNTRUE
    return UNWRITTEN if truth.ended and "PutItem" in unmade else UNTRUE


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
