"""Delivers 1,000 session timeouts, and checks that none is lost and that every published result is true.

Meanwhile Tavus, the bus and the table fail in many ways, and sandboxes are killed. The function is invoked
asynchronously, because ministack does not retry a failed target of a rule. The environment variable SEED selects the
faults and the order; the default is 1.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from typing import TYPE_CHECKING

from local.process import ProcessFailed, interrupt_once
from local.session import DEPLOYMENT_ID
from local.soak.faulty_aws import FaultyAws
from local.soak.faulty_tavus import FaultyTavus
from local.soak.judge import Judge, Verdict
from local.soak.killer import Killer
from local.soak.storm import MAX_IN_FLIGHT, STATUSES, Storm
from local.stack import deployed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local.stack import Stack

CONVERSATIONS = 1000
ALREADY_OVER = 20  # conversations that Tavus no longer knows
DELIVERED_TWICE = 100
ERRORS_SHOWN = 20


def main() -> None:
    """Deliver everything and compare the results with the truth. Exits 1 with the reasons if they differ."""
    interrupt_once()
    seed = int(os.environ.get("SEED") or 1)
    rng = random.Random(seed)  # noqa: S311 - must be reproducible
    ids = [f"c{number:04}" for number in range(CONVERSATIONS)]
    print(
        f"{CONVERSATIONS} session timeouts, {DELIVERED_TWICE} of them delivered twice, "
        f"at most {MAX_IN_FLIGHT} in flight (SEED={seed})"
    )
    try:
        killer = Killer(seed)
        with FaultyTavus(seed, ids, killer.kill_sender) as tavus, deployed(tavus.url, DEPLOYMENT_ID) as stack:
            for conversation_id in rng.sample(ids, CONVERSATIONS - ALREADY_OVER):
                tavus.start(DEPLOYMENT_ID, conversation_id)
            with FaultyAws(seed, stack.endpoint_url, tavus.recorded_then_doubtful) as aws:
                storm = Storm(stack, aws.url)
                with killer:
                    seconds = storm.run(deliveries(ids, rng))
            judge = Judge(tavus.truths, recorded(stack), aws, killer.kills)
    except ProcessFailed as error:
        sys.exit(f"\nFailed: {error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    verdicts = {
        conversation_id: judge.verdict(conversation_id, storm.strongest(conversation_id)) for conversation_id in ids
    }
    errors = storm.losses() + [
        f"{conversation_id}: the strongest result is {storm.strongest(conversation_id)}, "
        f"the record is {judge.records.get(conversation_id)}, but {tavus.truths[conversation_id]}"
        for conversation_id, verdict in verdicts.items()
        if verdict is Verdict.UNTRUE
    ]
    show(storm, tavus, judge, Counter(verdicts.values()), seconds)
    if errors:
        sys.exit("\n".join([f"\nFailed with {len(errors)} errors:", *errors[:ERRORS_SHOWN]]))
    print("\nEvery event is accounted for and every result is true. All processes are stopped.")


def deliveries(ids: Sequence[str], rng: random.Random) -> list[str]:
    """All ids in random order. Of those delivered twice, half repeat at once and half at a random later time."""
    twice = rng.sample(ids, DELIVERED_TWICE)
    order = [*ids, *twice[::2]]
    rng.shuffle(order)
    at_once = set(twice[1::2])
    return [conversation_id for conversation_id in order for _ in range(2 if conversation_id in at_once else 1)]


def recorded(stack: Stack) -> dict[str, str]:
    """Return the recorded statuses by conversation id."""
    pages = stack.client("dynamodb").get_paginator("scan").paginate(TableName=stack.outputs["EndedTableName"])
    items = [item for page in pages for item in page["Items"]]
    return {item["conversation"]["S"].rpartition("/")[2]: item["status"]["S"] for item in items}


def show(storm: Storm, tavus: FaultyTavus, judge: Judge, verdicts: Counter[Verdict], seconds: float) -> None:
    """Print the figures of the run."""
    strongest = Counter(map(storm.strongest, tavus.truths))
    rows: dict[str, float] = {
        "Session timeouts": CONVERSATIONS,
        "Deliveries": CONVERSATIONS + DELIVERED_TWICE,
        "Requests to Tavus": tavus.faults_met.total(),
        "  at most at one time": tavus.max_concurrent,
        **{f"  {fault}": count for fault, count in tavus.faults_met.most_common() if fault},
        "Failed calls of the bus and the table": judge.aws.faults_met.total(),
        **{f"  {fault}": count for fault, count in sorted(judge.aws.faults_met.items())},
        "Killed sandboxes": len(judge.kills),
        "Conversations ended at Tavus": sum(truth.ended_at is not None for truth in tavus.truths.values()),
        "Results published": sum(map(len, storm.published.values())),
        **{f"  strongest is {status}": strongest[status] for status in reversed(STATUSES)},
        "Events in the failed queue": storm.failed.total(),
        "  conversations without a result": strongest[None],
        "Conversations judged": verdicts.total(),
        **{f"  {verdict}": verdicts[verdict] for verdict in Verdict},
        "Seconds": round(seconds),
    }
    print()
    for label, figure in rows.items():
        print(f"  {label:<38}{figure:>6}")


if __name__ == "__main__":
    main()
