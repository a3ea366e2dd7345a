"""`make soak`: a storm of session timeouts, while Tavus fails in many ways. None is lost, and no result is untrue.

Lambda is asked by asynchronous invocations, as ministack's rules try once and forget. SEED=7 makes another storm.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from typing import TYPE_CHECKING

from local.faulty_tavus import FaultyTavus
from local.process import ProcessFailed, interrupt_once
from local.session import DEPLOYMENT_ID
from local.stack import deployed
from local.storm import SANDBOXES, STRENGTH, Storm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from local.faulty_tavus import Truth

CONVERSATIONS = 1000
OVER_BEFORE = 20
TWICE = 100
MOST_SHOWN = 20


def main() -> None:
    """Let the storm pass and compare what was said with the truth. Exits 1, with the reason, where they differ."""
    interrupt_once()
    seed = int(os.environ.get("SEED") or 1)
    chance = random.Random(seed)  # noqa: S311 - the same at each run, as it should be
    names = [f"c{number:04}" for number in range(CONVERSATIONS)]
    print(f"{CONVERSATIONS} session timeouts, {TWICE} of them delivered twice, {SANDBOXES} at a time (SEED={seed})")
    try:
        with FaultyTavus(seed, names) as tavus, deployed(tavus.url, DEPLOYMENT_ID) as stack:
            for name in chance.sample(names, CONVERSATIONS - OVER_BEFORE):
                tavus.start(DEPLOYMENT_ID, name)
            storm = Storm(stack)
            seconds = storm.run(deliveries(names, chance))
    except ProcessFailed as error:
        sys.exit(f"\nNot as it should be: {error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    wrong = storm.losses() + untruths(storm, tavus.truths)
    show(storm, tavus, seconds, len(wrong))
    if wrong:
        sys.exit("\n".join([f"\nNot as it should be, {len(wrong)} times:", *wrong[:MOST_SHOWN]]))
    print("\nAll as it should be; everything that was started has been stopped.")


def deliveries(names: Sequence[str], chance: random.Random) -> list[str]:
    """Each name in no order, some twice: half of those at once, half some time later."""
    twice = chance.sample(names, TWICE)
    order = [*names, *twice[::2]]
    chance.shuffle(order)
    return [name for name in order for _ in range(2 if name in twice[1::2] else 1)]


def untruths(storm: Storm, truths: Mapping[str, Truth]) -> list[str]:
    """What was said and is untrue, a sentence each."""
    return [
        f"{name}: the strongest result is {strongest}, but {truth}"
        for name, truth in truths.items()
        if not agrees(strongest := storm.strongest(name), truth)
    ]


def agrees(strongest: str | None, truth: Truth) -> bool:
    """Whether the strongest result is what Tavus' answers amount to: no more than the truth, and no less."""
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


def show(storm: Storm, tavus: FaultyTavus, seconds: float, wrong: int) -> None:
    """Print what happened in figures."""
    results = Counter(map(storm.strongest, tavus.truths))
    rows: dict[str, float] = {
        "Session timeouts": CONVERSATIONS,
        "Deliveries": CONVERSATIONS + TWICE,
        "Requests at Tavus": tavus.met.total(),
        "  the most at one time": tavus.most_at_once,
        **{f"  {fault}": count for fault, count in tavus.met.most_common() if fault},
        "Conversations ended at Tavus": sum(truth.ended for truth in tavus.truths.values()),
        "Results published": sum(map(len, storm.published.values())),
        **{f"  {status} the strongest of": results[status] for status in reversed(STRENGTH)},
        "Events in the failure queue": storm.failed.total(),
        "  with no result of": results[None],
        "Lost, or untrue": wrong,
        "Seconds": round(seconds),
    }
    print()
    for label, figure in rows.items():
        print(f"  {label:<36}{figure:>6}")


if __name__ == "__main__":
    main()
