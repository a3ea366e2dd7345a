"""Our errors. No text quotes a caller. Of a server, at most an error code is quoted."""


class EndConversationError(Exception):
    """Base class of our errors. Never raised itself."""


class InvalidSetting(EndConversationError):
    """An environment variable is missing or wrong. Correct it and deploy again."""


class InvalidId(EndConversationError):
    """An id is malformed. The text says which one, and what an id looks like."""


class UnsupportedEvent(EndConversationError):
    """The event is of a kind that this deployment does not handle."""


class InvalidEvent(EndConversationError):
    """The event names no conversation, or no time to end it. Sending it again does not help."""


class TryLater(EndConversationError):
    """Base class of errors after which another try may succeed. `retry_after` is Tavus' Retry-After in seconds."""

    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class TavusUnavailable(TryLater):
    """Tavus gave no usable answer."""


class ResultNotPublished(TryLater):
    """The event bus did not accept the result."""


class AwsCallFailed(EndConversationError):
    """A call to AWS failed. `kind` is AWS' error code, or what `failure_name` returns."""

    def __init__(self, kind: str, *, retryable: bool) -> None:
        super().__init__(kind)
        self.kind = kind
        self.retryable = retryable
