"""`make browser`: a page in a real headless Chromium ends conversations, by fetch and by sendBeacon on pagehide."""

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

from local.process import ProcessFailed, clean_environment, free_port, interrupt_once, serving
from local.run import Unexpected, expect, heading, show_logs
from local.session import DEPLOYMENT_ID, end_path
from local.site import Site
from local.stack import deployed
from local.tavus import Tavus

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    """Visit the page at a listed origin and at another one. Exits 1, with the reason, at the first wrong outcome."""
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
                heading(f"1. A page at {listed.origin}, which CorsAllowedOrigins lists")
                visit(chromium, listed, stack, tavus, listed=True)
                heading(f"2. The same page at {other.origin}, which it does not list")
                visit(chromium, other, stack, tavus, listed=False)
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
    # The raw answer, because boto3 does not know those names either.
    gateway.meta.events.register("before-parse", lambda response_dict, **_: bodies.append(response_dict["body"]))
    gateway.get_apis()
    api = json.loads(bodies[0])["items"][0]
    gateway.update_api(ApiId=api["apiId"], CorsConfiguration=api["corsConfiguration"])


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
        deadline = time.monotonic() + WAIT_SECONDS
        while (DEPLOYMENT_ID, by_beacon) in tavus.active and time.monotonic() < deadline:
            time.sleep(0.05)
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
