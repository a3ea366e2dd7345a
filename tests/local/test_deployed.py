"""The template, deployed to a local AWS (ministack) that enforces the role of each function."""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from local.process import ROOT
from local.session import DEPLOYMENT_ID, end_path, put, schedules, send, session_timeout, timeout_path
from local.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local.stack import Stack
    from local.tavus import Tavus

RESULT_SCHEMA = json.loads((ROOT / "events/conversation-end-result.schema.json").read_text())
WAIT_SECONDS = 60

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


@pytest.fixture(scope="module")
def subscriber(stack: Stack) -> Subscriber:
    return Subscriber(stack)


def asked(tavus: Tavus, conversation_id: str) -> int:
    return sum(request.path.endswith(f"/{conversation_id}/end") for request in tavus.requests)


def assert_published(result: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(
        RESULT_SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    validator.validate(result)


def test_a_request_ends_the_conversation(stack: Stack, tavus: Tavus) -> None:
    """The answer is Tavus' own body."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    response = send(stack, "POST", end_path(DEPLOYMENT_ID, conversation_id))
    assert (response.status, response.json()) == (200, {"conversation_id": conversation_id, "status": "ended"})
    assert response.headers["Content-Type"] == "application/json"
    assert (DEPLOYMENT_ID, conversation_id) not in tavus.active
    assert asked(tavus, conversation_id) == 1


def test_a_request_for_an_unknown_conversation_is_a_404_problem(stack: Stack, tavus: Tavus) -> None:
    response = send(stack, "POST", end_path(DEPLOYMENT_ID, "cunknown"))
    assert (response.status, response.json()["reason"]) == (404, "not_found")
    assert response.headers["Content-Type"] == "application/problem+json"


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
    event_id = put(stack, session_timeout(DEPLOYMENT_ID, conversation_id))
    result = subscriber.result_of(event_id)
    assert_published(result)
    assert (result["detail"]["conversation_id"], result["detail"]["status"]) == (conversation_id, "ended")
    assert (DEPLOYMENT_ID, conversation_id) not in tavus.active
    assert asked(tavus, conversation_id) == 1
    key = {"conversation": {"S": f"{DEPLOYMENT_ID}/{conversation_id}"}}
    item = stack.client("dynamodb").get_item(TableName=stack.outputs["EndedTableName"], Key=key)["Item"]
    assert int(item["expires_at"]["N"]) - time.time() == pytest.approx(30 * 24 * 3600, abs=120)


def test_the_result_for_an_unknown_conversation_is_not_found(
    stack: Stack, tavus: Tavus, subscriber: Subscriber
) -> None:
    result = subscriber.result_of(put(stack, session_timeout(DEPLOYMENT_ID, "cunknown")))
    assert_published(result)
    assert result["detail"]["status"] == "not_found"


@pytest.mark.parametrize("other", [{"Source": "myapp.sessions.test"}, {"DetailType": "Session Timeout Soon"}])
def test_other_events_end_nothing(stack: Stack, tavus: Tavus, subscriber: Subscriber, other: dict[str, str]) -> None:
    """The rule matches the source and the detail-type exactly, not by their beginning."""
    spared, ended = tavus.start(DEPLOYMENT_ID), tavus.start(DEPLOYMENT_ID)
    put(stack, session_timeout(DEPLOYMENT_ID, spared) | other)
    subscriber.result_of(put(stack, session_timeout(DEPLOYMENT_ID, ended)))
    assert asked(tavus, spared) == 0


def set_limit(stack: Stack, conversation_id: str, seconds: int) -> datetime:
    """Give a conversation a limit. Returns the end in the answer."""
    response = send(stack, "PUT", timeout_path(DEPLOYMENT_ID, conversation_id, seconds))
    assert response.status == 200
    body = response.json()
    assert body == {"conversation_id": conversation_id, "ends_at": body["ends_at"]}
    return datetime.strptime(body["ends_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def schedule_of(stack: Stack, conversation_id: str) -> dict[str, Any] | None:
    """Return the only schedule of a conversation, without what Scheduler adds. None if it has no schedule."""
    key = f"{DEPLOYMENT_ID}/{conversation_id}"
    found = [schedule for schedule in schedules(stack) if schedule["Description"] == key]
    assert len(found) < 2
    added = {"Arn", "CreationDate", "LastModificationDate", "ResponseMetadata"}
    return {name: value for name, value in found[0].items() if name not in added} if found else None


def at(end: datetime) -> str:
    return f"at({end:%Y-%m-%dT%H:%M:%S})"


def test_a_limit_is_one_schedule(stack: Stack, tavus: Tavus) -> None:
    """The schedule puts the session timeout on the bus once, and is then deleted. The answer has its time."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    earliest = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=600)

    end = set_limit(stack, conversation_id, 600)

    assert earliest <= end <= datetime.now(UTC) + timedelta(seconds=600)
    sqs, queue = stack.client("sqs"), {"QueueUrl": stack.outputs["RetryQueueUrl"]}
    retry_queue = sqs.get_queue_attributes(**queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    event = session_timeout(DEPLOYMENT_ID, conversation_id)
    schedule = schedule_of(stack, conversation_id)
    assert schedule
    target = schedule.pop("Target")
    assert schedule == {
        "GroupName": stack.outputs["TimerGroupName"],
        "Name": hashlib.sha256(f"{DEPLOYMENT_ID}/{conversation_id}".encode()).hexdigest(),
        "Description": f"{DEPLOYMENT_ID}/{conversation_id}",
        "ScheduleExpression": at(end),
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "State": "ENABLED",
    }
    role = target.pop("RoleArn").rpartition("/")[2]
    assert role in {found["RoleName"] for found in stack.client("iam").list_roles()["Roles"]}
    assert json.loads(target.pop("Input")) == json.loads(event["Detail"])
    assert target == {
        "Arn": f"arn:aws:events:us-east-1:000000000000:event-bus/{stack.outputs['EventBusName']}",
        "EventBridgeParameters": {"Source": event["Source"], "DetailType": event["DetailType"]},
        "RetryPolicy": {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": 3600},
        "DeadLetterConfig": {"Arn": retry_queue},
    }


def test_the_earliest_end_wins(stack: Stack, tavus: Tavus) -> None:
    """The same limit and a longer one change nothing. A shorter one changes the time of the schedule only."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    end = set_limit(stack, conversation_id, 600)
    first = schedule_of(stack, conversation_id)
    assert first
    assert set_limit(stack, conversation_id, 600) == end
    assert set_limit(stack, conversation_id, 1200) == end
    assert schedule_of(stack, conversation_id) == first

    earlier = set_limit(stack, conversation_id, 300)

    assert earlier < end
    assert schedule_of(stack, conversation_id) == first | {"ScheduleExpression": at(earlier)}


def reach_limit(stack: Stack, conversation_id: str) -> None:
    """Give a conversation a limit, and then move the schedule to this moment."""
    set_limit(stack, conversation_id, 60)
    schedule = schedule_of(stack, conversation_id)
    assert schedule
    stack.client("scheduler").update_schedule(**schedule | {"ScheduleExpression": at(datetime.now(UTC))})


def test_a_conversation_ends_at_its_limit(stack: Stack, tavus: Tavus, subscriber: Subscriber) -> None:
    """The result is published, and the schedule has deleted itself."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    reach_limit(stack, conversation_id)
    result = subscriber.result_of(conversation_id)
    assert_published(result)
    assert result["detail"]["status"] == "ended"
    assert (DEPLOYMENT_ID, conversation_id) not in tavus.active
    assert asked(tavus, conversation_id) == 1
    assert schedule_of(stack, conversation_id) is None


def test_a_limit_after_the_end_is_harmless(stack: Stack, tavus: Tavus, subscriber: Subscriber) -> None:
    """The result is `ended` where a session timeout ended the conversation, which is recorded, or else `not_found`."""
    by_request, by_event = tavus.start(DEPLOYMENT_ID), tavus.start(DEPLOYMENT_ID)
    send(stack, "POST", end_path(DEPLOYMENT_ID, by_request))
    subscriber.result_of(put(stack, session_timeout(DEPLOYMENT_ID, by_event)))
    later = Subscriber(stack)
    reach_limit(stack, by_request)
    reach_limit(stack, by_event)
    assert later.result_of(by_request)["detail"]["status"] == "not_found"
    assert later.result_of(by_event)["detail"]["status"] == "ended"


@pytest.fixture(scope="module")
def call_as(stack: Stack) -> Iterator[Callable[..., str]]:
    """Make an AWS call with the role of a function. Returns `allowed`, or the code of the error.

    It creates a schedule that the calls can use, and deletes all schedules at the end.
    """
    functions = stack.client("lambda")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as code:
        code.writestr("probe.py", PROBE)
    probes: set[str] = set()
    scheduler = stack.client("scheduler")
    scheduler.create_schedule(**fill(stack, SCHEDULE))

    def call(function: str, service: str, operation: str, arguments: dict[str, Any]) -> str:
        probe = f"probe-{function}"
        if probe not in probes:
            probes.add(probe)
            functions.create_function(
                FunctionName=probe,
                Role=functions.get_function_configuration(FunctionName=stack.outputs[function])["Role"],
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


def fill(stack: Stack, arguments: dict[str, Any]) -> dict[str, Any]:
    """Replace the names of outputs in braces by the outputs of the stack."""
    text = json.dumps(arguments)
    for name, value in stack.outputs.items():
        text = text.replace(f"{{{name}}}", value)
    filled: dict[str, Any] = json.loads(text)
    return filled


KEY = {"conversation": {"S": "d1/c1"}}
EVENT = {"Source": "tavus.conversations", "DetailType": "Probe", "Detail": "{}"}
SCHEDULE = {
    "GroupName": "{TimerGroupName}",
    "Name": "probe",
    "ScheduleExpression": "at(2099-01-01T00:00:00)",
    "FlexibleTimeWindow": {"Mode": "OFF"},
    "Target": {"Arn": "{FailedQueueArn}", "RoleArn": "arn:aws:iam::000000000000:role/probe"},
}
NAMES = {"GroupName": "{TimerGroupName}", "Name": "probe"}
EVENT_FUNCTION, TIMER_FUNCTION = "EventFunctionName", "TimerFunctionName"
# Calls, and the function that needs them. The HTTP function needs none.
CALLS: dict[str, tuple[str, str, dict[str, Any], str | None]] = {
    "publish": ("events", "put_events", {"Entries": [EVENT | {"EventBusName": "{EventBusName}"}]}, EVENT_FUNCTION),
    "publish elsewhere": ("events", "put_events", {"Entries": [EVENT | {"EventBusName": "other"}]}, None),
    "add a rule": ("events", "put_rule", {"Name": "probe", "EventPattern": '{"source": ["probe"]}'}, None),
    "record": ("dynamodb", "put_item", {"TableName": "{EndedTableName}", "Item": KEY}, EVENT_FUNCTION),
    "look up": ("dynamodb", "get_item", {"TableName": "{EndedTableName}", "Key": KEY}, EVENT_FUNCTION),
    "forget": ("dynamodb", "delete_item", {"TableName": "{EndedTableName}", "Key": KEY}, None),
    "read all": ("dynamodb", "scan", {"TableName": "{EndedTableName}"}, None),
    "retry": ("sqs", "get_queue_attributes", {"QueueUrl": "{RetryQueueUrl}"}, EVENT_FUNCTION),
    "drop retries": ("sqs", "purge_queue", {"QueueUrl": "{RetryQueueUrl}"}, None),
    "read failures": ("sqs", "receive_message", {"QueueUrl": "{FailedQueueUrl}"}, None),
    "forge a failure": ("sqs", "send_message", {"QueueUrl": "{FailedQueueUrl}", "MessageBody": "{}"}, None),
    "invoke": ("lambda", "invoke", {"FunctionName": "{EventFunctionName}"}, None),
    "set a limit": ("scheduler", "create_schedule", SCHEDULE | {"Name": "another"}, TIMER_FUNCTION),
    "look at a limit": ("scheduler", "get_schedule", NAMES, TIMER_FUNCTION),
    "shorten a limit": ("scheduler", "update_schedule", SCHEDULE, TIMER_FUNCTION),
    "lift a limit": ("scheduler", "delete_schedule", NAMES, None),
    "lift all limits": ("scheduler", "delete_schedule_group", {"Name": "{TimerGroupName}"}, None),
    "list limits": ("scheduler", "list_schedules", {"GroupName": "{TimerGroupName}"}, None),
}


@pytest.mark.parametrize("function", ["HttpFunctionName", EVENT_FUNCTION, TIMER_FUNCTION])
@pytest.mark.parametrize("what", CALLS)
def test_a_role_allows_what_its_function_does_and_nothing_else(
    stack: Stack, call_as: Callable[..., str], function: str, what: str
) -> None:
    """The event function may publish, record, and use the retry queue. The timer function may set limits.

    The HTTP function may call nothing. Only AWS itself shows that the timer function cannot reach other groups.
    """
    service, operation, arguments, needed_by = CALLS[what]
    outcome = call_as(function, service, operation, fill(stack, arguments))
    if function == needed_by:
        assert outcome == "allowed"
    else:
        assert outcome.startswith("AccessDenied")
