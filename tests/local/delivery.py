"""Sends session timeouts to a deployed stack, and follows them through its queues."""

import json
from datetime import UTC, datetime
from typing import Any

import jsonschema

from local.process import ROOT
from local.session import DEPLOYMENT_ID, end_path, schedules, send, timeout_of, timeout_path, wait_until
from local.stack import Stack
from local.subscriber import take_messages
from local.tavus import Tavus

RESULT_SCHEMA = json.loads((ROOT / "events/conversation-end-result.schema.json").read_text())


def assert_published(result: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(
        RESULT_SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    validator.validate(result)


def event_of(tavus: Tavus) -> dict[str, Any]:
    """Return a session timeout with an id of its own, for a new conversation."""
    return timeout_of(tavus.start(DEPLOYMENT_ID))


def set_limit(stack: Stack, conversation_id: str, seconds: int) -> str:
    """Give a conversation a limit. Returns the end in the answer."""
    response = send(stack, "PUT", timeout_path(DEPLOYMENT_ID, conversation_id, seconds))
    assert response.status == 200
    body = response.json()
    assert body == {"conversation_id": conversation_id, "ends_at": body["ends_at"]}
    ends_at: str = body["ends_at"]
    return ends_at


def schedule_of(stack: Stack, conversation_id: str) -> dict[str, Any] | None:
    """Return the only schedule of a conversation, without what Scheduler adds. None if it has no schedule."""
    key = f"{DEPLOYMENT_ID}/{conversation_id}"
    found = [schedule for schedule in schedules(stack) if schedule["Description"] == key]
    assert len(found) < 2
    added = {"Arn", "CreationDate", "LastModificationDate", "ResponseMetadata"}
    return {name: value for name, value in found[0].items() if name not in added} if found else None


def reach_limit(stack: Stack, conversation_id: str, ends_at: str) -> None:
    """Move a limit to this moment."""
    schedule = schedule_of(stack, conversation_id)
    assert schedule
    now = datetime.now(UTC)
    due = json.loads(json.dumps(schedule).replace(ends_at, f"{now:%Y-%m-%dT%H:%M:%SZ}"))
    stack.client("scheduler").update_schedule(**due | {"ScheduleExpression": f"at({now:%Y-%m-%dT%H:%M:%S})"})


def send_message(stack: Stack, body: str) -> None:
    """Put a message on the queue, as the rule, a schedule or a redrive does."""
    stack.client("sqs").send_message(QueueUrl=stack.outputs["TimeoutQueueUrl"], MessageBody=body)


def messages(stack: Stack, output: str, *kinds: str) -> int:
    """Count the messages of a queue, or only those of some kinds: visible (""), NotVisible or Delayed ones."""
    names = [f"ApproximateNumberOfMessages{kind}" for kind in kinds or ("", "NotVisible", "Delayed")]
    sqs, url = stack.client("sqs"), stack.outputs[output]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def take_failed(stack: Stack) -> str:
    """Wait for the message of the failed queue, check that it is the only one, and take it. Returns its body."""
    wait_until(lambda: messages(stack, "FailedQueueUrl") > 0, "a message in the failed queue")
    [body] = take_messages(stack, stack.outputs["FailedQueueUrl"])
    return body


def requests_for(tavus: Tavus, conversation_id: str) -> int:
    path = end_path(DEPLOYMENT_ID, conversation_id)
    return sum(request.path == path for request in tavus.requests)
