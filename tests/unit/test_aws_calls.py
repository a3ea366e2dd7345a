"""One rule for every call to AWS: temporary errors are retried once, and no call starts without the time for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from end_conversation.aws import client as aws_client
from end_conversation.aws.bus import EventBus
from end_conversation.aws.client import TRY_SECONDS, ClientFactory
from end_conversation.aws.queue import Queues
from end_conversation.aws.schedules import Schedules
from end_conversation.aws.table import EndedTable
from end_conversation.conversation import Conversation, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.errors import AwsCallFailed, ResultNotPublished
from tests.unit.fakes import TRUSTS_NOBODY, FakeClock, let_aws_answer
from tests.unit.fault_server import FaultServer, hang, reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.fault_server import Reply

C1 = Conversation("d1", "c1")
ENDED = Result(Status.ENDED, None, FakeClock().now(), 1, 200)
FACTORY: Any = ClientFactory(TRUSTS_NOBODY)  # one, because a session reads the data of a service only once
# The service of each call, and what it needs to find in an answer.
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "publish": ("events", {"FailedEntryCount": 0}),
    "record": ("dynamodb", {}),
    "look up": ("dynamodb", {"ConsumedCapacity": {}}),
    "set a limit": ("scheduler", {"ScheduleArn": "arn"}),
    "postpone": ("sqs", {}),
    "refuse": ("sqs", {"MessageId": "m1"}),
}

every_call = pytest.mark.parametrize("call", CALLS)
every_call_with_an_answer = pytest.mark.parametrize("call", [call for call, (_, members) in CALLS.items() if members])


def make(call: str, client: Any, seconds: float = 10) -> None:
    """Make a call with this many seconds left. Raises what names its failure."""
    clock = FakeClock()
    deadline = Deadline(clock, seconds, 0)

    def fail(kind: str) -> None:
        raise AwsCallFailed(kind, retryable=False)

    table = EndedTable(client, "ended", fail, clock)
    queue = Queues(lambda: client, "https://sqs.test/timeouts", "https://sqs.test/failed", clock)
    calls: dict[str, Callable[[], object]] = {
        "publish": lambda: EventBus(client, "bus", "source", lambda: None, clock).publish("type", {}, deadline),
        "record": lambda: table.put(C1, ENDED, deadline),
        "look up": lambda: table.get(C1, deadline),
        "set a limit": lambda: Schedules(client, "limits", {}, clock).put(C1, clock.now(), deadline),
        "postpone": lambda: queue.postpone("h1", 30, deadline),
        "refuse": lambda: queue.send_to_failed({"body": "{}"}, deadline),
    }
    calls[call]()


def fails(kind: str) -> Any:
    return pytest.raises((AwsCallFailed, ResultNotPublished), match=f"^{kind}$")


def success(call: str) -> tuple[int, bytes]:
    return 200, json.dumps(CALLS[call][1]).encode()


def failure(code: str, status: int = 400) -> tuple[int, bytes]:
    return status, json.dumps({"__type": f"com.amazonaws#{code}", "message": "from AWS"}).encode()


@every_call
@pytest.mark.parametrize(
    ("code", "status"), [("ThrottlingException", 400), ("InternalServerError", 500), ("Unheard", 503)]
)
def test_temporary_errors_are_retried_once(call: str, code: str, status: int) -> None:
    """The error has AWS' code and not its text."""
    client, failed = FACTORY.create(CALLS[call][0]), failure(code, status)
    requests = let_aws_answer(client, failed, success(call), failed, failed)

    make(call, client)
    with fails(code):
        make(call, client)

    assert len(requests) == 4


@every_call
@pytest.mark.parametrize(
    "code",
    [
        "AccessDeniedException",
        "ReceiptHandleIsInvalid",
        "ResourceNotFoundException",
        "ServiceQuotaExceededException",
        "ValidationException",
    ],
)
def test_permanent_errors_are_not_retried(call: str, code: str) -> None:
    client = FACTORY.create(CALLS[call][0])
    requests = let_aws_answer(client, failure(code))

    with fails(code):
        make(call, client)

    assert len(requests) == 1


@every_call_with_an_answer
@pytest.mark.parametrize(
    ("status", "body"),
    [
        *((200, body) for body in (b"", b"{}", b"{", b"null", b"[]", b"5", b"\xff", b"<html>")),
        (400, b"[]"),
        (500, b"\xff"),
    ],
)
def test_malformed_answers_are_failures(call: str, status: int, body: bytes) -> None:
    """The parser of botocore raises almost anything on such answers, or treats them as empty."""
    client = FACTORY.create(CALLS[call][0])
    let_aws_answer(client, (status, body), (status, body))

    with fails(".+"):
        make(call, client)


@every_call_with_an_answer
def test_truncated_answers_are_named(call: str) -> None:
    """For botocore, they are empty."""
    client = FACTORY.create(CALLS[call][0])
    requests = let_aws_answer(client, (200, b"{"), (200, b"{"))

    with fails("IncompleteAnswer"):
        make(call, client)

    assert len(requests) == (1 if call == "look up" else 2)


@every_call
def test_no_call_starts_without_time_for_it(call: str) -> None:
    client = FACTORY.create(CALLS[call][0])
    requests = let_aws_answer(client, success(call))

    with fails("NoTimeLeft"):
        make(call, client, TRY_SECONDS - 0.1)
    make(call, client, TRY_SECONDS)

    assert len(requests) == 1


@every_call
@pytest.mark.parametrize("fault", [hang, reset])
def test_broken_services_are_asked_twice(call: str, fault: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    """test_aws_client.py has other faults of one service."""
    monkeypatch.setattr(aws_client, "READ_SECONDS", 0.1)
    with FaultServer(fault) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        with fails("ReadTimeoutError" if fault is hang else "ProtocolError"):
            make(call, FACTORY.create(CALLS[call][0]))

    assert len(aws.requests) == 2
