"""Delivers session timeouts to the event function, and follows them through the queues."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from local.session import DEPLOYMENT_ID, end_path, timeout_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.stack import Stack
    from local.tavus import Tavus

WAIT_SECONDS = 60


def event_of(tavus: Tavus) -> dict[str, Any]:
    """Return a session timeout with an id of its own, for a new conversation."""
    return timeout_of(tavus.start(DEPLOYMENT_ID))


def deliver(stack: Stack, event: dict[str, Any]) -> None:
    """Invoke the function as EventBridge does. The rules of ministack try only once."""
    function = stack.outputs["EventFunctionName"]
    stack.client("lambda").invoke(FunctionName=function, InvocationType="Event", Payload=json.dumps(event))


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {WAIT_SECONDS} s")
        time.sleep(0.2)


def messages(stack: Stack, output: str) -> int:
    """Count all messages of a queue: visible, hidden and delayed ones."""
    names = [f"ApproximateNumberOfMessages{kind}" for kind in ("", "NotVisible", "Delayed")]
    sqs, url = stack.client("sqs"), stack.outputs[output]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def requests_for(tavus: Tavus, event: dict[str, Any]) -> int:
    path = end_path(DEPLOYMENT_ID, event["detail"]["conversation_id"])
    return sum(request.path == path for request in tavus.requests)
