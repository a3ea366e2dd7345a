"""A consumer of results: a rule and a queue. On AWS, the queue also needs a policy that lets the rule send to it."""

import json
import time
from typing import Any
from uuid import uuid4

from local.stack import Stack

WAIT_SECONDS = 30


def take_messages(stack: Stack, queue_url: str, seconds: int = 0) -> list[str]:
    """Wait for messages of a queue, 20 s at most, and take up to ten. Returns their bodies."""
    sqs = stack.client("sqs")
    found = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=seconds)
    for message in (messages := found.get("Messages", [])):
        sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
    return [message["Body"] for message in messages]


class Subscriber:
    """Receives every result that a stack publishes from now on."""

    def __init__(self, stack: Stack) -> None:
        self._stack, sqs = stack, stack.client("sqs")
        self._received: list[dict[str, Any]] = []
        name = f"results-{uuid4().hex[:8]}"
        self._queue_url: str = sqs.create_queue(QueueName=name)["QueueUrl"]
        asked = sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=["QueueArn"])
        queue_arn = asked["Attributes"]["QueueArn"]
        events, bus = stack.client("events"), stack.outputs["EventBusName"]
        events.put_rule(Name=name, EventBusName=bus, EventPattern='{"detail-type": ["Conversation End Result"]}')
        events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": "queue", "Arn": queue_arn}])

    def receive(self, seconds: int) -> list[dict[str, Any]]:
        """Wait for new results, 20 s at most, and return the whole events."""
        return [json.loads(body) for body in take_messages(self._stack, self._queue_url, seconds)]

    def result_of(self, event_or_conversation: str, seconds: int = WAIT_SECONDS) -> dict[str, Any]:
        """Return the first result that names this event or conversation. Raises TimeoutError after `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._received += self.receive(1)
            for result in self._received:
                if event_or_conversation in {result["detail"]["trigger"]["id"], result["detail"]["conversation_id"]}:
                    return result
        raise TimeoutError(f"no result of {event_or_conversation} was published within {seconds} s")
