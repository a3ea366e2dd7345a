"""`make browser`: pages in a real headless Chromium end conversations, by fetch and sendBeacon, and set a limit."""

from __future__ import annotations

import json
import shutil
import sys
import time
from http import HTTPStatus
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from local.console import step
from local.process import ROOT, ProcessFailed, clean_environment, running
from local.run import LATE_SECONDS, LIMIT_SECONDS, check_tavus, expect, local_stack
from local.server import Handler, Server
from local.session import DEPLOYMENT_ID, end_path, schedules, timeout_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from local.process import Program
    from local.stack import Stack
    from local.tavus import Tavus

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
PAGES = {"/": "page.html", "/widget": "widget.html", "/limit.js": "limit.js"}
REFUSED = "Response to preflight request doesn't pass access control check"
WAIT_SECONDS = 30


class PageHandler(Handler):
    server: Site

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        asked = urlsplit(self.path)
        if asked.path == "/left":
            self.send(HTTPStatus.OK, "text/html", b"<!doctype html><title>The next page</title>")
            self.server.read.put(json.loads(parse_qs(asked.query)["read"][0]))
        else:
            kind = "text/javascript" if asked.path.endswith(".js") else "text/html"
            self.send(HTTPStatus.OK, kind, (ROOT / "local" / PAGES[asked.path]).read_bytes())


class Site(Server):
    """A website. When page.html leaves, the answer that it read is put into `read`."""

    handler = PageHandler

    def __init__(self) -> None:
        super().__init__()
        self.read: Queue[Any] = Queue()


def main() -> None:
    """Visit the pages at a listed origin and at another one. Exits 1, with the reason, at the first wrong outcome."""
    if not any(map(shutil.which, NAMES)):
        sys.exit(f"Install Chromium, for example with apt-get install chromium. Looked for: {', '.join(NAMES)}.")
    with Site() as listed, Site() as other, local_stack(CorsAllowedOrigins=listed.url) as (stack, tavus):
        apply_cors(stack)
        print(f"\n1. Pages at {listed.url}, which CorsAllowedOrigins lists")
        limited = set_limit(listed, stack, tavus, listed=True)
        visit(listed, stack, tavus, listed=True)
        print(f"\n2. The same pages at {other.url}, which it does not list")
        set_limit(other, stack, tavus, listed=False)
        visit(other, stack, tavus, listed=False)
        print("\n3. The limit of the first conversation, whose browser is gone")
        with step("Waiting for it"):
            wait_for(lambda: (DEPLOYMENT_ID, limited) not in tavus.active, LIMIT_SECONDS + LATE_SECONDS)
        check_tavus(tavus, limited)
    print("\nEvery step succeeded. Everything is stopped.")


def apply_cors(stack: Stack) -> None:
    """Set the CORS configuration again: ministack's CloudFormation stores it under names that it does not read."""
    gateway, bodies = stack.client("apigatewayv2"), list[bytes]()
    # This reads the raw answer, because boto3 does not know those names either.
    gateway.meta.events.register("before-parse", lambda response_dict, **_: bodies.append(response_dict["body"]))
    gateway.get_apis()
    api = json.loads(bodies[0])["items"][0]
    gateway.update_api(ApiId=api["apiId"], CorsConfiguration=api["corsConfiguration"])


def set_limit(site: Site, stack: Stack, tavus: Tavus, *, listed: bool) -> str:
    """Let the page set a limit for a new conversation, and stop the browser. Returns the conversation's id."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    path = timeout_path(DEPLOYMENT_ID, conversation_id, LIMIT_SECONDS)
    names = {"api": stack.api_url, "deployment": DEPLOYMENT_ID, "conversation": conversation_id}

    def is_set() -> bool:
        return any(found["Description"] == f"{DEPLOYMENT_ID}/{conversation_id}" for found in schedules(stack))

    with browsing(f"{site.url}/widget?{urlencode(names | {'seconds': LIMIT_SECONDS})}") as browser:
        # The console names a path that was refused.
        wait_for(lambda: path in browser.log() or is_set() or browser.process.poll() is not None)
        if browser.process.poll() is not None:
            raise ProcessFailed("Chromium ended:", browser.log())
        said = browser.log()

    print(f"  > fetch PUT {path}, after a preflight")
    # At most one, because the page ignores an event without an id.
    expect("the number of preflights refused", said.count(REFUSED), 0 if listed else 1)
    expect("whether there is a limit", is_set(), expected=listed)
    print(f"  The preflight {'passed, and the limit is set' if listed else 'was refused: the browser sent no PUT'}.")
    return conversation_id


def visit(site: Site, stack: Stack, tavus: Tavus, *, listed: bool) -> None:
    """Let the page end one conversation by fetch and another by sendBeacon, and check both."""
    by_fetch, by_beacon = tavus.start(DEPLOYMENT_ID), tavus.start(DEPLOYMENT_ID)
    fetch, beacon = end_path(DEPLOYMENT_ID, by_fetch), end_path(DEPLOYMENT_ID, by_beacon)
    query = urlencode({"fetch": stack.api_url + fetch, "beacon": stack.api_url + beacon})
    with browsing(f"{site.url}/?{query}") as browser:
        try:
            read = site.read.get(timeout=WAIT_SECONDS)
        except Empty:
            raise ProcessFailed(f"The page did not report within {WAIT_SECONDS} s:", browser.log()) from None
        wait_for(lambda: (DEPLOYMENT_ID, by_beacon) not in tavus.active)
        said = browser.log()

    print(f"  > fetch POST {fetch}, after a preflight for its Content-Type")
    print(f"  < {json.dumps(read)}")
    if listed:
        expect("what the page read", read, {"status": 200, "body": {"conversation_id": by_fetch, "status": "ended"}})
        print("  The preflight passed, and the page read the answer.")
    else:
        expect("what the page read", read, {"error": "TypeError: Failed to fetch"})
        expect("whether its console says that the preflight was refused", REFUSED in said, expected=True)
        print("  The preflight was refused, and the browser sent no POST.")
    check_tavus(tavus, by_fetch, asked=listed)
    print(f"  > on pagehide, sendBeacon {beacon}, which needs no preflight")
    check_tavus(tavus, by_beacon)


def browsing(url: str) -> AbstractContextManager[Program]:
    """Run a Chromium with an empty profile on this page."""
    chromium = next(filter(None, map(shutil.which, NAMES)))
    return running([chromium, *FLAGS, url], clean_environment())


def wait_for(condition: Callable[[], bool], seconds: int = WAIT_SECONDS) -> None:
    """Wait until a condition is true, for at most `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


if __name__ == "__main__":
    main()
