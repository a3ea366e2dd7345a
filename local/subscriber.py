"""A consumer of results: a rule and a queue, as another team would create them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from local.stack import Stack

WAIT_SECONDS = 30


class Subscriber:
    """Receives every result that a stack publishes from now on."""

    def __init__(self, stack: Stack) -> None:
        self._sqs = stack.client("sqs")
        self._received: list[dict[str, Any]] = []
        name = f"results-{uuid4().hex[:8]}"
        self._queue_url: str = self._sqs.create_queue(QueueName=name)["QueueUrl"]
        asked = self._sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=["QueueArn"])
        queue_arn = asked["Attributes"]["QueueArn"]

        events = stack.client("events")
        bus = stack.outputs["EventBusName"]
        pattern = {"detail-type": ["Conversation End Result"]}
        rule = events.put_rule(Name=name, EventBusName=bus, EventPattern=json.dumps(pattern))
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": queue_arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": rule["RuleArn"]}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self._sqs.set_queue_attributes(QueueUrl=self._queue_url, Attributes={"Policy": policy})
        events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": "queue", "Arn": queue_arn}])

    def receive(self, seconds: int) -> list[dict[str, Any]]:
        """Wait for new results, 20 s at most, and return the whole events."""
        asked = self._sqs.receive_message(QueueUrl=self._queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=seconds)
        for message in (messages := asked.get("Messages", [])):
            self._sqs.delete_message(QueueUrl=self._queue_url, ReceiptHandle=message["ReceiptHandle"])
        return [json.loads(message["Body"]) for message in messages]

    def result_of(self, event_or_conversation: str, seconds: int = WAIT_SECONDS) -> dict[str, Any]:
        """Return the first result that names this event or conversation. Raises TimeoutError after `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._received += self.receive(1)
            for result in self._received:
                if event_or_conversation in {result["detail"]["trigger"]["id"], result["detail"]["conversation_id"]}:
                    return result
        raise TimeoutError(f"no result of {event_or_conversation} was published within {seconds} s")
