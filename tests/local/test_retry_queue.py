"""Failed session timeouts are tried again from the retry queue until they succeed or SQS gives up.

The local retry queue waits for seconds instead of minutes. Only AWS itself shows the minutes between Lambda's retries,
and that a rule sends events there that it cannot deliver.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from local.session import DEPLOYMENT_ID, log
from local.subscriber import Subscriber
from tests.local.delivery import deliver, event_of, messages, requests_for, wait_until

if TYPE_CHECKING:
    from local.stack import Stack
    from local.tavus import Tavus


def take_failed(stack: Stack) -> str:
    """Wait for the message of the failed queue, check that it is the only one, and take it."""
    sqs, url = stack.client("sqs"), stack.outputs["FailedQueueUrl"]
    wait_until(lambda: messages(stack, "FailedQueueUrl") > 0, "a message in the failed queue")
    assert messages(stack, "RetryQueueUrl") == 0
    [message] = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    body: str = message["Body"]
    return body


def test_an_event_outlives_an_outage_of_tavus(stack: Stack, tavus: Tavus) -> None:
    """Tavus is down for longer than Lambda's three tries. Then the conversation ends without manual action."""
    subscriber, event = Subscriber(stack), event_of(tavus)
    tavus.down = True
    try:
        deliver(stack, event)
        # Three attempts in each of Lambda's three tries, and then at least one from the retry queue.
        wait_until(lambda: requests_for(tavus, event) > 9, "a try from the retry queue")
    finally:
        tavus.down = False

    result = subscriber.result_of(event["id"])

    assert result["detail"]["status"] == "ended"
    assert (DEPLOYMENT_ID, event["detail"]["conversation_id"]) not in tavus.active
    wait_until(lambda: messages(stack, "RetryQueueUrl") == 0, "an empty retry queue")
    assert messages(stack, "FailedQueueUrl") == 0


def test_a_failed_event_is_whole_and_can_be_redriven(stack: Stack, tavus: Tavus) -> None:
    """Its conversation ends under the id of the event. A redrive, which ministack lacks, sends the same body again."""
    sqs, url = stack.client("sqs"), stack.outputs["RetryQueueUrl"]
    subscriber, event = Subscriber(stack), event_of(tavus)
    policy = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])["Attributes"]
    once = {"deadLetterTargetArn": stack.outputs["FailedQueueArn"], "maxReceiveCount": 1}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(once)})
    tavus.down = True
    try:
        deliver(stack, event)
        body = take_failed(stack)
        # Three attempts in each of Lambda's three tries, and in the last one, which may outlast the local timeouts.
        wait_until(lambda: requests_for(tavus, event) == 12, "twelve requests")
    finally:
        tavus.down = False
        sqs.set_queue_attributes(QueueUrl=url, Attributes=policy)

    record = json.loads(body)
    assert record["requestPayload"] == event
    assert record["requestContext"]["condition"] == "RetriesExhausted"

    sqs.send_message(QueueUrl=url, MessageBody=body)

    assert subscriber.result_of(event["id"])["detail"]["status"] == "ended"


def test_an_event_that_can_never_succeed_reaches_the_failed_queue_once(stack: Stack, tavus: Tavus) -> None:
    """It is whole, and the metric of EventInvalidAlarm counted its first try."""
    event = event_of(tavus) | {"detail": {"note": "no ids"}}
    begun = len(log(stack, "EventLogGroupName"))
    deliver(stack, event)

    def counted() -> bool:
        lines = [json.loads(line) for line in log(stack, "EventLogGroupName")[begun:] if line.startswith('{"_aws"')]
        return any(line.get("invalid") == [1.0] and line["trigger"] == "event" for line in lines)

    wait_until(counted, "a count of the metric invalid")
    assert messages(stack, "FailedQueueUrl") == 0

    record = json.loads(take_failed(stack))

    assert record["requestPayload"] == event
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["responsePayload"]["errorType"]


def test_an_event_that_the_rule_could_not_deliver_ends_its_conversation(stack: Stack, tavus: Tavus) -> None:
    """A dead letter of the rule is the event itself."""
    subscriber, event = Subscriber(stack), event_of(tavus)

    stack.client("sqs").send_message(QueueUrl=stack.outputs["RetryQueueUrl"], MessageBody=json.dumps(event))

    assert subscriber.result_of(event["id"])["detail"]["status"] == "ended"


def test_a_message_that_is_no_event_reaches_the_failed_queue_as_it_is(stack: Stack) -> None:
    stack.client("sqs").send_message(QueueUrl=stack.outputs["RetryQueueUrl"], MessageBody="no event")

    assert take_failed(stack) == "no event"


def test_an_event_waits_while_the_function_has_no_concurrency(stack: Stack, tavus: Tavus) -> None:
    """Reserved concurrency 0 is the emergency stop. Once it is lifted, the retry queue ends the conversation."""
    functions, name = stack.client("lambda"), stack.outputs["EventFunctionName"]
    subscriber, event = Subscriber(stack), event_of(tavus)
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    try:
        deliver(stack, event)
        wait_until(lambda: messages(stack, "RetryQueueUrl") == 1, "the event in the retry queue")
        assert requests_for(tavus, event) == 0
    finally:
        functions.delete_function_concurrency(FunctionName=name)

    assert subscriber.result_of(event["id"])["detail"]["status"] == "ended"
