"""How a conversation is ended: call Tavus, and combine the result with the record of earlier invocations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from end_conversation.conversation import Reason, Result, Status
from end_conversation.decision import combine, to_record

if TYPE_CHECKING:
    from end_conversation.conversation import Conversation
    from end_conversation.deadline import Clock, Deadline


class EndConversation(Protocol):
    """Ends a conversation before the deadline."""

    def __call__(self, conversation: Conversation, deadline: Deadline) -> Result: ...


class Record(Protocol):
    """What is known about conversations from earlier invocations. Reports its own failures and never raises."""

    def get(self, conversation: Conversation, deadline: Deadline) -> Result | None:
        """Return an `ended` or `unconfirmed` result, or None if nothing is known. On failure, an `unconfirmed` one."""

    def put(self, conversation: Conversation, result: Result, deadline: Deadline) -> None:
        """Store an `ended` or `unconfirmed` result. Never replaces `ended` with `unconfirmed`."""


class Log(Protocol):
    """Logs a result. Never raises."""

    def __call__(self, conversation: Conversation, result: Result, deadline: Deadline) -> None: ...


def deployment_not_allowed(clock: Clock) -> Result:
    """Return the result for a deployment that is not on the allow-list."""
    return Result(Status.REJECTED, Reason.DEPLOYMENT_NOT_ALLOWED, clock.now(), attempts=0)


class EndRecorded:
    """Ends conversations and records the results, so that a second invocation after a crash reports the right one.

    `log_answer` logs Tavus' answer where the record may still change the result, and `log_result` each final result.
    Without a record, the answer is final.
    """

    def __init__(
        self, end_conversation: EndConversation, record: Record | None, log_answer: Log, log_result: Log
    ) -> None:
        self._end_conversation = end_conversation
        self._record = record
        self._log_answer = log_answer
        self._log_result = log_result

    def __call__(self, conversation: Conversation, deadline: Deadline) -> Result:
        result = self._end_conversation(conversation, deadline)
        if self._record is None:
            self._log_result(conversation, result, deadline)
            return result
        # Logged before the table is called, in case Lambda kills this invocation there.
        log = self._log_result if result.status is Status.ENDED else self._log_answer
        log(conversation, result, deadline)
        # Written before it is read: if another invocation has just written `ended`, the read below finds it.
        if (recorded := to_record(result)) is not None:
            self._record.put(conversation, recorded, deadline)
        if result.status is Status.ENDED:
            return result
        outcome = combine(result, self._record.get(conversation, deadline))
        self._log_result(conversation, outcome, deadline)
        return outcome
