"""The template, deployed to a local AWS (ministack) that enforces the role of each function."""

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from local.session import DEPLOYMENT_ID, end_path, put, schedules, send, session_timeout, timeout_path
from local.stack import Stack
from local.subscriber import Subscriber
from local.tavus import Tavus
from tests.local.delivery import assert_published, reach_limit, requests_for, set_limit

PROBE = """
import boto3
from botocore.exceptions import ClientError

def handler(call, context):
    try:
        getattr(boto3.client(call["service"]), call["operation"])(**call["arguments"])
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "allowed"
"""


def test_a_request_ends_the_conversation(stack: Stack, tavus: Tavus) -> None:
    """The answer is Tavus' own body."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    response = send(stack, "POST", end_path(DEPLOYMENT_ID, conversation_id))
    assert (response.status, response.json()) == (200, {"conversation_id": conversation_id, "status": "ended"})
    assert response.headers["Content-Type"] == "application/json"
    assert (DEPLOYMENT_ID, conversation_id) not in tavus.active
    assert requests_for(tavus, conversation_id) == 1


INVALID_IDS = ["..", "%2e%2e", "c1%0A", "c" * 129, "%D9%A1"]  # API Gateway may decode them or not
INVALID_SECONDS = ["seconds=59", "seconds=0", "seconds=", "seconds=1e3", "seconds=60&seconds=60"]
LIMIT = timeout_path(DEPLOYMENT_ID, "c1", 60)


@pytest.mark.parametrize(
    ("method", "path", "problem"),
    [
        *(("POST", end_path(DEPLOYMENT_ID, invalid), (400, "invalid_id")) for invalid in INVALID_IDS),
        *(("PUT", timeout_path(DEPLOYMENT_ID, invalid, 60), (400, "invalid_id")) for invalid in INVALID_IDS[1:]),
        *(("PUT", LIMIT.replace("seconds=60", invalid), (400, "invalid_seconds")) for invalid in INVALID_SECONDS),
        ("POST", end_path("dother", "c1"), (403, "deployment_not_allowed")),
        ("PUT", timeout_path("dother", "c1", 60), (403, "deployment_not_allowed")),
        # A POST sets no limit, and a PUT ends nothing: no function gets them.
        ("POST", LIMIT, (404, None)),
        ("PUT", end_path(DEPLOYMENT_ID, "c1"), (404, None)),
    ],
)
def test_an_invalid_request_does_nothing(
    stack: Stack, tavus: Tavus, method: str, path: str, problem: tuple[int, str | None]
) -> None:
    """The answer is a problem that says why. Tavus gets no request, and no limit is set."""
    schedules_before, asked_before = [found["Arn"] for found in schedules(stack)], len(tavus.requests)
    response = send(stack, method, path)
    assert (response.status, response.json().get("reason")) == problem
    assert len(tavus.requests) == asked_before
    assert [found["Arn"] for found in schedules(stack)] == schedules_before


def test_a_session_timeout_ends_the_conversation(stack: Stack, tavus: Tavus, subscriber: Subscriber) -> None:
    """The published result names the conversation and the event. The end is recorded for 30 days."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    event_id = put(stack, session_timeout(conversation_id))
    result = subscriber.result_of(event_id)
    assert_published(result)
    assert (result["detail"]["conversation_id"], result["detail"]["status"]) == (conversation_id, "ended")
    assert (DEPLOYMENT_ID, conversation_id) not in tavus.active
    assert requests_for(tavus, conversation_id) == 1
    key = {"conversation": {"S": f"{DEPLOYMENT_ID}/{conversation_id}"}}
    item = stack.client("dynamodb").get_item(TableName=stack.outputs["EndedTableName"], Key=key)["Item"]
    assert int(item["expires_at"]["N"]) - time.time() == pytest.approx(30 * 24 * 3600, abs=120)


@pytest.mark.parametrize("other", [{"Source": "myapp.sessions.test"}, {"DetailType": "Session Timeout Soon"}])
def test_other_events_end_nothing(stack: Stack, tavus: Tavus, subscriber: Subscriber, other: dict[str, str]) -> None:
    """The rule matches the source and the detail-type exactly, not by their beginning."""
    spared, ended = tavus.start(DEPLOYMENT_ID), tavus.start(DEPLOYMENT_ID)
    put(stack, session_timeout(spared) | other)
    subscriber.result_of(put(stack, session_timeout(ended)))
    assert requests_for(tavus, spared) == 0


def test_a_limit_after_the_end_is_harmless(stack: Stack, tavus: Tavus, subscriber: Subscriber) -> None:
    """The result is `ended` where a session timeout ended the conversation, which is recorded, or else `not_found`."""
    by_request, by_event = tavus.start(DEPLOYMENT_ID), tavus.start(DEPLOYMENT_ID)
    send(stack, "POST", end_path(DEPLOYMENT_ID, by_request))
    subscriber.result_of(put(stack, session_timeout(by_event)))
    later = Subscriber(stack)
    for conversation_id in (by_request, by_event):
        reach_limit(stack, conversation_id, set_limit(stack, conversation_id, 60))
    assert later.result_of(by_request)["detail"]["status"] == "not_found"
    assert later.result_of(by_event)["detail"]["status"] == "ended"


@pytest.fixture(scope="module")
def call_as(stack: Stack) -> Iterator[Callable[..., str]]:
    """Make an AWS call with the role of a function or of Scheduler. Returns `allowed`, or the code of the error.

    It creates a schedule that the calls can use, and at the end deletes all schedules and what the calls refused.
    """
    functions = stack.client("lambda")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as code:
        code.writestr("probe.py", PROBE)
    probes: set[str] = set()
    scheduler = stack.client("scheduler")
    scheduler.create_schedule(**fill(stack, SCHEDULE))

    def role_of(caller: str) -> str:
        function = "TimerFunctionName" if caller == SCHEDULER else caller
        configuration = functions.get_function_configuration(FunctionName=stack.outputs[function])
        target = json.loads(configuration["Environment"]["Variables"].get("TIMER_TARGET", "{}"))
        role: str = target["RoleArn"] if caller == SCHEDULER else configuration["Role"]
        return role

    def call(caller: str, service: str, operation: str, arguments: dict[str, Any]) -> str:
        probe = f"probe-{caller}"
        if probe not in probes:
            probes.add(probe)
            functions.create_function(
                FunctionName=probe,
                Role=role_of(caller),
                Runtime="python3.13",
                Handler="probe.handler",
                Code={"ZipFile": archive.getvalue()},
            )
        payload = {"service": service, "operation": operation, "arguments": arguments}
        answer = functions.invoke(FunctionName=probe, Payload=json.dumps(payload))
        said: str = json.load(answer["Payload"])
        return said

    yield call
    for probe in probes:
        functions.delete_function(FunctionName=probe)
    for schedule in schedules(stack):
        scheduler.delete_schedule(GroupName=schedule["GroupName"], Name=schedule["Name"])
    stack.client("sqs").purge_queue(QueueUrl=stack.outputs["FailedQueueUrl"])


def fill(stack: Stack, arguments: dict[str, Any]) -> dict[str, Any]:
    """Replace the names of outputs in braces by the outputs of the stack."""
    text = json.dumps(arguments)
    for name, value in stack.outputs.items():
        text = text.replace(f"{{{name}}}", value)
    filled: dict[str, Any] = json.loads(text)
    return filled


KEY = {"conversation": {"S": "d1/c1"}}
EVENT_ENTRY = {"Source": "tavus.conversations", "DetailType": "Probe", "Detail": "{}"}
SCHEDULE = {
    "GroupName": "{TimerGroupName}",
    "Name": "probe",
    "ScheduleExpression": "at(2099-01-01T00:00:00)",
    "FlexibleTimeWindow": {"Mode": "OFF"},
    "Target": {"Arn": "{FailedQueueArn}", "RoleArn": "arn:aws:iam::000000000000:role/probe"},
}
NAMES = {"GroupName": "{TimerGroupName}", "Name": "probe"}
HANDLE = {"QueueUrl": "{TimeoutQueueUrl}", "ReceiptHandle": "none"}
HTTP, EVENT, TIMER, SCHEDULER = "HttpFunctionName", "EventFunctionName", "TimerFunctionName", "Scheduler"
# Calls, and who needs them.
CALLS: dict[str, tuple[str, str, dict[str, Any], set[str]]] = {
    "publish": ("events", "put_events", {"Entries": [EVENT_ENTRY | {"EventBusName": "{EventBusName}"}]}, {EVENT}),
    "publish elsewhere": ("events", "put_events", {"Entries": [EVENT_ENTRY | {"EventBusName": "other"}]}, set()),
    "add a rule": ("events", "put_rule", {"Name": "probe", "EventPattern": '{"source": ["probe"]}'}, set()),
    "record": ("dynamodb", "put_item", {"TableName": "{EndedTableName}", "Item": KEY}, {EVENT}),
    "look up": ("dynamodb", "get_item", {"TableName": "{EndedTableName}", "Key": KEY}, {EVENT}),
    "forget": ("dynamodb", "delete_item", {"TableName": "{EndedTableName}", "Key": KEY}, set()),
    "read all": ("dynamodb", "scan", {"TableName": "{EndedTableName}"}, set()),
    "send timeouts": ("sqs", "send_message", {"QueueUrl": "{TimeoutQueueUrl}", "MessageBody": "{}"}, {SCHEDULER}),
    "take timeouts": ("sqs", "receive_message", {"QueueUrl": "{TimeoutQueueUrl}"}, {EVENT}),
    "postpone timeouts": ("sqs", "change_message_visibility", HANDLE | {"VisibilityTimeout": 1}, {EVENT}),
    "delete timeouts": ("sqs", "delete_message", HANDLE, {EVENT}),
    "drop all timeouts": ("sqs", "purge_queue", {"QueueUrl": "{TimeoutQueueUrl}"}, set()),
    "refuse": ("sqs", "send_message", {"QueueUrl": "{FailedQueueUrl}", "MessageBody": "{}"}, {EVENT, SCHEDULER}),
    "read failures": ("sqs", "receive_message", {"QueueUrl": "{FailedQueueUrl}"}, set()),
    "drop failures": ("sqs", "purge_queue", {"QueueUrl": "{FailedQueueUrl}"}, set()),
    "invoke": ("lambda", "invoke", {"FunctionName": "{EventFunctionName}"}, set()),
    "set a limit": ("scheduler", "create_schedule", SCHEDULE | {"Name": "another"}, {TIMER}),
    "look at a limit": ("scheduler", "get_schedule", NAMES, {TIMER}),
    "shorten a limit": ("scheduler", "update_schedule", SCHEDULE, {TIMER}),
    "lift a limit": ("scheduler", "delete_schedule", NAMES, set()),
    "lift all limits": ("scheduler", "delete_schedule_group", {"Name": "{TimerGroupName}"}, set()),
    "list limits": ("scheduler", "list_schedules", {"GroupName": "{TimerGroupName}"}, set()),
}


@pytest.mark.parametrize("caller", [HTTP, EVENT, TIMER, SCHEDULER])
@pytest.mark.parametrize("what", CALLS)
def test_a_role_allows_what_is_needed_and_nothing_else(
    stack: Stack, call_as: Callable[..., str], caller: str, what: str
) -> None:
    """The event function handles the queue, records, publishes and refuses. The timer function sets limits.

    Scheduler sends to both queues. The HTTP function calls nothing. Only AWS itself shows that the timer function
    cannot reach other groups.
    """
    service, operation, arguments, needed_by = CALLS[what]
    outcome = call_as(caller, service, operation, fill(stack, arguments))
    if caller in needed_by:
        assert outcome in {"allowed", "ReceiptHandleIsInvalid"}
    else:
        assert outcome.startswith("AccessDenied")
