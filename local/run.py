"""`make run`: ends conversations over HTTP, by events and at a limit, and checks each outcome."""

from __future__ import annotations

import json
import sys
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from local.console import step
from local.process import ProcessFailed, interrupt_once
from local.session import DEPLOYMENT_ID, end_path, log, logged, put, schedules, send, session_timeout, timeout_path
from local.stack import deployed
from local.subscriber import Subscriber
from local.tavus import Tavus

if TYPE_CHECKING:
    from local.stack import Stack

LIMIT_SECONDS = 60
LATE_SECONDS = 30  # the local Scheduler looks every 10 s for schedules that are due


class Unexpected(Exception):
    """A step had a wrong outcome."""


def main() -> None:
    """Run every step. Exits 1, with the reason, at the first wrong outcome."""
    interrupt_once()
    start = time.monotonic()
    try:
        with Tavus() as tavus, deployed(tavus.url, DEPLOYMENT_ID) as stack:
            try:
                take_steps(stack, tavus)
            except (TimeoutError, Unexpected):
                show_logs(stack)
                raise
    except (ProcessFailed, TimeoutError, Unexpected) as error:
        sys.exit(f"\nFailed: {error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    print(f"\nEvery step succeeded, in {time.monotonic() - start:.0f} s. Everything is stopped.")


def take_steps(stack: Stack, tavus: Tavus) -> None:
    """End conversations over HTTP, by events and at a limit, and send invalid input."""
    subscriber = Subscriber(stack)

    heading(f"1. Give a conversation a limit of {LIMIT_SECONDS} s")
    limited = tavus.start(DEPLOYMENT_ID)
    limit = request(stack, "PUT", timeout_path(DEPLOYMENT_ID, limited, LIMIT_SECONDS), HTTPStatus.OK)
    print("  The schedule:")
    [schedule] = schedules(stack)
    show("  ", {name: schedule[name] for name in ("GroupName", "Name", "Description", "ScheduleExpression", "Target")})
    expect("its conversation", schedule["Description"], f"{DEPLOYMENT_ID}/{limited}")
    expect("its time", schedule["ScheduleExpression"], f"at({limit['ends_at'].removesuffix('Z')})")

    heading("2. End another one over HTTP")
    conversation_id = tavus.start(DEPLOYMENT_ID)
    answer = request(stack, "POST", end_path(DEPLOYMENT_ID, conversation_id), HTTPStatus.OK)
    expect("the answer", answer, {"conversation_id": conversation_id, "status": "ended"})
    expect_ended(tavus, conversation_id)

    heading("3. End a third one by a session timeout on the bus")
    conversation_id = tavus.start(DEPLOYMENT_ID)
    time_out(stack, subscriber, conversation_id, "ended")
    expect_ended(tavus, conversation_id)

    heading("4. End conversations that are over or unknown")
    problem = request(stack, "POST", end_path(DEPLOYMENT_ID, conversation_id), HTTPStatus.NOT_FOUND)
    expect("the reason", problem["reason"], "not_found")
    time_out(stack, subscriber, "c0ffee", "not_found")

    heading("5. Send a malformed id")
    asked_before = len(tavus.requests)
    problem = request(stack, "POST", end_path(DEPLOYMENT_ID, "not.an.id"), HTTPStatus.BAD_REQUEST)
    expect("the reason", problem["reason"], "invalid_id")
    expect("the number of requests at Tavus", len(tavus.requests), asked_before)
    print("  Tavus got no request.")

    heading("6. Read the log line of the session timeout")
    line = logged(log(stack, "EventLogGroupName"))[0]
    show("  ", line)
    expect("the status logged", line["status"], "ended")

    heading("7. Wait for the limit of the first one")
    expect("whether it is active", (DEPLOYMENT_ID, limited) in tavus.active, expected=True)
    with step(f"It ends at {limit['ends_at']}"):
        result = subscriber.result_of(limited, LIMIT_SECONDS + LATE_SECONDS)
    show_result(result, limited, "ended")
    print("  On AWS, the trigger has the source and the detail-type of step 3.")
    expect_ended(tavus, limited)


def request(stack: Stack, method: str, path: str, expected: HTTPStatus) -> Any:
    print(f"  > {method} {path}")
    response = send(stack, method, path)
    print(f"  < {response.status} {HTTPStatus(response.status).phrase}, {response.headers.get('Content-Type')}")
    show("  < ", body := response.json())
    expect("the HTTP status", response.status, expected)
    return body


def time_out(stack: Stack, subscriber: Subscriber, conversation_id: str, status: str) -> None:
    entry = session_timeout(DEPLOYMENT_ID, conversation_id)
    show("  > ", entry)
    show_result(subscriber.result_of(put(stack, entry)), conversation_id, status)


def show_result(result: dict[str, Any], conversation_id: str, status: str) -> None:
    print("  < published:")
    show("  < ", result)
    expect("the status", result["detail"]["status"], status)
    expect("the conversation", result["detail"]["conversation_id"], conversation_id)


def expect_ended(tavus: Tavus, conversation_id: str) -> None:
    path = end_path(DEPLOYMENT_ID, conversation_id)
    expect("the number of requests at Tavus", [asked.path for asked in tavus.requests].count(path), 1)
    expect("whether it is active", (DEPLOYMENT_ID, conversation_id) in tavus.active, expected=False)
    print("  Tavus got one request, and the conversation is over.")


def expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Unexpected(f"{what} is {found!r} and should be {expected!r}")


def show_logs(stack: Stack) -> None:
    for group in ("HttpLogGroupName", "EventLogGroupName", "TimerLogGroupName"):
        heading(f"The last lines of {stack.outputs[group]}")
        print("\n".join(log(stack, group)[-20:]))


def heading(text: str) -> None:
    print(f"\n{text}")


def show(prefix: str, value: object) -> None:
    for line in json.dumps(value, indent=2).splitlines():
        print(f"{prefix}{line}")


if __name__ == "__main__":
    main()
