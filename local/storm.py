"""Session timeouts delivered to a deployed stack, more than one at a time, and what came of each."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from local.session import timeout_of
from local.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local.stack import Stack

SANDBOXES = 6
# A third of what this leaves Tavus is less than it hangs; with the template's minute a storm would only last longer.
FUNCTION_SECONDS = 20
STALLED_SECONDS = 60
MOST_SECONDS = 600
STRENGTH = ("rejected", "not_found", "unconfirmed", "ended")


class Storm:
    """What was delivered, by the conversation named, and what came of it.

    `due` counts deliveries that nothing came of yet, `failed` those in the failure queue; `published` has the statuses.
    """

    def __init__(self, stack: Stack) -> None:
        self._lambda, self._sqs = stack.client("lambda"), stack.client("sqs")
        self._function, self._queue_url = stack.outputs["EventFunctionName"], stack.outputs["FailedQueueUrl"]
        self._lambda.update_function_configuration(FunctionName=self._function, Timeout=FUNCTION_SECONDS)
        self._subscriber = Subscriber(stack)
        self.due: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.published: defaultdict[str, list[str]] = defaultdict(list)
        self._altered: list[str] = []

    def run(self, names: Sequence[str]) -> float:
        """Deliver all, a few at a time, until something came of each or nothing more comes. Returns the seconds."""
        begun = progressed = time.monotonic()
        sent = shown = 0
        while (sent < len(names) or self.due) and time.monotonic() - begun < MOST_SECONDS:
            while sent < len(names) and self.due.total() < SANDBOXES:
                payload = json.dumps(timeout_of(names[sent]))
                self._lambda.invoke(FunctionName=self._function, InvocationType="Event", Payload=payload)
                self.due[names[sent]] += 1
                sent += 1
            if self._settle():
                progressed = time.monotonic()
            elif time.monotonic() - progressed > STALLED_SECONDS:
                break
            if (settled := sent - self.due.total()) >= shown + 100:
                shown = settled
                print(f"  {settled} of {len(names)} deliveries accounted for, {progressed - begun:.0f} s", flush=True)
        self.due.update(names[sent:])
        return time.monotonic() - begun

    def _settle(self) -> bool:
        """Take in new results and failures, waiting a little for results. Whether there were any."""
        results = self._subscriber.receive(1)
        for result in results:
            name = result["detail"]["conversation_id"]
            self.published[name].append(result["detail"]["status"])
            self._account(name, whole=result["detail"]["trigger"]["id"] == timeout_of(name)["id"])
        failures = self._sqs.receive_message(QueueUrl=self._queue_url, MaxNumberOfMessages=10).get("Messages", [])
        for message in failures:
            event = json.loads(message["Body"])["requestPayload"]
            name = event["detail"]["conversation_id"]
            self.failed[name] += 1
            self._account(name, whole=event == timeout_of(name))
            self._sqs.delete_message(QueueUrl=self._queue_url, ReceiptHandle=message["ReceiptHandle"])
        return bool(results or failures)

    def _account(self, name: str, *, whole: bool) -> None:
        self.due -= Counter([name])
        if not whole:
            self._altered.append(name)

    def losses(self) -> list[str]:
        """What was lost, a sentence each."""
        lost = [f"{name}: nothing came of {count} of its deliveries" for name, count in self.due.items()]
        return lost + [f"{name}: its event was altered on the way" for name in self._altered]

    def strongest(self, name: str) -> str | None:
        """The result of a conversation that counts; None where none was published."""
        return max(self.published[name], key=STRENGTH.index, default=None)
