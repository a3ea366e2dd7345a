"""All our errors: whose fault each is, and whether it may be tried again. No text of theirs quotes a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from end_conversation.conversation import Reason


class EndConversationError(Exception):
    """Superclass of all our errors. Never raised itself."""


class InvalidSetting(EndConversationError):
    """The deployment's fault: an environment variable is missing or wrong. Deploy it again, mended."""


class UnsupportedEvent(EndConversationError):
    """The deployment's fault: an event that this deployment has no door for was sent to it."""


class InvalidEvent(EndConversationError):
    """The caller's fault: an event that names no conversation. Trying again won't help."""


class ResultNotPublished(EndConversationError):
    """AWS' fault: the result is known, and the event bus did not take it. May be tried again."""


class RecordUnavailable(EndConversationError):
    """AWS' fault: the table of ended conversations can't be asked or written. The run goes on without it."""


class TavusUnavailable(EndConversationError):
    """Tavus' fault: nothing can be said yet. May be tried again, `retry_after` seconds later where Tavus said so."""

    status: ClassVar = "unavailable"

    def __init__(  # noqa: PLR0913 - the same facts that a Result has
        self,
        reason: Reason,
        kind: str,
        attempts: int = 0,
        *,
        may_have_ended: bool = False,
        retry_after: float | None = None,
        tavus_status_code: int | None = None,
        tavus_request_id: str | None = None,
    ) -> None:
        super().__init__(f"{reason} after {attempts} attempts: {kind}")
        self.reason = reason
        self.attempts = attempts
        self.may_have_ended = may_have_ended
        self.retry_after = retry_after
        self.tavus_status_code = tavus_status_code
        self.tavus_request_id = tavus_request_id
