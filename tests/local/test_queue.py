"""Session timeouts in the queue: they wait for their second, are retried, and are refused if they can never succeed.

docs/operating.md tells the same stories. Only AWS itself shows a redrive, and what a rule cannot deliver.
"""

import json
import time
from collections.abc import Callable
from datetime import datetime

import pytest

from local.session import (
    DEPLOYMENT_ID,
    log,
    logged,
    put,
    seconds_ahead,
    seconds_late,
    session_timeout,
    wait_until,
)
from local.stack import Stack
from local.subscriber import Subscriber
from local.tavus import Tavus
from tests.local.delivery import (
    assert_published,
    event_of,
    messages,
    requests_for,
    schedule_of,
    send_message,
    set_limit,
    take_failed,
)

type NewLines = Callable[[], list[str]]

LIMITS = 20
LATE_SECONDS = 2


@pytest.fixture(scope="module", autouse=True)
def limits(stack: Stack, tavus: Tavus, subscriber: Subscriber) -> dict[str, str]:
    """The conversations with limits of 75 to 90 s, and their ends. The other tests run while they wait."""
    seconds = [75 + 15 * number // (LIMITS - 1) for number in range(LIMITS)]
    conversations = [(tavus.start(DEPLOYMENT_ID), length) for length in seconds]
    return {conversation_id: set_limit(stack, conversation_id, length) for conversation_id, length in conversations}


@pytest.fixture
def new_lines(stack: Stack) -> NewLines:
    """Return what the event function has logged since the test began."""
    begun = len(log(stack, "EventLogGroupName"))
    return lambda: log(stack, "EventLogGroupName")[begun:]


def values(lines: list[str], metric: str) -> list[float]:
    """Return the values of a metric of session timeouts, oldest first."""
    emitted = [json.loads(line) for line in lines if line.startswith('{"_aws"')]
    return [value for line in emitted if line["trigger"] == "event" for value in line.get(metric, [])]


def test_redrive_after_the_last_receive(stack: Stack, tavus: Tavus, subscriber: Subscriber) -> None:
    """SQS moves the message to the failed queue. Sent again, it ends the conversation under the id of the event."""
    sqs, queue = stack.client("sqs"), {"QueueUrl": stack.outputs["TimeoutQueueUrl"]}
    event = event_of(tavus)
    body = json.dumps(event | {"detail": event["detail"] | {"ends_at": seconds_ahead(10)}})
    policy = sqs.get_queue_attributes(**queue, AttributeNames=["RedrivePolicy"])["Attributes"]
    once = {"deadLetterTargetArn": stack.outputs["FailedQueueArn"], "maxReceiveCount": 1}
    sqs.set_queue_attributes(**queue, Attributes={"RedrivePolicy": json.dumps(once)})
    try:
        send_message(stack, body)  # its only receive waits for its second
        failed = take_failed(stack)
    finally:
        sqs.set_queue_attributes(**queue, Attributes=policy)
    assert failed == body
    assert requests_for(tavus, event["detail"]["conversation_id"]) == 0

    send_message(stack, failed)

    assert subscriber.result_of(event["id"])["detail"]["status"] == "ended"


def test_stop(stack: Stack, tavus: Tavus, subscriber: Subscriber) -> None:
    """While the mapping is disabled, everything waits and nothing fails."""
    functions, mapping = stack.client("lambda"), {"UUID": stack.outputs["TimeoutQueueMappingId"]}
    conversation_id = tavus.start(DEPLOYMENT_ID)
    functions.update_event_source_mapping(**mapping, Enabled=False)
    try:
        event_id = put(stack, session_timeout(conversation_id))
        time.sleep(2)  # ministack looks for messages every second
        assert messages(stack, "TimeoutQueueUrl", "") > 0
        assert requests_for(tavus, conversation_id) == messages(stack, "FailedQueueUrl") == 0
    finally:
        functions.update_event_source_mapping(**mapping, Enabled=True)
    assert subscriber.result_of(event_id)["detail"]["status"] == "ended"


def test_message_that_is_no_event(stack: Stack, new_lines: NewLines) -> None:
    """It is refused at its first try, as it is."""
    body = '{"detail": "no  évent \\u00e9",}\n'
    send_message(stack, body)
    assert take_failed(stack) == body
    wait_until(lambda: values(new_lines(), "invalid"), "a count of the metric invalid")
    assert values(new_lines(), "invalid") == [1]


def test_event_without_ids(stack: Stack, tavus: Tavus, subscriber: Subscriber, new_lines: NewLines) -> None:
    """It is refused whole and at its first try, counted and logged. The correct event ends the conversation."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    correct = session_timeout(conversation_id)
    detail = {"deployment_id": DEPLOYMENT_ID, "conversationId": conversation_id}
    event_id = put(stack, correct | {"Detail": json.dumps(detail)})

    refused = json.loads(take_failed(stack))

    assert (refused["id"], refused["source"], refused["detail"]) == (event_id, correct["Source"], detail)
    wait_until(lambda: values(new_lines(), "invalid"), "a count of the metric invalid")
    assert values(new_lines(), "invalid") == [1]
    [line] = [line for line in logged(new_lines()) if line.get("status") == "invalid"]
    assert (line["level"], line["reason"]) == ("WARNING", "invalid_event")
    assert conversation_id not in "".join(new_lines())
    assert requests_for(tavus, conversation_id) == 0
    assert subscriber.result_of(put(stack, correct))["detail"]["status"] == "ended"


def test_dead_letter_of_a_schedule(stack: Stack, tavus: Tavus, subscriber: Subscriber) -> None:
    """The request that SQS refused holds the event, and ends its conversation too."""
    event = event_of(tavus)
    request = {"MessageBody": json.dumps(event), "QueueUrl": stack.outputs["TimeoutQueueUrl"]}
    send_message(stack, json.dumps(request))
    assert subscriber.result_of(event["id"])["detail"]["status"] == "ended"


def test_ends_at(stack: Stack, tavus: Tavus, subscriber: Subscriber) -> None:
    """The conversation ends at that second, not before, and at most 2 s late."""
    conversation_id, ends_at = tavus.start(DEPLOYMENT_ID), seconds_ahead(8)
    event_id = put(stack, session_timeout(conversation_id, ends_at=ends_at))
    result = subscriber.result_of(event_id)
    assert 0 <= seconds_late(result, ends_at) <= LATE_SECONDS
    assert requests_for(tavus, conversation_id) == 1


def test_outage_of_tavus(stack: Stack, tavus: Tavus, subscriber: Subscriber, new_lines: NewLines) -> None:
    """The log and the metrics say that Tavus is down. The third try, 90 s later, ends the conversation."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    tavus.down = True
    try:
        event_id = put(stack, session_timeout(conversation_id))
        wait_until(lambda: len(values(new_lines(), "unavailable")) == 2, "two failed tries")
    finally:
        tavus.down = False
    lines = [line for line in logged(new_lines()) if line.get("conversation_id") == conversation_id]
    first, failed = [line for line in lines if line.get("status") == "unavailable"]
    assert (failed["level"], failed["message"]) == ("ERROR", "conversation unavailable")
    pause = datetime.fromisoformat(failed["timestamp"]) - datetime.fromisoformat(first["timestamp"])
    assert 27 <= pause.total_seconds() < 54  # 30 s, and not yet a minute
    assert (failed["reason"], failed["tavus_status_code"], failed["attempts"]) == ("tavus_error", 503, 3)
    assert len(values(new_lines(), "late")) == 2

    result = subscriber.result_of(event_id, 90)

    assert result["detail"]["status"] == "ended"
    assert result["detail"]["trigger"]["id"] == event_id
    assert 54 <= seconds_late(result, failed["timestamp"]) < 108  # a minute, and not yet two
    assert requests_for(tavus, conversation_id) == 2 * 3 + 1
    assert messages(stack, "FailedQueueUrl") == 0


def test_limits(stack: Stack, tavus: Tavus, subscriber: Subscriber, limits: dict[str, str]) -> None:
    """Each ends its conversation on the second and says so. Nothing is left of it."""
    late = []
    for conversation_id, ends_at in limits.items():
        result = subscriber.result_of(conversation_id, 120)
        assert_published(result)
        late.append(seconds_late(result, ends_at))
        trigger = result["detail"]["trigger"]
        assert (trigger["source"], trigger["detail_type"]) == ("end-conversation", "Session Limit")
        assert result["detail"]["status"] == "ended"
        assert requests_for(tavus, conversation_id) == 1
    assert len(late) == LIMITS
    assert 0 <= min(late) <= max(late) <= LATE_SECONDS
    wait_until(lambda: messages(stack, "TimeoutQueueUrl") == 0, "an empty queue")
    assert messages(stack, "FailedQueueUrl") == 0
    assert not any(schedule_of(stack, conversation_id) for conversation_id in limits)
