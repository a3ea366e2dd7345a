"""`make run`: ends conversations over HTTP and by events, with the deployed stack, and checks each outcome."""

from __future__ import annotations

import json
import sys
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from local.process import ProcessFailed, interrupt_once
from local.session import DEPLOYMENT_ID, end_path, log, logged, post, put, session_timeout
from local.stack import deployed
from local.subscriber import Subscriber
from local.tavus import Tavus

if TYPE_CHECKING:
    from local.stack import Stack


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
    """End conversations over HTTP and by events, valid and invalid ones."""
    subscriber = Subscriber(stack)

    heading("1. End a conversation over HTTP")
    conversation_id = tavus.start(DEPLOYMENT_ID)
    answer = request(stack, conversation_id, HTTPStatus.OK)
    expect("the answer", answer, {"conversation_id": conversation_id, "status": "ended"})
    expect_ended(tavus, conversation_id)

    heading("2. End another one by a session timeout on the bus")
    conversation_id = tavus.start(DEPLOYMENT_ID)
    time_out(stack, subscriber, conversation_id, "ended")
    expect_ended(tavus, conversation_id)

    heading("3. End conversations that are over or unknown")
    problem = request(stack, conversation_id, HTTPStatus.NOT_FOUND)
    expect("the reason", problem["reason"], "not_found")
    time_out(stack, subscriber, "c0ffee", "not_found")

    heading("4. Send a malformed id")
    asked_before = len(tavus.requests)
    problem = request(stack, "not.an.id", HTTPStatus.BAD_REQUEST)
    expect("the reason", problem["reason"], "invalid_id")
    expect("the number of requests at Tavus", len(tavus.requests), asked_before)
    print("  Tavus got no request.")

    heading("5. Read the log line of the session timeout")
    line = logged(log(stack, "EventLogGroupName"))[0]
    show("  ", line)
    expect("the status logged", line["status"], "ended")


def request(stack: Stack, conversation_id: str, expected: HTTPStatus) -> Any:
    path = end_path(DEPLOYMENT_ID, conversation_id)
    print(f"  > POST {path}")
    response = post(stack, path)
    print(f"  < {response.status} {HTTPStatus(response.status).phrase}, {response.headers.get('Content-Type')}")
    show("  < ", body := response.json())
    expect("the HTTP status", response.status, expected)
    return body


def time_out(stack: Stack, subscriber: Subscriber, conversation_id: str, status: str) -> None:
    entry = session_timeout(DEPLOYMENT_ID, conversation_id)
    show("  > ", entry)
    event_id = put(stack, entry)
    result = subscriber.result_of(event_id)
    print("  < published:")
    show("  < ", result)
    expect("the status", result["detail"]["status"], status)
    expect("the conversation", result["detail"]["conversation_id"], conversation_id)


def expect_ended(tavus: Tavus, conversation_id: str) -> None:
    path = end_path(DEPLOYMENT_ID, conversation_id)
    expect("the number of requests at Tavus", [asked.path for asked in tavus.requests].count(path), 1)
    expect("the set of active conversations", tavus.active, set())
    print("  Tavus got one request, and the conversation is over.")


def expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Unexpected(f"{what} is {found!r} and should be {expected!r}")


def show_logs(stack: Stack) -> None:
    for group in ("HttpLogGroupName", "EventLogGroupName"):
        heading(f"The last lines of {stack.outputs[group]}")
        print("\n".join(log(stack, group)[-20:]))


def heading(text: str) -> None:
    print(f"\n{text}")


def show(prefix: str, value: object) -> None:
    for line in json.dumps(value, indent=2).splitlines():
        print(f"{prefix}{line}")


if __name__ == "__main__":
    main()
