"""Redriving: what an operator sees of the failure queues, and when a message leaves them."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

import operations.redrive
from operations.redrive import FUNCTION, QUEUES, main, redrive

UNDELIVERED, FAILED = QUEUES
EVENT: dict[str, Any] = json.loads((Path(__file__).parents[2] / "events/session-timeout.json").read_text())
THROTTLED = ClientError({"Error": {"Code": "TooManyRequestsException"}}, "Invoke")
UNREACHABLE = EndpointConnectionError(endpoint_url="https://lambda.example")

TEMPLATE = {
    "Resources": {output: {"Type": "AWS::SQS::Queue"} for output in QUEUES},
    "Outputs": {output: {"Value": {"Ref": output}} for output in QUEUES} | {FUNCTION: {"Value": "stack-event"}},
}


def record(event: Any) -> dict[str, Any]:
    """What Lambda tells of an asynchronous invocation that it gave up."""
    return {
        "version": "1.0",
        "timestamp": "2026-11-22T20:17:09.123Z",
        "requestContext": {
            "requestId": "5a7c",
            "functionArn": "arn:aws:lambda:eu-west-1:111122223333:function:stack-event:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": event,
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": {"errorType": "TavusUnavailable", "errorMessage": "tavus_error after 3 attempts: HTTP 503"},
    }


def named(conversation_id: str) -> dict[str, Any]:
    return EVENT | {"detail": EVENT["detail"] | {"conversation_id": conversation_id}}


class FakeLambda:
    """Accepts every event, unless `answer` does otherwise with the invocation's number, from 0 on."""

    def __init__(self, answer: Callable[[int], int] = lambda _: 202) -> None:
        self.invocations: list[dict[str, Any]] = []
        self._answer = answer

    def invoke(self, **invocation: Any) -> dict[str, Any]:
        self.invocations.append(invocation)
        return {"StatusCode": self._answer(len(self.invocations) - 1)}

    def events(self) -> list[Any]:
        return [json.loads(invocation["Payload"]) for invocation in self.invocations]


class Stack:
    """A stack with two failure queues and what is in them."""

    def __init__(self) -> None:
        self.sqs: Any = boto3.client("sqs")
        cloudformation = boto3.client("cloudformation")
        cloudformation.create_stack(StackName="end-conversation", TemplateBody=json.dumps(TEMPLATE))
        [stack] = cloudformation.describe_stacks(StackName="end-conversation")["Stacks"]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def fail(self, queue: str, body: object, error_code: str | None = None) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        attributes = {"ERROR_CODE": {"DataType": "String", "StringValue": error_code}} if error_code else {}
        self.sqs.send_message(QueueUrl=self.outputs[queue], MessageBody=text, MessageAttributes=attributes)

    def redrive(self, functions: Any, *, invoke: bool = True, sqs: Any = None) -> bool:
        return redrive(sqs or self.sqs, functions, self.outputs, invoke=invoke)

    def visible(self, queue: str) -> list[Any]:
        """The bodies that anyone could take now; they are hidden afterwards."""
        bodies = []
        while messages := self.take(queue):
            bodies += [message["Body"] for message in messages]
        return [json.loads(body) for body in bodies]

    def take(self, queue: str) -> Any:
        return self.sqs.receive_message(QueueUrl=self.outputs[queue], MaxNumberOfMessages=10).get("Messages", [])

    def count(self, queue: str) -> int:
        """How many messages there are, hidden ones too."""
        answer = self.sqs.get_queue_attributes(QueueUrl=self.outputs[queue], AttributeNames=["All"])
        kinds = "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"
        return sum(int(answer["Attributes"][kind]) for kind in kinds)


@pytest.fixture
def stack() -> Iterator[Stack]:
    with mock_aws():
        yield Stack()


def test_listing_says_when_why_and_which_conversation(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """Each failure is one line: its time in UTC, the conversation it names, and why it failed."""
    stack.fail(UNDELIVERED, named("c1"), error_code="NO_PERMISSIONS")
    stack.fail(FAILED, record(named("c2")))

    assert stack.redrive(FakeLambda(), invoke=False)

    today = f"{datetime.now(UTC):%Y-%m-%d}"
    [undelivered, failed] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  1/1  ")]
    assert undelivered.startswith(f"  1/1  {today} ")
    assert undelivered.endswith("Z  d1234567890abcdef/c1  NO_PERMISSIONS")
    assert failed.endswith("Z  d1234567890abcdef/c2  TavusUnavailable, RetriesExhausted")


@pytest.mark.parametrize(
    "detail", [None, {}, {"deployment_id": "d1"}, {"deployment_id": "d1", "conversation_id": "\a"}]
)
def test_listing_says_when_no_conversation_is_named(
    stack: Stack, capsys: pytest.CaptureFixture[str], detail: object
) -> None:
    """An event without two valid ids is listed as such, and no id of it is printed."""
    stack.fail(FAILED, record(EVENT | {"detail": detail}))

    stack.redrive(FakeLambda(), invoke=False)

    assert "Z  names no conversation  TavusUnavailable" in capsys.readouterr().out


def test_listing_shows_a_record_without_an_answer(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """An event that grew too old before it was ever run is listed too."""
    expired = record(EVENT) | {"responsePayload": None}
    expired["requestContext"]["condition"] = "EventAgeExceeded"
    stack.fail(FAILED, expired)

    stack.redrive(FakeLambda(), invoke=False)

    assert "c123456  no answer, EventAgeExceeded" in capsys.readouterr().out


def test_listing_says_what_was_wrong_in_an_event(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """Such an event will fail again, so whoever sends it needs to know; the words are the function's own."""
    wrong = {"errorType": "InvalidEvent", "errorMessage": "detail must have a deployment_id and a conversation_id"}
    stack.fail(FAILED, record(EVENT | {"detail": {}}) | {"responsePayload": wrong})

    stack.redrive(FakeLambda(), invoke=False)

    assert "InvalidEvent: detail must have a deployment_id and a conversation_id, " in capsys.readouterr().out


def test_listing_changes_nothing(stack: Stack) -> None:
    """After a listing nothing was invoked, and anyone can take every message at once."""
    events = [named(f"c{number}") for number in range(12)]
    for event in events:
        stack.fail(UNDELIVERED, event)
        stack.fail(FAILED, record(event))
    functions = FakeLambda()

    assert stack.redrive(functions, invoke=False)

    assert functions.invocations == []
    assert stack.visible(UNDELIVERED) == events
    assert stack.visible(FAILED) == [record(event) for event in events]


@pytest.mark.parametrize("queue", QUEUES)
def test_the_whole_original_event_is_invoked_and_then_deleted(stack: Stack, queue: str) -> None:
    """Lambda is handed the event as it first was, asynchronously, and its message is gone."""
    event = EVENT | {"unknown": [{"é\U0001f600": 2**60}, 0.1, None, ""]}
    stack.fail(queue, event if queue == UNDELIVERED else record(event))
    functions = FakeLambda()

    assert stack.redrive(functions)

    assert functions.events() == [event]
    [invocation] = functions.invocations
    assert (invocation["FunctionName"], invocation["InvocationType"]) == ("stack-event", "Event")
    assert stack.count(queue) == 0


def test_a_message_is_there_until_its_event_is_accepted(stack: Stack) -> None:
    """While Lambda is asked, the message is still in its queue, hidden from other runs."""
    stack.fail(FAILED, record(EVENT))
    seen = []

    def look(_: int) -> int:
        seen.append((stack.count(FAILED), stack.visible(FAILED)))
        return 202

    stack.redrive(FakeLambda(look))

    assert seen == [(1, [])]


@pytest.mark.parametrize("refusal", [THROTTLED, UNREACHABLE, 200])
def test_an_event_that_is_not_accepted_stays(
    stack: Stack, capsys: pytest.CaptureFixture[str], refusal: Exception | int
) -> None:
    """Whatever Lambda says but 202, the message can be taken again at once, and the run did not go well."""
    stack.fail(FAILED, record(EVENT))

    def refuse(_: int) -> int:
        if isinstance(refusal, int):
            return refusal
        raise refusal

    assert not stack.redrive(FakeLambda(refuse))

    assert "  -> not accepted: " in capsys.readouterr().out
    assert stack.visible(FAILED) == [record(EVENT)]


def test_a_refusal_does_not_stop_the_others(stack: Stack) -> None:
    """The events after a refused one are invoked, and only the refused one stays."""
    for number in range(3):
        stack.fail(FAILED, record(named(f"c{number}")))

    def refuse_the_second(invocation: int) -> int:
        if invocation == 1:
            raise THROTTLED
        return 202

    assert not stack.redrive(FakeLambda(refuse_the_second))

    assert stack.visible(FAILED) == [record(named("c1"))]


@pytest.mark.parametrize(
    "body", ["no JSON", "null", "[]", "{}", "[" * 100_000, json.dumps(record(None)), '{"requestPayload": {}}']
)
def test_a_message_that_cannot_be_read_stays(stack: Stack, capsys: pytest.CaptureFixture[str], body: str) -> None:
    """A body that is neither an event nor a record of one is listed as such, kept, and not passed over in silence."""
    stack.fail(FAILED, body)
    functions = FakeLambda()

    assert not stack.redrive(functions)

    assert functions.invocations == []
    assert "Z  cannot be read" in capsys.readouterr().out
    assert [message["Body"] for message in stack.take(FAILED)] == [body]


def test_an_interruption_after_the_invocation_leaves_the_message(stack: Stack) -> None:
    """Ctrl-C between Lambda's answer and the deletion: the event may run twice, and is not lost."""
    for number in range(3):
        stack.fail(FAILED, record(named(f"c{number}")))

    def interrupt_the_second(invocation: int) -> int:
        if invocation == 1:
            raise KeyboardInterrupt
        return 202

    with pytest.raises(KeyboardInterrupt):
        stack.redrive(FakeLambda(interrupt_the_second))

    assert stack.visible(FAILED) == [record(named("c1")), record(named("c2"))]


@pytest.mark.parametrize("invoke", [False, True])
def test_nothing_to_do_is_no_failure(stack: Stack, invoke: bool) -> None:
    """With both queues empty a run goes well and invokes nothing."""
    functions = FakeLambda()

    assert stack.redrive(functions, invoke=invoke)

    assert functions.invocations == []


def test_more_messages_than_sqs_hands_out_at_once(stack: Stack) -> None:
    """Every one of 23 events is invoked once."""
    events = [named(f"c{number}") for number in range(23)]
    for event in events:
        stack.fail(FAILED, record(event))
    functions = FakeLambda()

    assert stack.redrive(functions)

    assert functions.events() == events
    assert stack.count(FAILED) == 0


def test_events_that_come_back_are_left_for_the_next_run(stack: Stack) -> None:
    """A run invokes no more events than it found, though each fails again at once."""
    for number in range(12):
        stack.fail(FAILED, record(named(f"c{number}")))

    def fail_again(invocation: int) -> int:
        stack.fail(FAILED, record(named(f"c{invocation}")))
        return 202

    functions = FakeLambda(fail_again)

    assert stack.redrive(functions)

    assert functions.events() == [named(f"c{number}") for number in range(12)]
    assert stack.count(FAILED) == 12


class ShortSighted:
    """SQS where a short poll asks a server that has none of the messages."""

    def __init__(self, sqs: Any) -> None:
        self._sqs = sqs

    def receive_message(self, **asked: Any) -> Any:
        return self._sqs.receive_message(**asked) if asked.get("WaitTimeSeconds") else {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sqs, name)


def test_messages_are_waited_for(stack: Stack) -> None:
    """Messages that a short poll misses are found."""
    stack.fail(FAILED, record(EVENT))

    assert stack.redrive(functions := FakeLambda(), sqs=ShortSighted(stack.sqs))

    assert functions.events() == [EVENT]


def test_what_another_run_is_at_is_left_to_it(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """A message that another run has taken is mentioned, and not invoked."""
    stack.fail(FAILED, record(EVENT))
    stack.take(FAILED)
    functions = FakeLambda()

    assert stack.redrive(functions)

    assert functions.invocations == []
    assert "Failed in the function: 0, and 1 that another run is at" in capsys.readouterr().out


def test_a_run_ends_when_another_took_the_rest(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that were counted and then taken by another run are not waited for longer than once."""
    monkeypatch.setattr("operations.failures.WAIT_SECONDS", 1)
    for number in range(12):
        stack.fail(FAILED, record(named(f"c{number}")))

    def take_the_rest(_: int) -> int:
        stack.take(FAILED)
        return 202

    functions = FakeLambda(take_the_rest)

    assert stack.redrive(functions)

    assert len(functions.invocations) == 10


def exit_of(*arguments: str) -> object:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    return exited.value.code


def test_a_listing_exits_0(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """The command without options lists the stack of the default name, and how to go on."""
    stack.fail(FAILED, record(EVENT))

    assert exit_of() == 0

    assert "d1234567890abcdef/c123456" in (listed := capsys.readouterr().out)
    assert "make redrive INVOKE=yes" in listed


def test_a_refused_event_exits_1(stack: Stack) -> None:
    """The command exits 1 where Lambda accepts none: here, because the function is gone."""
    stack.fail(FAILED, record(EVENT))

    assert exit_of("--invoke") == 1


def unset_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")


def deploy_another(_: pytest.MonkeyPatch) -> None:
    template = TEMPLATE | {"Outputs": {}}
    boto3.client("cloudformation").create_stack(StackName="another", TemplateBody=json.dumps(template))


PROBLEMS: Mapping[str, tuple[Callable[[pytest.MonkeyPatch], None], str, str]] = {
    "no such stack": (
        lambda _: None,
        "elsewhere",
        "Stack with id elsewhere does not exist. Check --stack, AWS_PROFILE",
    ),
    "another stack": (deploy_another, "another", "Stack another has no output EventFunctionName. Name a stack that"),
    "no region": (unset_region, "end-conversation", "You must specify a region. Check --stack, AWS_PROFILE"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_problem_with_aws_is_one_line_and_exits_2(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], problem: str
) -> None:
    """What is wrong and what to check is said on one line of stderr, with no traceback."""
    prepare, name, sentence = PROBLEMS[problem]
    prepare(monkeypatch)

    assert exit_of("--stack", name) == 2

    [line] = capsys.readouterr().err.splitlines()
    assert sentence in line


def test_an_interrupted_command_says_where_the_events_are(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After Ctrl-C an operator reads that nothing is lost."""

    def interrupt(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(operations.redrive, "redrive", interrupt)

    assert exit_of("--invoke") == 130

    assert "is still in its queue" in capsys.readouterr().err
