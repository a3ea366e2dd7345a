"""An event that fails while Tavus is down is kept, and ends its conversation after a redrive."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from local.process import AWS_CLIENT, ROOT, clean_environment, run
from local.session import DEPLOYMENT_ID, end_path
from local.subscriber import Subscriber

if TYPE_CHECKING:
    from local.stack import Stack
    from local.tavus import Tavus

WAIT_SECONDS = 60


def wait_for_failures(stack: Stack) -> list[dict[str, Any]]:
    """Return the messages of the failure queue as soon as there are any, and leave them there."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if found := failures(stack):
            return found
    raise TimeoutError(f"the failure queue was empty for {WAIT_SECONDS} s")


def failures(stack: Stack) -> list[dict[str, Any]]:
    answer = stack.client("sqs").receive_message(
        QueueUrl=stack.outputs["FailedQueueUrl"], MaxNumberOfMessages=10, VisibilityTimeout=0, WaitTimeSeconds=1
    )
    return [json.loads(message["Body"]) for message in answer.get("Messages", [])]


def redrive(stack: Stack) -> None:
    """Run what `make redrive INVOKE=yes` runs. Raises ProcessFailed unless Lambda accepts every event."""
    environment = clean_environment(**AWS_CLIENT, AWS_ENDPOINT_URL=stack.endpoint_url, PYTHONPATH="src")
    run([sys.executable, "-m", "operations.redrive", "--invoke"], environment)


def test_an_event_outlives_an_outage_of_tavus(stack: Stack, tavus: Tavus) -> None:
    """The failure queue holds the whole event after Lambda's retries. The redriven event keeps its trigger id.

    Only AWS itself shows the minutes between Lambda's retries, EventBridge's own retries and the rule's dead letters.
    """
    stack.client("sqs").purge_queue(QueueUrl=stack.outputs["FailedQueueUrl"])  # of what other tests left there
    subscriber = Subscriber(stack)
    conversation_id = tavus.start(DEPLOYMENT_ID)
    event = json.loads((ROOT / "events/session-timeout.json").read_text()) | {"id": str(uuid4())}
    event["detail"]["conversation_id"] = conversation_id

    tavus.down = True
    try:
        function = stack.outputs["EventFunctionName"]
        stack.client("lambda").invoke(FunctionName=function, InvocationType="Event", Payload=json.dumps(event))
        [failed] = wait_for_failures(stack)
    finally:
        tavus.down = False

    assert failed["requestPayload"] == event
    assert failed["requestContext"]["condition"] == "RetriesExhausted"
    asked = [request for request in tavus.requests if request.path == end_path(DEPLOYMENT_ID, conversation_id)]
    assert len(asked) == 9  # three attempts in each of Lambda's three

    redrive(stack)

    assert subscriber.result_of(event["id"])["detail"]["status"] == "ended"
    assert (DEPLOYMENT_ID, conversation_id) not in tavus.active
    assert failures(stack) == []
