"""The template, deployed to a local AWS (ministack) that enforces the role of each function."""

from __future__ import annotations

import io
import json
import time
import zipfile
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from local.process import ROOT
from local.session import DEPLOYMENT_ID, end_path, post, put, session_timeout
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
    response = post(stack, end_path(DEPLOYMENT_ID, conversation_id))
    assert (response.status, response.json()) == (200, {"conversation_id": conversation_id, "status": "ended"})
    assert response.headers["Content-Type"] == "application/json"
    assert (DEPLOYMENT_ID, conversation_id) not in tavus.active
    assert asked(tavus, conversation_id) == 1


def test_a_request_for_an_unknown_conversation_is_a_404_problem(stack: Stack, tavus: Tavus) -> None:
    response = post(stack, end_path(DEPLOYMENT_ID, "cunknown"))
    assert (response.status, response.json()["reason"]) == (404, "not_found")
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("conversation_id", ["..", "%2e%2e", "c1%0A", "c" * 129, "%D9%A1"])
def test_a_request_with_an_invalid_id_is_a_400_problem(stack: Stack, tavus: Tavus, conversation_id: str) -> None:
    """Whether API Gateway decodes it or not. Tavus gets no request."""
    asked_before = len(tavus.requests)
    response = post(stack, end_path(DEPLOYMENT_ID, conversation_id))
    assert (response.status, response.json()["reason"]) == (400, "invalid_id")
    assert len(tavus.requests) == asked_before


def test_a_request_for_a_deployment_that_is_not_allowed_is_a_403_problem(stack: Stack, tavus: Tavus) -> None:
    """Tavus gets no request."""
    conversation_id = tavus.start("dother")
    response = post(stack, end_path("dother", conversation_id))
    assert (response.status, response.json()["reason"]) == (403, "deployment_not_allowed")
    assert asked(tavus, conversation_id) == 0


def test_a_session_timeout_ends_the_conversation(stack: Stack, tavus: Tavus, subscriber: Subscriber) -> None:
    """The published result names the conversation and the event."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    event_id = put(stack, session_timeout(DEPLOYMENT_ID, conversation_id))
    result = subscriber.result_of(event_id)
    assert_published(result)
    assert (result["detail"]["conversation_id"], result["detail"]["status"]) == (conversation_id, "ended")
    assert (DEPLOYMENT_ID, conversation_id) not in tavus.active
    assert asked(tavus, conversation_id) == 1


def test_an_ended_conversation_is_recorded_for_30_days(stack: Stack, tavus: Tavus, subscriber: Subscriber) -> None:
    conversation_id = tavus.start(DEPLOYMENT_ID)
    subscriber.result_of(put(stack, session_timeout(DEPLOYMENT_ID, conversation_id)))
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


@pytest.fixture(scope="module")
def call_as(stack: Stack) -> Iterator[Callable[..., str]]:
    """Make an AWS call with the role of a function. Returns `allowed`, or the code of the error."""
    functions = stack.client("lambda")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as code:
        code.writestr("probe.py", PROBE)
    probes: set[str] = set()

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


KEY = {"conversation": {"S": "d1/c1"}}
EVENT = {"Source": "tavus.conversations", "DetailType": "Probe", "Detail": "{}"}
# Calls, and whether the event function needs them. The HTTP function needs none.
CALLS = {
    "publish": ("events", "put_events", {"Entries": [EVENT | {"EventBusName": "{EventBusName}"}]}, True),
    "publish elsewhere": ("events", "put_events", {"Entries": [EVENT | {"EventBusName": "other"}]}, False),
    "add a rule": ("events", "put_rule", {"Name": "probe", "EventPattern": '{"source": ["probe"]}'}, False),
    "record": ("dynamodb", "put_item", {"TableName": "{EndedTableName}", "Item": KEY}, True),
    "look up": ("dynamodb", "get_item", {"TableName": "{EndedTableName}", "Key": KEY}, True),
    "forget": ("dynamodb", "delete_item", {"TableName": "{EndedTableName}", "Key": KEY}, False),
    "read all": ("dynamodb", "scan", {"TableName": "{EndedTableName}"}, False),
    "retry": ("sqs", "get_queue_attributes", {"QueueUrl": "{RetryQueueUrl}"}, True),
    "drop retries": ("sqs", "purge_queue", {"QueueUrl": "{RetryQueueUrl}"}, False),
    "read failures": ("sqs", "receive_message", {"QueueUrl": "{FailedQueueUrl}"}, False),
    "forge a failure": ("sqs", "send_message", {"QueueUrl": "{FailedQueueUrl}", "MessageBody": "{}"}, False),
    "invoke": ("lambda", "invoke", {"FunctionName": "{EventFunctionName}"}, False),
}


@pytest.mark.parametrize("function", ["HttpFunctionName", "EventFunctionName"])
@pytest.mark.parametrize("what", CALLS)
def test_a_role_allows_what_its_function_does_and_nothing_else(
    stack: Stack, call_as: Callable[..., str], function: str, what: str
) -> None:
    """The event function may publish, record, and use the retry queue. The HTTP function may call nothing."""
    service, operation, arguments, needed = CALLS[what]
    filled = json.dumps(arguments)
    for name, value in stack.outputs.items():
        filled = filled.replace(f"{{{name}}}", value)
    outcome = call_as(function, service, operation, json.loads(filled))
    if needed and function == "EventFunctionName":
        assert outcome == "allowed"
    else:
        assert outcome.startswith("AccessDenied")
