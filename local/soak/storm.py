"""Delivers session timeouts to a deployed stack, several at a time, and records the outcome of each."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from local.session import timeout_of
from local.stack import set_retry_queue
from local.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local.stack import Stack

MAX_IN_FLIGHT = 6
IN_FLIGHT_SECONDS = 3  # a delivery without an outcome by then is tried again later, or lost
UNDELIVERED_EVERY = 20  # one in this many events reaches the function from the retry queue, as if the rule had failed
# The function gives each of its three attempts about a third of this. That must be less than FaultyTavus' HANG_SECONDS.
# The template's timeout would only make the run longer.
FUNCTION_SECONDS = 20
RETRIES = 3  # by the retry queue
STALLED_SECONDS = 100  # the retries of an event take about 70 s
MAX_SECONDS = 600
STATUSES = ("rejected", "not_found", "unconfirmed", "ended")  # weakest first


class Storm:
    """Deliveries and their outcomes, by conversation id.

    The function finds the bus and the table at `aws_url`. `pending` counts deliveries without an outcome, and `failed`
    the events in the failed queue. `published` holds the statuses of the published results.
    """

    def __init__(self, stack: Stack, aws_url: str) -> None:
        self._lambda, self._sqs = stack.client("lambda"), stack.client("sqs")
        self._function = stack.outputs["EventFunctionName"]
        self._retry_url, self._failed_url = stack.outputs["RetryQueueUrl"], stack.outputs["FailedQueueUrl"]
        environment = self._lambda.get_function_configuration(FunctionName=self._function)["Environment"]
        for service in ("DYNAMODB", "EVENTBRIDGE"):
            environment["Variables"][f"AWS_ENDPOINT_URL_{service}"] = aws_url
        self._lambda.update_function_configuration(
            FunctionName=self._function, Timeout=FUNCTION_SECONDS, Environment=environment
        )
        retry = self._sqs.get_queue_attributes(QueueUrl=self._retry_url, AttributeNames=["RedrivePolicy"])
        redrive = json.loads(retry["Attributes"]["RedrivePolicy"]) | {"maxReceiveCount": RETRIES}
        set_retry_queue(
            stack, DelaySeconds=1, VisibilityTimeout=FUNCTION_SECONDS + 1, RedrivePolicy=json.dumps(redrive)
        )
        self._subscriber = Subscriber(stack)
        self.pending: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.published: defaultdict[str, list[str]] = defaultdict(list)
        self._sent_at: dict[str, float] = {}
        self._altered: list[str] = []

    def run(self, ids: Sequence[str]) -> float:
        """Deliver all and wait until each has an outcome or no more outcomes arrive. Returns the seconds it took."""
        begun = last_outcome = time.monotonic()
        sent = shown = 0
        while (sent < len(ids) or self.pending) and time.monotonic() - begun < MAX_SECONDS:
            while sent < len(ids) and self._in_flight() < MAX_IN_FLIGHT:
                payload = json.dumps(timeout_of(ids[sent]))
                if sent % UNDELIVERED_EVERY:
                    self._lambda.invoke(FunctionName=self._function, InvocationType="Event", Payload=payload)
                else:
                    self._sqs.send_message(QueueUrl=self._retry_url, MessageBody=payload)
                self._sent_at[ids[sent]] = time.monotonic()
                self.pending[ids[sent]] += 1
                sent += 1
            if self._receive_outcomes():
                last_outcome = time.monotonic()
            elif time.monotonic() - last_outcome > STALLED_SECONDS:
                break
            if (done := sent - self.pending.total()) >= shown + 100:
                shown = done
                print(f"  {done} of {len(ids)} deliveries have an outcome, {last_outcome - begun:.0f} s", flush=True)
        self.pending.update(ids[sent:])
        return time.monotonic() - begun

    def _in_flight(self) -> int:
        recently = time.monotonic() - IN_FLIGHT_SECONDS
        return sum(count for known, count in self.pending.items() if self._sent_at[known] > recently)

    def _receive_outcomes(self) -> bool:
        """Record new results and failed events, waiting up to 1 s for results. Returns whether there were any."""
        results = self._subscriber.receive(1)
        for result in results:
            conversation_id = result["detail"]["conversation_id"]
            self.published[conversation_id].append(result["detail"]["status"])
            intact = result["detail"]["trigger"]["id"] == timeout_of(conversation_id)["id"]
            self._record(conversation_id, intact=intact)
        failures = self._sqs.receive_message(QueueUrl=self._failed_url, MaxNumberOfMessages=10).get("Messages", [])
        for message in failures:
            body = json.loads(message["Body"])
            event = body.get("requestPayload", body)
            conversation_id = event["detail"]["conversation_id"]
            self.failed[conversation_id] += 1
            self._record(conversation_id, intact=event == timeout_of(conversation_id))
            self._sqs.delete_message(QueueUrl=self._failed_url, ReceiptHandle=message["ReceiptHandle"])
        return bool(results or failures)

    def _record(self, conversation_id: str, *, intact: bool) -> None:
        self.pending -= Counter([conversation_id])
        if not intact:
            self._altered.append(conversation_id)

    def losses(self) -> list[str]:
        """One sentence for each lost or altered event."""
        lost = [
            f"{conversation_id}: {count} deliveries have no outcome" for conversation_id, count in self.pending.items()
        ]
        return lost + [f"{conversation_id}: its event was altered" for conversation_id in self._altered]

    def strongest(self, conversation_id: str) -> str | None:
        """The strongest published result of a conversation, or None if there is none."""
        return max(self.published[conversation_id], key=STATUSES.index, default=None)
