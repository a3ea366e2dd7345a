"""The operator's drill: Tavus fails, or a producer sends bad events, and the alarm's metric and the log say what to do.

docs/operating.md tells the same two stories.
"""

from __future__ import annotations

import json
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest

from local.session import DEPLOYMENT_ID, log, logged, put, session_timeout
from local.subscriber import Subscriber
from tests.local.delivery import deliver, event_of, messages, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.stack import Stack
    from local.tavus import Tavus

type NewLines = Callable[[], list[str]]


@pytest.fixture
def new_lines(stack: Stack) -> NewLines:
    """Return what the event function has logged since the test began."""
    begun = len(log(stack, "EventLogGroupName"))
    return lambda: log(stack, "EventLogGroupName")[begun:]


def alarm_on(stack: Stack, metric: str) -> dict[str, Any]:
    """Return the deployed alarm that watches this metric of session timeouts."""
    dimensions = [{"Name": "service", "Value": "end-conversation"}, {"Name": "trigger", "Value": "event"}]
    alarms = stack.client("cloudwatch").describe_alarms()["MetricAlarms"]
    [found] = [
        alarm
        for alarm in alarms
        if (alarm["Namespace"], alarm["MetricName"], alarm["Dimensions"]) == ("EndConversation", metric, dimensions)
    ]
    assert isinstance(found, dict)
    return found


def values(lines: list[str], metric: str) -> list[float]:
    """Return the values of a metric of session timeouts, oldest first."""
    emitted = [json.loads(line) for line in lines if line.startswith('{"_aws"')]
    return [value for line in emitted if line["trigger"] == "event" for value in line.get(metric, [])]


def test_drill_tavus_is_down_and_comes_back(stack: Stack, tavus: Tavus, new_lines: NewLines) -> None:
    """EventUnavailableAlarm's metric falls below its threshold, and the log says why. The operator does nothing."""
    alarm = alarm_on(stack, "tavus_answered")
    assert (alarm["Statistic"], alarm["ComparisonOperator"]) == ("Average", "LessThanThreshold")
    subscriber, event = Subscriber(stack), event_of(tavus)
    conversation_id = event["detail"]["conversation_id"]
    tavus.down = True
    try:
        deliver(stack, event)
        wait_until(lambda: len(values(new_lines(), "tavus_answered")) >= 3, "Lambda's three tries")
        during = new_lines()
    finally:
        tavus.down = False

    # The alarm: no call was answered.
    assert fmean(values(during, "tavus_answered")) == 0 < alarm["Threshold"]
    # The log: which conversation, and why.
    line = logged(during)[0]
    assert (line["level"], line["message"]) == ("ERROR", "conversation unavailable")
    assert (line["deployment_id"], line["conversation_id"]) == (DEPLOYMENT_ID, conversation_id)
    assert (line["reason"], line["tavus_status_code"], line["attempts"]) == ("tavus_error", 503, 3)

    # Tavus is back: the conversation ends by itself.
    assert subscriber.result_of(event["id"])["detail"]["status"] == "ended"
    assert (DEPLOYMENT_ID, conversation_id) not in tavus.active
    wait_until(lambda: values(new_lines(), "tavus_answered")[-1] == 1 and values(new_lines(), "ended") == [1], "an end")
    wait_until(lambda: messages(stack, "RetryQueueUrl") == 0, "an empty retry queue")
    assert messages(stack, "FailedQueueUrl") == 0


def test_drill_a_producer_sends_a_bad_event_and_is_corrected(stack: Stack, tavus: Tavus, new_lines: NewLines) -> None:
    """EventInvalidAlarm's metric counts it, and the log says what is missing. A correct event ends the conversation."""
    alarm = alarm_on(stack, "invalid")
    assert (alarm["Statistic"], alarm["ComparisonOperator"]) == ("Sum", "GreaterThanOrEqualToThreshold")
    subscriber, conversation_id = Subscriber(stack), tavus.start(DEPLOYMENT_ID)
    asked_before = len(tavus.requests)
    correct = session_timeout(DEPLOYMENT_ID, conversation_id)
    put(stack, correct | {"Detail": json.dumps({"deployment_id": DEPLOYMENT_ID, "conversationId": conversation_id})})
    wait_until(lambda: bool(values(new_lines(), "invalid")), "a count of the metric invalid")

    # The alarm: one bad event is enough.
    assert sum(values(new_lines(), "invalid")) >= alarm["Threshold"]
    # The log: it was invalid. Lambda's own line, or the record in the failed queue, says what is missing.
    lines = new_lines()
    line = next(line for line in logged(lines) if line.get("status") == "invalid")
    assert (line["level"], line["status"], line["reason"]) == ("WARNING", "invalid", "invalid_event")
    assert any("detail must have a deployment_id and a conversation_id" in text for text in lines)
    assert conversation_id not in "".join(lines)
    assert len(tavus.requests) == asked_before

    # The producer is corrected.
    assert subscriber.result_of(put(stack, correct))["detail"]["status"] == "ended"
    assert (DEPLOYMENT_ID, conversation_id) not in tavus.active
