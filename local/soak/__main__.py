"""Puts 1,000 session timeouts on the bus, and checks that none is lost, untrue or early.

Meanwhile Tavus, the bus, the table and the queues fail in many ways, and sandboxes are killed. The environment variable
SEED selects the faults and the order; the default is 1.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from local.process import ProcessFailed, interrupt_once
from local.session import DEPLOYMENT_ID, session_timeout
from local.soak.faulty_aws import FaultyAws
from local.soak.faulty_tavus import FaultyTavus, Truth, utc
from local.soak.judge import STATUSES, UNTRUE, judge
from local.stack import deployed
from local.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from local.stack import Stack

CONVERSATIONS = 1000
WAITING = 100  # conversations that must not end before their second
ALREADY_OVER = 20  # conversations that Tavus no longer knows
INVALID_IDS = [f"not.an.id.{number}" for number in range(10)]  # their events belong in the failed queue
MAX_VISIBLE = 8  # messages in the queue that no sandbox has taken yet, so that those that must wait are taken early
STALLED_SECONDS = 180  # longer than all tries of an event, so no more outcomes can follow
KILLED_SECONDS = 31  # then the message of a killed sandbox comes back; a sandbox runs for 30 s at most
ERRORS_SHOWN = 20


def main() -> None:
    """Put everything on the bus and compare the results with the truth. Exits 1 with the reasons if they differ."""
    interrupt_once()
    seed = int(os.environ.get("SEED") or 1)
    print(f"{CONVERSATIONS} session timeouts, every tenth of them twice (SEED={seed})")
    rng = random.Random(seed)  # noqa: S311 - must be reproducible
    ids = [f"c{number:04}" for number in range(CONVERSATIONS)]
    order = deliveries(rng, ids)
    begun = time.time()
    try:
        with FaultyTavus(rng, ids) as tavus, deployed(tavus.url, DEPLOYMENT_ID, EventConcurrency="6") as stack:
            for key in ids[:-ALREADY_OVER]:
                tavus.start(DEPLOYMENT_ID, key)
            with FaultyAws(rng, stack, tavus.recorded_then_doubtful) as aws:
                storm = Storm(stack, aws.url)
                storm.run(order, {key: rng.uniform(3, 25) for key in ids[:WAITING]}, tavus.ends_at)
            records = recorded(stack)
    except ProcessFailed as error:
        sys.exit(f"\nFailed: {error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    errors = storm.errors() + tavus.early
    truths = tavus.truths | dict.fromkeys(INVALID_IDS, Truth(hopeless=True))
    verdicts: Counter[str] = Counter()
    for key, truth in truths.items():
        unmade = {operation for operation, about in aws.unmade if about == key}
        verdicts[verdict := judge(storm.strongest(key), truth, records.get(key), unmade)] += 1
        if verdict == UNTRUE:
            errors.append(f"{key}: published {storm.published[key]}, recorded {records.get(key)}, but {truth}")
    strongest = Counter(storm.strongest(key) or "missing" for key in truths)
    show("Session timeouts on the bus", len(order))
    show("Waits for the second", aws.waits)
    show("Requests to Tavus", tavus.faults_met.total(), tavus.faults_met)
    show("Calls to AWS", aws.faults_met.total(), aws.faults_met)
    show("Results published", sum(map(len, storm.published.values())))
    show("Events in the failed queue", storm.failed)
    show("Strongest results", strongest.total(), strongest)
    show("Judged true, or excused", verdicts.total(), verdicts)
    show("Seconds", round(time.time() - begun))
    if errors:
        sys.exit("\n".join([f"\nFailed with {len(errors)} errors:", *errors[:ERRORS_SHOWN]]))
    print("\nEvery event is accounted for, every result is true, and nothing was early. All processes are stopped.")


def deliveries(rng: random.Random, ids: Sequence[str]) -> list[str]:
    """Return all ids in random order. Of those put twice, half repeat at once and half at a random later time."""
    order = [*ids, *INVALID_IDS, *ids[::20]]
    rng.shuffle(order)
    return [key for key in order for _ in range(2 if key in ids[10::20] else 1)]


def recorded(stack: Stack) -> dict[str, str]:
    """Return the recorded statuses by conversation id."""
    pages = stack.client("dynamodb").get_paginator("scan").paginate(TableName=stack.outputs["EndedTableName"])
    items = [item for page in pages for item in page["Items"]]
    return {item["conversation"]["S"].rpartition("/")[2]: item["status"]["S"] for item in items}


def show(label: str, figure: int, parts: Mapping[str, int] | None = None) -> None:
    """Print a figure of the run, and the parts that it consists of."""
    print(f"  {label:<45}{figure:>6}")
    for part, count in sorted((parts or {}).items()):
        print(f"    {part:<43}{count:>6}")


class Storm:
    """The events on the bus, and the outcome of each: a result, or the whole event in the failed queue.

    The function finds the bus, the table and the queues at `aws_url`. `published` holds statuses by conversation id.
    """

    def __init__(self, stack: Stack, aws_url: str) -> None:
        self._events, self._sqs = stack.client("events"), stack.client("sqs")
        self._bus, self._queue_url = stack.outputs["EventBusName"], stack.outputs["TimeoutQueueUrl"]
        self._failed_url = stack.outputs["FailedQueueUrl"]
        functions, name = stack.client("lambda"), stack.outputs["EventFunctionName"]
        environment = functions.get_function_configuration(FunctionName=name)["Environment"]
        for service in ("DYNAMODB", "EVENTBRIDGE", "SQS"):
            environment["Variables"][f"AWS_ENDPOINT_URL_{service}"] = aws_url
        functions.update_function_configuration(FunctionName=name, Environment=environment)
        attributes = {"VisibilityTimeout": str(KILLED_SECONDS)}
        self._sqs.set_queue_attributes(QueueUrl=self._queue_url, Attributes=attributes)
        self._subscriber = Subscriber(stack)
        self._sent: dict[str, dict[str, str]] = {}  # details by event id
        self._settled: set[str] = set()
        self._altered: list[str] = []
        self.failed = 0
        self.published: defaultdict[str, list[str]] = defaultdict(list)

    def run(self, order: Sequence[str], waits: Mapping[str, float], ends_at: dict[str, str]) -> None:
        """Put an event on the bus for each id, and wait until each has an outcome or no more arrive.

        Those in `waits` get an `ends_at` so many seconds ahead.
        """
        last_outcome = time.time()
        while len(self._settled) < len(order) and time.time() - last_outcome < STALLED_SECONDS:
            for key in order[len(self._sent) :][: MAX_VISIBLE - self._visible()]:
                if key in waits:
                    ends_at.setdefault(key, utc(time.time() + waits[key]))
                self._put(session_timeout(DEPLOYMENT_ID, key), ends_at.get(key))
            before = len(self._settled)
            self._receive_outcomes()
            if (settled := len(self._settled)) > before:
                last_outcome = time.time()
                if settled // 100 > before // 100:
                    print(f"  {settled} of {len(order)} events have an outcome", flush=True)

    def _visible(self) -> int:
        name = "ApproximateNumberOfMessages"
        found = self._sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=[name])
        return min(int(found["Attributes"][name]), MAX_VISIBLE)

    def _put(self, entry: dict[str, str], ends_at: str | None) -> None:
        detail = json.loads(entry["Detail"]) | ({"ends_at": ends_at} if ends_at else {})
        entry |= {"EventBusName": self._bus, "Detail": json.dumps(detail)}
        self._sent[self._events.put_events(Entries=[entry])["Entries"][0]["EventId"]] = detail

    def _receive_outcomes(self) -> None:
        """Take new results and failed events, waiting up to 1 s for results."""
        for result in self._subscriber.receive(1):
            detail, event_id = result["detail"], result["detail"]["trigger"]["id"]
            self.published[detail["conversation_id"]].append(detail["status"])
            sent = self._sent.get(event_id, {"conversation_id": "none"})
            self._settle(event_id, intact=sent["conversation_id"] == detail["conversation_id"])
        asked = self._sqs.receive_message(QueueUrl=self._failed_url, MaxNumberOfMessages=10)
        for message in asked.get("Messages", []):
            self._sqs.delete_message(QueueUrl=self._failed_url, ReceiptHandle=message["ReceiptHandle"])
            event, self.failed = json.loads(message["Body"]), self.failed + 1
            self._settle(event["id"], intact=self._sent.get(event["id"]) == event["detail"])

    def _settle(self, event_id: str, *, intact: bool) -> None:
        self._settled.add(event_id)
        if not intact:
            self._altered.append(event_id)

    def errors(self) -> list[str]:
        """One sentence for each lost or altered event."""
        lost = [f"{self._sent[event_id]['conversation_id']}: lost" for event_id in self._sent.keys() - self._settled]
        return sorted(lost) + [f"event {event_id} was altered" for event_id in self._altered]

    def strongest(self, conversation_id: str) -> str | None:
        """The strongest published result of a conversation, or None if there is none."""
        return max(self.published[conversation_id], key=STATUSES.index, default=None)


if __name__ == "__main__":
    main()
