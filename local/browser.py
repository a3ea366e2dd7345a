"""`make browser`: pages in a real headless Chromium end conversations, by fetch and sendBeacon, and set a limit."""

from __future__ import annotations

import json
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from local.console import step
from local.process import ProcessFailed, clean_environment, free_port, interrupt_once, serving
from local.run import LATE_SECONDS, LIMIT_SECONDS, Unexpected, expect, heading, show_logs
from local.session import DEPLOYMENT_ID, end_path, schedules, timeout_path
from local.site import Site
from local.stack import deployed
from local.tavus import Tavus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local.stack import Stack

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",  # Chromium has no sandbox when root starts it, and it shows only our own page
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no request leaves this machine
    "--disable-background-networking",
    "--disable-dev-shm-usage",  # /dev/shm is too small in many containers
    "--disable-gpu",
    "--enable-logging=stderr",  # includes the console of the page
    "--no-first-run",
)
REFUSED = "Response to preflight request doesn't pass access control check"
WAIT_SECONDS = 30


def main() -> None:
    """Visit the pages at a listed origin and at another one. Exits 1, with the reason, at the first wrong outcome."""
    interrupt_once()
    if (chromium := next(filter(None, map(shutil.which, NAMES)), None)) is None:
        sys.exit(f"Install Chromium, for example with apt-get install chromium. Looked for: {', '.join(NAMES)}.")
    try:
        with (
            Site() as listed,
            Site() as other,
            Tavus() as tavus,
            deployed(tavus.url, DEPLOYMENT_ID, CorsAllowedOrigins=listed.origin) as stack,
        ):
            try:
                apply_cors(stack)
                heading(f"1. Pages at {listed.origin}, which CorsAllowedOrigins lists")
                limited = set_limit(chromium, listed, stack, tavus, listed=True)
                visit(chromium, listed, stack, tavus, listed=True)
                heading(f"2. The same pages at {other.origin}, which it does not list")
                set_limit(chromium, other, stack, tavus, listed=False)
                visit(chromium, other, stack, tavus, listed=False)
                heading("3. The limit of the first conversation, whose browser is gone")
                with step("Waiting for it"):
                    wait_for(lambda: (DEPLOYMENT_ID, limited) not in tavus.active, LIMIT_SECONDS + LATE_SECONDS)
                check_end(tavus, limited, asked=True)
            except Unexpected:
                show_logs(stack)
                raise
    except (ProcessFailed, Unexpected) as error:
        sys.exit(f"\nFailed: {error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    print("\nEvery step succeeded. Everything is stopped.")


def apply_cors(stack: Stack) -> None:
    """Set the CORS configuration again: ministack's CloudFormation stores it under names that it does not read."""
    gateway, bodies = stack.client("apigatewayv2"), list[bytes]()
    # This reads the raw answer, because boto3 does not know those names either.
    gateway.meta.events.register("before-parse", lambda response_dict, **_: bodies.append(response_dict["body"]))
    gateway.get_apis()
    api = json.loads(bodies[0])["items"][0]
    gateway.update_api(ApiId=api["apiId"], CorsConfiguration=api["corsConfiguration"])


def set_limit(chromium: str, site: Site, stack: Stack, tavus: Tavus, *, listed: bool) -> str:
    """Let the page set a limit for a new conversation, and stop the browser. Returns the conversation's id."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    path = timeout_path(DEPLOYMENT_ID, conversation_id, LIMIT_SECONDS)
    names = {"api": stack.api_url, "deployment": DEPLOYMENT_ID, "conversation": conversation_id}
    url = f"{site.origin}/widget?{urlencode(names | {'seconds': LIMIT_SECONDS})}"

    def is_set() -> bool:
        return any(found["Description"] == f"{DEPLOYMENT_ID}/{conversation_id}" for found in schedules(stack))

    with browsing(chromium, url) as log:
        wait_for(lambda: path in log.read_text() or is_set())  # the console names a path that was refused
        said = log.read_text()

    print(f"  > fetch PUT {path}, after a preflight")
    # At most one, because the page ignores an event without an id.
    expect("the number of preflights refused", said.count(REFUSED), 0 if listed else 1)
    expect("whether there is a limit", is_set(), expected=listed)
    print(f"  The preflight {'passed, and the limit is set' if listed else 'was refused: the browser sent no PUT'}.")
    return conversation_id


def wait_for(condition: Callable[[], bool], seconds: int = WAIT_SECONDS) -> None:
    """Wait until a condition is true, for at most `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def visit(chromium: str, site: Site, stack: Stack, tavus: Tavus, *, listed: bool) -> None:
    """Let the page end one conversation by fetch and another by sendBeacon, and check both."""
    by_fetch, by_beacon = tavus.start(DEPLOYMENT_ID), tavus.start(DEPLOYMENT_ID)
    fetch, beacon = end_path(DEPLOYMENT_ID, by_fetch), end_path(DEPLOYMENT_ID, by_beacon)
    query = urlencode({"fetch": stack.api_url + fetch, "beacon": stack.api_url + beacon})
    with browsing(chromium, f"{site.origin}/?{query}") as log:
        try:
            read = site.read.get(timeout=WAIT_SECONDS)
        except Empty:
            raise ProcessFailed(f"The page did not report within {WAIT_SECONDS} s:", log.read_text()) from None
        wait_for(lambda: (DEPLOYMENT_ID, by_beacon) not in tavus.active)
        said = log.read_text()

    print(f"  > fetch POST {fetch}, after a preflight for its Content-Type")
    print(f"  < {json.dumps(read)}")
    if listed:
        expect("what the page read", read, {"status": 200, "body": {"conversation_id": by_fetch, "status": "ended"}})
        print("  The preflight passed, and the page read the answer.")
    else:
        expect("what the page read", read, {"error": "TypeError: Failed to fetch"})
        expect("whether its console says that the preflight was refused", REFUSED in said, expected=True)
        print("  The preflight was refused, and the browser sent no POST.")
    check_end(tavus, by_fetch, asked=listed)
    print(f"  > on pagehide, sendBeacon {beacon}, which needs no preflight")
    check_end(tavus, by_beacon, asked=True)


@contextmanager
def browsing(chromium: str, url: str) -> Iterator[Path]:
    """Run a Chromium with an empty profile on this page. Yields the path of its log."""
    with TemporaryDirectory(prefix="end-conversation-") as home:
        log, port = Path(home, "chromium.log"), free_port()
        # The port is used only to see that Chromium has started.
        command = [chromium, *FLAGS, f"--user-data-dir={home}/profile", f"--remote-debugging-port={port}", url]
        with serving(command, clean_environment(HOME=home, TMPDIR=home), Path(home), log, port):
            yield log


def check_end(tavus: Tavus, conversation_id: str, *, asked: bool) -> None:
    path = end_path(DEPLOYMENT_ID, conversation_id)
    expect("the number of requests at Tavus", [request.path for request in tavus.requests].count(path), int(asked))
    expect("whether it is over", (DEPLOYMENT_ID, conversation_id) not in tavus.active, asked)
    print(f"  Tavus got {'one request, and the conversation is over' if asked else 'no request'}.")


if __name__ == "__main__":
    main()
