"""The record: what we knew of a conversation outlives a crash, and outranks what Tavus says of it next."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from end_conversation.conversation import Reason, Result, Status
from end_conversation.errors import RecordUnavailable, TavusUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from end_conversation.conversation import Conversation, End
    from end_conversation.deadline import Clock, Deadline


class Record(Protocol):
    """Where results are kept. Either method raises RecordUnavailable when it can't be reached."""

    def recall(self, conversation: Conversation, deadline: Deadline) -> Result | None:
        """Give the result kept of a conversation, as of now."""

    def keep(self, conversation: Conversation, result: Result, deadline: Deadline) -> None:
        """Write a result down unless a stronger one stands there."""


class EndRecorded:
    """Ends conversations, with a record of what is known. The record failing never stops an end."""

    def __init__(self, end: End, record: Record, on_failure: Callable[[RecordUnavailable], None], clock: Clock) -> None:
        self._end = end
        self._record = record
        self._on_failure = on_failure
        self._clock = clock

    def __call__(self, conversation: Conversation, deadline: Deadline) -> Result:
        """Give the stronger of what Tavus says and what is known. Raises TavusUnavailable where neither settles it."""
        try:
            result = self._end(conversation, deadline)
        except TavusUnavailable as unavailable:
            known = self._recall(conversation, deadline)
            # What an answer of Tavus' once settled stands; a mere suspicion is worth another try.
            if known is not None and known.settled:
                return known
            if known is None and unavailable.may_have_ended:
                self._suspect(conversation, unavailable.attempts, deadline)
            raise
        if result.status in (Status.ENDED, Status.UNCONFIRMED):
            self._keep(conversation, result, deadline)
        if result.status is Status.ENDED:
            return result
        # Asked once it is written: where another run was first with a stronger one, that stands there.
        known = self._recall(conversation, deadline)
        if known is None and result.may_have_ended:
            self._suspect(conversation, result.attempts, deadline)
        if known is None or not known.outranks(result):
            return result
        if known.settled or not result.settled:
            return known
        result = replace(result, status=Status.UNCONFIRMED, reason=Reason.EARLIER_ATTEMPT, may_have_ended=False)
        self._keep(conversation, result, deadline)
        return result

    def _suspect(self, conversation: Conversation, attempts: int, deadline: Deadline) -> None:
        suspicion = Result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, self._clock.now(), attempts)
        self._keep(conversation, suspicion, deadline)

    def _recall(self, conversation: Conversation, deadline: Deadline) -> Result | None:
        try:
            return self._record.recall(conversation, deadline)
        except RecordUnavailable as error:
            self._on_failure(error)
            return None

    def _keep(self, conversation: Conversation, result: Result, deadline: Deadline) -> None:
        try:
            self._record.keep(conversation, result, deadline)
        except RecordUnavailable as error:
            self._on_failure(error)
