"""`make run`: ends conversations over HTTP, by events and at a limit, and checks each outcome."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from local.console import step
from local.process import ProcessFailed, interrupt_once
from local.session import (
    DEPLOYMENT_ID,
    end_path,
    log,
    logged,
    put,
    schedules,
    seconds_late,
    send,
    session_timeout,
    timeout_path,
)
from local.stack import Stack, deployed
from local.subscriber import Subscriber
from local.tavus import Tavus

LIMIT_SECONDS = 75  # the shortest limit that is kept to the second
LATE_SECONDS = 2


class Unexpected(Exception):
    """A step had a wrong outcome."""


@contextmanager
def local_stack(tavus: Tavus, **parameters: str) -> Iterator[Stack]:
    """Run this stand-in for Tavus, and the stack in a local AWS. Exits 1, with the reason, at the first failure."""
    interrupt_once()
    try:
        with tavus, deployed(tavus.url, DEPLOYMENT_ID, **parameters) as stack:
            try:
                yield stack
            except (TimeoutError, Unexpected):
                for group in ("HttpLogGroupName", "EventLogGroupName", "TimerLogGroupName"):
                    print(f"\nThe last lines of {stack.outputs[group]}", *log(stack, group)[-20:], sep="\n")
                raise
    except (ProcessFailed, TimeoutError, Unexpected) as error:
        sys.exit(f"\nFailed: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped.")


def main() -> None:
    """End conversations over HTTP, by events and at a limit, and send invalid input."""
    start, tavus = time.monotonic(), Tavus()
    with local_stack(tavus) as stack:
        take_steps(stack, tavus, Subscriber(stack))
    print(f"\nEvery step succeeded, in {time.monotonic() - start:.0f} s. Everything is stopped.")


def take_steps(stack: Stack, tavus: Tavus, subscriber: Subscriber) -> None:
    """Take every step, and check its outcome. Raises TimeoutError and Unexpected."""
    print(f"\n1. Give a conversation a limit of {LIMIT_SECONDS} s")
    limited = tavus.start(DEPLOYMENT_ID)
    limit = request(stack, "PUT", timeout_path(DEPLOYMENT_ID, limited, LIMIT_SECONDS), HTTPStatus.OK)
    print("  The schedule:")
    [schedule] = schedules(stack)
    show("  ", {name: schedule[name] for name in ("GroupName", "Name", "Description", "ScheduleExpression")})
    expect("its conversation", schedule["Description"], f"{DEPLOYMENT_ID}/{limited}")
    print("  It sends this session timeout a minute ahead, which then waits in the queue:")
    show("  ", waiting := json.loads(schedule["Target"]["Input"]))
    expect("when the conversation ends", waiting["detail"]["ends_at"], limit["ends_at"])

    print("\n2. End another one over HTTP")
    conversation_id = tavus.start(DEPLOYMENT_ID)
    answer = request(stack, "POST", end_path(DEPLOYMENT_ID, conversation_id), HTTPStatus.OK)
    expect("the answer", answer, {"conversation_id": conversation_id, "status": "ended"})
    check_tavus(tavus, conversation_id)

    print("\n3. End a third one by a session timeout on the bus")
    conversation_id = tavus.start(DEPLOYMENT_ID)
    time_out(stack, subscriber, conversation_id, "ended")
    check_tavus(tavus, conversation_id)

    print("\n4. End conversations that are over or unknown")
    problem = request(stack, "POST", end_path(DEPLOYMENT_ID, conversation_id), HTTPStatus.NOT_FOUND)
    expect("the reason", problem["reason"], "not_found")
    time_out(stack, subscriber, "c0ffee", "not_found")

    print("\n5. Send a malformed id")
    asked_before = len(tavus.requests)
    problem = request(stack, "POST", end_path(DEPLOYMENT_ID, "not.an.id"), HTTPStatus.BAD_REQUEST)
    expect("the reason", problem["reason"], "invalid_id")
    expect("the number of requests at Tavus", len(tavus.requests), asked_before)
    print("  Tavus got no request.")

    print("\n6. Read the log line of the session timeout")
    line = logged(log(stack, "EventLogGroupName"))[0]
    show("  ", line)
    expect("the status logged", line["status"], "ended")

    print("\n7. Wait for the limit of the first one")
    expect("whether it is active", (DEPLOYMENT_ID, limited) in tavus.active, expected=True)
    with step(f"It ends at {limit['ends_at']}"):
        result = subscriber.result_of(limited, LIMIT_SECONDS + LATE_SECONDS)
    show_result(result, limited, "ended")
    trigger = result["detail"]["trigger"]
    expect("what triggered it", (trigger["source"], trigger["detail_type"]), ("end-conversation", "Session Limit"))
    check_late(result, limit["ends_at"], LATE_SECONDS)
    check_tavus(tavus, limited)


def request(stack: Stack, method: str, path: str, expected: HTTPStatus) -> Any:
    print(f"  > {method} {path}")
    response = send(stack, method, path)
    print(f"  < {response.status} {HTTPStatus(response.status).phrase}, {response.headers.get('Content-Type')}")
    show("  < ", body := response.json())
    expect("the HTTP status", response.status, expected)
    return body


def time_out(stack: Stack, subscriber: Subscriber, conversation_id: str, status: str) -> None:
    entry = session_timeout(conversation_id)
    show("  > ", entry)
    show_result(subscriber.result_of(put(stack, entry)), conversation_id, status)


def show_result(result: dict[str, Any], conversation_id: str, status: str) -> None:
    print("  < published:")
    show("  < ", result)
    expect("the status", result["detail"]["status"], status)
    expect("the conversation", result["detail"]["conversation_id"], conversation_id)


def show(prefix: str, value: object) -> None:
    for line in json.dumps(value, indent=2).splitlines():
        print(f"{prefix}{line}")


def expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Unexpected(f"{what} is {found!r} and should be {expected!r}")


def check_late(result: dict[str, Any], ends_at: str, most: float) -> None:
    """Expect that the conversation of this result ended at its limit, and at most so many seconds after it."""
    late = seconds_late(result, ends_at)
    print(f"  It ended {late:.1f} s after its limit.")
    expect(f"whether it ended at most {most} s after its limit", 0 <= late <= most, expected=True)


def check_tavus(tavus: Tavus, conversation_id: str, *, asked: bool = True) -> None:
    """Expect that Tavus got one request for this conversation and ended it, or got none if it was not `asked`."""
    path = end_path(DEPLOYMENT_ID, conversation_id)
    expect("the number of requests at Tavus", [request.path for request in tavus.requests].count(path), int(asked))
    expect("whether it is over", (DEPLOYMENT_ID, conversation_id) not in tavus.active, asked)
    print(f"  Tavus got {'one request, and the conversation is over' if asked else 'no request'}.")


if __name__ == "__main__":
    main()
