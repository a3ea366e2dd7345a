"""Puts 1,000 session timeouts on the bus, and checks that none is lost, untrue or early.

Meanwhile Tavus, the bus, the table and the queues fail in many ways, and sandboxes are killed. The environment variable
SEED selects the faults and the order; the default is 1.
"""

import json
import os
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from local.run import local_stack
from local.session import DEPLOYMENT_ID, put, seconds_ahead, session_timeout
from local.soak.faulty_aws import FaultyAws
from local.soak.faulty_tavus import FaultyTavus
from local.soak.judge import STATUSES, UNTRUE, Truth, judge
from local.stack import Stack
from local.subscriber import Subscriber, take_messages

CONVERSATIONS = 1000
WAITING = 100  # conversations that must not end before their second
ALREADY_OVER = 20  # conversations that Tavus no longer knows
INVALID_IDS = [f"not.an.id.{number}" for number in range(10)]  # their events belong in the failed queue
MAX_OPEN = 40  # events without an outcome, so that the queue is short and those that must wait are taken early
STALLED_SECONDS = 180  # longer than all tries of an event, so no more outcomes can follow
KILLED_SECONDS = 31  # then the message of a killed sandbox comes back; a sandbox runs for 30 s at most
ERRORS_SHOWN = 20


def main() -> None:
    """Put everything on the bus and compare the results with the truth. Exits 1 with the reasons if they differ."""
    seed = int(os.environ.get("SEED") or 1)
    print(f"{CONVERSATIONS} session timeouts, every tenth of them twice (SEED={seed})")
    rng = random.Random(seed)  # noqa: S311 - must be reproducible
    ids = [f"c{number:04}" for number in range(CONVERSATIONS)]
    order = deliveries(rng, ids)
    begun, tavus = time.monotonic(), FaultyTavus(rng, ids)
    for key in ids[:-ALREADY_OVER]:
        tavus.start(DEPLOYMENT_ID, key)
    with local_stack(tavus, EventConcurrency="6") as stack:
        with FaultyAws(rng, stack, tavus.recorded_then_doubtful) as aws:
            reconfigure(stack, aws.url)
            storm = Storm(stack)
            storm.run(order, {key: rng.uniform(3, 25) for key in ids[:WAITING]}, tavus.ends_at)
        records = recorded(stack)
    errors = storm.lost() + tavus.early
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
    show("Seconds", round(time.monotonic() - begun))
    if errors:
        sys.exit("\n".join([f"\nFailed with {len(errors)} errors:", *errors[:ERRORS_SHOWN]]))
    print("\nEvery event is accounted for, every result is true, and nothing was early. All processes are stopped.")


def deliveries(rng: random.Random, ids: Sequence[str]) -> list[str]:
    """Return all ids in random order. Of those put twice, half repeat at once and half at a random later time."""
    order = [*ids, *INVALID_IDS, *ids[::20]]
    rng.shuffle(order)
    return [key for key in order for _ in range(2 if key in ids[10::20] else 1)]


def reconfigure(stack: Stack, aws_url: str) -> None:
    """Let the function find the bus, the table and the queues at `aws_url`, and killed messages come back soon."""
    functions, name = stack.client("lambda"), stack.outputs["EventFunctionName"]
    environment = functions.get_function_configuration(FunctionName=name)["Environment"]
    for service in ("DYNAMODB", "EVENTBRIDGE", "SQS"):
        environment["Variables"][f"AWS_ENDPOINT_URL_{service}"] = aws_url
    functions.update_function_configuration(FunctionName=name, Environment=environment)
    attributes = {"VisibilityTimeout": str(KILLED_SECONDS)}
    stack.client("sqs").set_queue_attributes(QueueUrl=stack.outputs["TimeoutQueueUrl"], Attributes=attributes)


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

    `published` holds statuses by conversation id, and `failed` counts the events in the failed queue.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack, self._subscriber = stack, Subscriber(stack)
        self._sent: dict[str, dict[str, str]] = {}  # details by event id
        self._settled: set[str] = set()
        self._altered: set[str] = set()
        self.failed = 0
        self.published: defaultdict[str, list[str]] = defaultdict(list)

    def run(self, order: Sequence[str], waits: Mapping[str, float], ends_at: dict[str, str]) -> None:
        """Put an event on the bus for each id, and wait until each has an outcome or no more arrive.

        Those in `waits` get an `ends_at` so many seconds ahead.
        """
        last_outcome = time.monotonic()
        while len(self._settled) < len(order) and time.monotonic() - last_outcome < STALLED_SECONDS:
            for key in order[len(self._sent) : len(self._settled) + MAX_OPEN]:
                if key in waits:
                    ends_at.setdefault(key, seconds_ahead(waits[key]))
                entry = session_timeout(key, **({"ends_at": ends_at[key]} if key in ends_at else {}))
                self._sent[put(self._stack, entry)] = json.loads(entry["Detail"])
            before = len(self._settled)
            self._receive_outcomes()
            if (settled := len(self._settled)) > before:
                last_outcome = time.monotonic()
                if settled // 100 > before // 100:
                    print(f"  {settled} of {len(order)} events have an outcome", flush=True)

    def _receive_outcomes(self) -> None:
        """Take new results and failed events, waiting up to 1 s for results."""
        for detail in (result["detail"] for result in self._subscriber.receive(1)):
            self.published[detail["conversation_id"]].append(detail["status"])
            sent = self._sent.get(event_id := detail["trigger"]["id"], {})
            self._settle(event_id, intact=detail["conversation_id"] == sent.get("conversation_id"))
        for event in map(json.loads, take_messages(self._stack, self._stack.outputs["FailedQueueUrl"])):
            self.failed += 1
            self._settle(event["id"], intact=event["detail"] == self._sent.get(event["id"]))

    def _settle(self, event_id: str, *, intact: bool) -> None:
        (self._settled if intact else self._altered).add(event_id)

    def lost(self) -> list[str]:
        """One sentence for each event that has no outcome, and for each outcome of no event that was sent."""
        lost = [f"{event_id}: lost" for event_id in sorted(self._sent.keys() - self._settled)]
        return lost + [f"{event_id}: altered" for event_id in sorted(self._altered)]

    def strongest(self, conversation_id: str) -> str | None:
        """The strongest published result of a conversation, or None if there is none."""
        return max(self.published[conversation_id], key=STATUSES.index, default=None)


if __name__ == "__main__":
    main()
