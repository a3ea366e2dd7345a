"""Fakes for Lambda's context, events, settings, time, telemetry, the record and AWS."""

from __future__ import annotations

import json
import ssl
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from moto import mock_aws
from moto.core.models import botocore_stubber

from end_conversation.aws import client as aws_client
from end_conversation.aws.client import ClientFactory
from end_conversation.conversation import Reason, Result, Status
from end_conversation.deadline import Clock
from end_conversation.telemetry import Telemetry
from end_conversation.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Iterator

    from end_conversation.conversation import Conversation
    from end_conversation.deadline import Deadline
    from end_conversation.errors import AwsCallFailed
    from end_conversation.telemetry import Trigger


TIMER_SETTINGS = {
    "TIMER_GROUP_NAME": "default",
    "TIMER_TARGET": '{"Arn": "arn:aws:sqs:eu-west-1:111122223333:timeouts",'
    ' "RoleArn": "arn:aws:iam::111122223333:role/timer"}',
}

TRUSTS_NOBODY = Trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def sample(name: str, **changes: Any) -> Any:
    """Return a sample of events/, with some members changed."""
    event = json.loads((Path(__file__).parents[2] / "events" / f"{name}.json").read_text())
    return event | changes if changes else event


class Context(LambdaContext):
    """Lambda's context of an invocation with this many milliseconds left."""

    _function_name = "end-conversation"
    _function_version = "$LATEST"
    _invoked_function_arn = "arn:aws:lambda:eu-west-1:111122223333:function:end-conversation"
    _memory_limit_in_mb = 128

    def __init__(self, remaining_ms: int = 10_000, request_id: str = "8f507e5b-6d1c-4c5e-9a53-0f8d3c1b2a47") -> None:
        self._aws_request_id = request_id
        self.get_remaining_time_in_millis = lambda: remaining_ms  # type: ignore[method-assign]


class FakeClock(Clock):
    """A clock that starts on 22 November 2026 and advances only by `sleep` and `advance`."""

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
        self.logged: list[tuple[Trigger, Result]] = []
        self.results: list[tuple[Trigger, Result]] = []
        self.invalids: list[tuple[Trigger, str]] = []
        self.details: list[str | None] = []
        self.unpublished: list[str] = []
        self.queue_failures: list[tuple[str, str]] = []
        self.lateness: list[float] = []
        self.limits: list[tuple[str, str]] = []

    def log_result(self, trigger: Trigger, conversation: Conversation, result: Result, deadline: Deadline) -> None:
        self.logged.append((trigger, result))

    def count_result(self, trigger: Trigger, result: Result) -> None:
        self.results.append((trigger, result))

    def invalid(self, trigger: Trigger, reason: str, detail: str | None = None) -> None:
        self.invalids.append((trigger, reason))
        self.details.append(detail)

    def limit_reached(self, result: Result) -> None:
        self.limits.append(("reached", result.status))

    def publish_failed(self, kind: str) -> None:
        self.unpublished.append(kind)

    def late(self, seconds: float) -> None:
        self.lateness.append(seconds)

    def queue_failed(self, message: str, kind: str) -> None:
        self.queue_failures.append((message, kind))

    def armed(self, conversation: Conversation, ends_at: str, deadline: Deadline) -> None:
        self.limits.append(("armed", ends_at))

    def timer_failed(self, conversation: Conversation, kind: str, deadline: Deadline) -> None:
        self.limits.append(("timer_failed", kind))


class FakeQueue:
    """Remembers what is postponed and refused, or fails."""

    def __init__(self) -> None:
        self.failure: AwsCallFailed | None = None
        self.postponed: list[tuple[str, int]] = []
        self.left: list[float] = []
        self.refused: list[dict[str, Any]] = []

    def postpone(self, receipt_handle: str, seconds: int, deadline: Deadline) -> None:
        self.left.append(deadline.left())
        if self.failure is not None:
            raise self.failure
        self.postponed.append((receipt_handle, seconds))

    def send_to_failed(self, message: dict[str, Any], deadline: Deadline) -> None:
        if self.failure is not None:
            raise self.failure
        self.refused.append(message)


UNREAD = Result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, datetime(2026, 11, 22, tzinfo=UTC), 1)


class FakeRecord:
    """Holds the record of one conversation. While `down`, it stores nothing, and reads return UNREAD."""

    def __init__(self, known: Result | None = None, *, down: bool = False) -> None:
        self.known = known
        self.down = down
        self.gets = 0
        self.puts: list[Result] = []

    def get(self, conversation: Conversation, deadline: Deadline) -> Result | None:
        self.gets += 1
        return UNREAD if self.down else self.known

    def put(self, conversation: Conversation, result: Result, deadline: Deadline) -> None:
        if self.down:
            return
        self.puts.append(result)
        if self.known is None or self.known.status is not Status.ENDED or result.status is Status.ENDED:
            self.known = result


@contextmanager
def mocked_aws() -> Iterator[pytest.MonkeyPatch]:
    """Let moto answer all clients, ours too. It adds its handler to those that botocore registers by default."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        patch.setattr(aws_client, "HANDLERS", [*aws_client.HANDLERS, ("before-send", botocore_stubber)])
        yield patch


def create_client(service: Any, trust: Trust) -> Any:
    """Create a client as a deployment does."""
    return ClientFactory(trust).create(service)


class _Body(BytesIO):
    def stream(self) -> Iterator[bytes]:
        yield self.getvalue()


def let_aws_answer(client: Any, *answers: tuple[int, bytes]) -> list[object]:
    """Give a boto3 client these HTTP answers, a status and a body each. Returns the list of the requests it makes."""
    requests: list[object] = []

    def answer(request: Any, **_: object) -> AWSResponse:
        status, body = answers[len(requests)]
        requests.append(request)
        return AWSResponse(request.url, status, HTTPHeaders(), _Body(body))

    client.meta.events.register("before-send", answer)
    return requests
