"""What stands in for Lambda, for time, for the operator and for AWS in the tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from end_conversation.deadline import Clock
from end_conversation.errors import RecordUnavailable
from end_conversation.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from end_conversation.conversation import Conversation, Result
    from end_conversation.deadline import Deadline
    from end_conversation.errors import ResultNotPublished, TavusUnavailable
    from end_conversation.telemetry import Door


class Context(LambdaContext):
    """What Lambda tells of an invocation that has so many milliseconds left."""

    _function_name = "end-conversation"
    _function_version = "$LATEST"
    _invoked_function_arn = "arn:aws:lambda:eu-west-1:111122223333:function:end-conversation"
    _memory_limit_in_mb = 128

    def __init__(self, remaining_ms: int = 10_000, request_id: str = "8f507e5b-6d1c-4c5e-9a53-0f8d3c1b2a47") -> None:
        self._aws_request_id = request_id
        self.get_remaining_time_in_millis = lambda: remaining_ms  # type: ignore[method-assign]


class FakeClock(Clock):
    """One line of time, from 22 November 2026 on, that moves only when told or slept on."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.elapsed

    def now(self) -> datetime:
        return datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=self.elapsed)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.elapsed += seconds


class FakeTelemetry(Telemetry):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Door, Result | TavusUnavailable]] = []
        self.invalids: list[tuple[Door, str]] = []
        self.unpublished: list[ResultNotPublished] = []

    def outcome(
        self, door: Door, conversation: Conversation, outcome: Result | TavusUnavailable, deadline: Deadline
    ) -> None:
        self.outcomes.append((door, outcome))

    def invalid(self, door: Door, reason: str) -> None:
        self.invalids.append((door, reason))

    def publish_failed(self, error: ResultNotPublished) -> None:
        self.unpublished.append(error)


class FakeRecord:
    """A table of one conversation that keeps the strongest result; it may be down, and is slow up to its limit."""

    def __init__(self, clock: FakeClock, kept: Result | None = None, *, down: bool = False) -> None:
        self._clock = clock
        self.kept = kept
        self.down = down
        self.recalls = 0
        self.keeps: list[Result] = []

    def recall(self, conversation: Conversation, deadline: Deadline) -> Result | None:
        self.recalls += 1
        self._answer(deadline)
        return self.kept

    def keep(self, conversation: Conversation, result: Result, deadline: Deadline) -> None:
        self._answer(deadline)
        self.keeps.append(result)
        if self.kept is None or result.status == "ended" or (result.settled and self.kept.status != "ended"):
            self.kept = result

    def _answer(self, deadline: Deadline) -> None:
        self._clock.advance(deadline.left() / 4)
        if self.down:
            raise RecordUnavailable("ResourceNotFoundException")


class _Body(BytesIO):
    def stream(self) -> Iterator[bytes]:
        yield self.getvalue()


def let_aws_answer(client: Any, *answers: tuple[int, bytes]) -> list[object]:
    """Let a boto3 client meet these HTTP answers, each a status and a body, one a request; the requests it makes."""
    requests: list[object] = []

    def answer(request: Any, **_: object) -> AWSResponse:
        status, body = answers[len(requests)]
        requests.append(request)
        return AWSResponse(request.url, status, HTTPHeaders(), _Body(body))

    client.meta.events.register("before-send", answer)
    return requests
