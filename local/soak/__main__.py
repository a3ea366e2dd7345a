"""Delivers 1,000 session timeouts, and checks that none is lost and that every published result is true.

The function is invoked asynchronously, because ministack does not retry a failed target of a rule. The environment
variable SEED selects the faults and the order; the default is 1.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from typing import TYPE_CHECKING

from local.process import ProcessFailed, interrupt_once
from local.session import DEPLOYMENT_ID
from local.soak.faulty_tavus import FaultyTavus
from local.soak.storm import MAX_IN_FLIGHT, STATUSES, Storm
from local.stack import deployed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from local.soak.faulty_tavus import Truth

CONVERSATIONS = 1000
ALREADY_OVER = 20  # conversations that Tavus does not know any more
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
        with FaultyTavus(seed, ids) as tavus, deployed(tavus.url, DEPLOYMENT_ID) as stack:
            for conversation_id in rng.sample(ids, CONVERSATIONS - ALREADY_OVER):
                tavus.start(DEPLOYMENT_ID, conversation_id)
            storm = Storm(stack)
            seconds = storm.run(deliveries(ids, rng))
    except ProcessFailed as error:
        sys.exit(f"\nFailed: {error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    errors = storm.losses() + untrue_results(storm, tavus.truths)
    show(storm, tavus, seconds, len(errors))
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


def untrue_results(storm: Storm, truths: Mapping[str, Truth]) -> list[str]:
    """One sentence for each conversation whose strongest result is not true."""
    return [
        f"{conversation_id}: the strongest result is {strongest}, but {truth}"
        for conversation_id, truth in truths.items()
        if not agrees(strongest := storm.strongest(conversation_id), truth)
    ]


def agrees(strongest: str | None, truth: Truth) -> bool:
    """Whether the strongest result says what Tavus' answers prove, no more and no less."""
    match strongest:
        case "ended":
            return truth.confirmed
        case "unconfirmed":
            return truth.doubtful and not truth.confirmed
        case "not_found":
            return not truth.ended
        case "rejected":
            return truth.refused and not truth.ended
    return truth.hopeless


def show(storm: Storm, tavus: FaultyTavus, seconds: float, errors: int) -> None:
    """Print the figures of the run."""
    strongest = Counter(map(storm.strongest, tavus.truths))
    rows: dict[str, float] = {
        "Session timeouts": CONVERSATIONS,
        "Deliveries": CONVERSATIONS + DELIVERED_TWICE,
        "Requests to Tavus": tavus.faults_met.total(),
        "  at most at one time": tavus.max_concurrent,
        **{f"  {fault}": count for fault, count in tavus.faults_met.most_common() if fault},
        "Conversations ended at Tavus": sum(truth.ended for truth in tavus.truths.values()),
        "Results published": sum(map(len, storm.published.values())),
        **{f"  strongest is {status}": strongest[status] for status in reversed(STATUSES)},
        "Events in the failure queue": storm.failed.total(),
        "  conversations without a result": strongest[None],
        "Lost or untrue": errors,
        "Seconds": round(seconds),
    }
    print()
    for label, figure in rows.items():
        print(f"  {label:<36}{figure:>6}")


if __name__ == "__main__":
    main()
