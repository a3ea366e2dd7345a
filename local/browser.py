"""`make browser`: pages in a real headless Chromium end conversations, by fetch and sendBeacon, and set limits."""

from __future__ import annotations

import json
import shutil
import sys
import time
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, override
from urllib.parse import parse_qsl, urlencode, urlsplit

from local.console import step
from local.process import ROOT, ProcessFailed, clean_environment, running
from local.run import LIMIT_SECONDS, check_tavus, expect, local_stack
from local.server import Handler, Server
from local.session import DEPLOYMENT_ID, end_path, log, logged, schedules, seconds_late, timeout_path
from local.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
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
# What limit.js lets the replica say, by the seconds that are left.
ANNOUNCEMENTS = {60: "We have one minute left.", 10: "Our time is up. Goodbye!"}
LATE_SECONDS = 5  # while a browser uses the machine; `make run` checks the two seconds
# What widget.html does with five conversations: one element is replaced, one has two conversations, and one is left.
CONVERSATIONS = ("replaced", "replacement", "earlier", "later", "left")
SPEAKING = ("replacement", "later")
AHEAD = timedelta(hours=1)  # the clock of that API
# How an API fails at first for each conversation: the status, and whether the page can read the answer.
FAILURES = {
    "c429": [(HTTPStatus.TOO_MANY_REQUESTS, True)],
    "c429unreadable": [(HTTPStatus.TOO_MANY_REQUESTS, False)],
    "c503twice": [(HTTPStatus.SERVICE_UNAVAILABLE, True)] * 2,
    "c400": [(HTTPStatus.BAD_REQUEST, True)] * 2,
}


class PageHandler(Handler):
    server: Site

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        asked = urlsplit(self.path)
        query = dict(parse_qsl(asked.query))
        if asked.path == "/left":
            self.send(HTTPStatus.OK, "text/html", b"<!doctype html><title>The next page</title>")
            self.server.read.put(json.loads(query["read"]))
        elif asked.path == "/said":
            self.server.said.append((query["conversation"], json.loads(query["message"]), datetime.now(UTC)))
            self.send(HTTPStatus.OK, "text/plain", b"")
        else:
            kind = "text/javascript" if asked.path.endswith(".js") else "text/html"
            self.send(HTTPStatus.OK, kind, (ROOT / "local" / PAGES[asked.path]).read_bytes())


class Site(Server):
    """A website. When page.html leaves, the answer that it read is put into `read`.

    `said` has what the replicas of widget.html say: the conversation, the message and when it came.
    """

    handler = PageHandler

    def __init__(self) -> None:
        super().__init__()
        self.read: Queue[Any] = Queue()
        self.said: list[tuple[str, dict[str, Any], datetime]] = []


class GatewayHandler(Handler):
    server: Gateway
    readable = True

    def do_OPTIONS(self) -> None:  # noqa: N802 - the name that http.server calls
        self.readable = True
        self.send(HTTPStatus.OK, "text/plain", b"")

    def do_PUT(self) -> None:  # noqa: N802 - the name that http.server calls
        conversation_id = self.path.split("/")[5]
        self.server.puts.append(conversation_id)
        failures = FAILURES[conversation_id][self.server.puts.count(conversation_id) - 1 :]
        status, self.readable = failures[0] if failures else (HTTPStatus.OK, True)
        ends_at = datetime.now(UTC) + AHEAD + timedelta(seconds=62)
        self.send(status, "application/json", json.dumps({"ends_at": f"{ends_at:%Y-%m-%dT%H:%M:%SZ}"}).encode())

    @override
    def end_headers(self) -> None:
        self.send_header("Retry-After", "1")
        if self.readable:
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Access-Control-Allow-Methods", "PUT")
            self.send_header("Access-Control-Expose-Headers", "date, retry-after")
        super().end_headers()

    @override
    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + AHEAD.total_seconds())


class Gateway(Server):
    """Stands in for an API that fails at first, and whose clock is ahead. `puts` has the conversation of each PUT."""

    handler = GatewayHandler

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[str] = []


def main() -> None:
    """Visit the pages at a listed origin and at another one. Exits 1, with the reason, at the first wrong outcome."""
    if not any(map(shutil.which, NAMES)):
        sys.exit(f"Install Chromium, for example with apt-get install chromium. Looked for: {', '.join(NAMES)}.")
    with Site() as listed, Site() as other, local_stack(CorsAllowedOrigins=listed.url) as (stack, tavus):
        apply_cors(stack)
        subscriber = Subscriber(stack)
        print(f"\n1. A page with several elements at {listed.url}, which CorsAllowedOrigins lists")
        started = {name: tavus.start(DEPLOYMENT_ID) for name in CONVERSATIONS}
        with browsing(widget(listed, stack.api_url, started)) as browser:
            limits = wait_for_limits(browser, stack, started.values())
            print("\n2. More pages at the same origin")
            killed = set_limit(listed, stack, tavus)
            visit(listed, stack, tavus, listed=True)
            print(f"\n3. The same pages at {other.url}, which it does not list")
            refuse_limit(other, stack, tavus)
            visit(other, stack, tavus, listed=False)
            print("\n4. A page whose API fails at first")
            retry(other)
            print("\n5. The page of step 1, until its limits")
            with step("Waiting"):
                wait_for(lambda: active(tavus).isdisjoint(limits), LIMIT_SECONDS + LATE_SECONDS)
            check_announcements(listed, [started[name] for name in SPEAKING], limits)
        print("\n6. The end of each conversation with a limit. The browser of the last one is gone since step 2")
        for conversation_id, ends_at in (limits | killed).items():
            check_end(subscriber, conversation_id, ends_at)
            check_tavus(tavus, conversation_id)
        puts = [line["conversation_id"] for line in logged(log(stack, "TimerLogGroupName"))]
        expect("the conversations of all PUTs", sorted(puts), sorted(limits | killed))
        print("  The API got one PUT for each of them.")
    print("\nEvery step succeeded. Everything is stopped.")


def apply_cors(stack: Stack) -> None:
    """Set the CORS configuration again: ministack's CloudFormation stores it under names that it does not read."""
    gateway, bodies = stack.client("apigatewayv2"), list[bytes]()
    # This reads the raw answer, because boto3 does not know those names either.
    gateway.meta.events.register("before-parse", lambda response_dict, **_: bodies.append(response_dict["body"]))
    gateway.get_apis()
    api = json.loads(bodies[0])["items"][0]
    gateway.update_api(ApiId=api["apiId"], CorsConfiguration=api["corsConfiguration"])


def widget(site: Site, api_url: str, conversations: Mapping[str, object]) -> str:
    """Return the address of widget.html at this site."""
    settings = {"api": api_url, "deployment": DEPLOYMENT_ID, "seconds": LIMIT_SECONDS}
    return f"{site.url}/widget?{urlencode({**settings, **conversations}, doseq=True)}"


def active(tavus: Tavus) -> set[str]:
    """Return the ids of the active conversations."""
    return {conversation_id for _, conversation_id in tavus.active}


def limits_of(stack: Stack) -> dict[str, str]:
    """Return when each conversation with a limit ends."""
    details = [json.loads(schedule["Target"]["Input"])["detail"] for schedule in schedules(stack)]
    return {detail["conversation_id"]: detail["ends_at"] for detail in details}


def wait_for_limits(browser: Program, stack: Stack, conversation_ids: Iterable[str]) -> dict[str, str]:
    """Wait until each of these conversations has a limit. Returns when each ends."""
    wanted = set(conversation_ids)
    wait_for(lambda: wanted <= limits_of(stack).keys() or browser.process.poll() is not None)
    limits = limits_of(stack)
    if missing := wanted - limits.keys():
        raise ProcessFailed(f"These have no limit: {', '.join(sorted(missing))}. Chromium said:", browser.log())
    expect("whether a preflight was refused", REFUSED in browser.log(), expected=False)
    for conversation_id in wanted:
        print(f"  > fetch PUT {timeout_path(DEPLOYMENT_ID, conversation_id, LIMIT_SECONDS)}, after a preflight")
    print("  The preflight passed, and the limit is set.")
    return {conversation_id: limits[conversation_id] for conversation_id in wanted}


def set_limit(site: Site, stack: Stack, tavus: Tavus) -> dict[str, str]:
    """Let the page set a limit for a new conversation, and stop the browser. Returns when the conversation ends."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    with browsing(widget(site, stack.api_url, {"conversation": conversation_id})) as browser:
        return wait_for_limits(browser, stack, [conversation_id])


def refuse_limit(site: Site, stack: Stack, tavus: Tavus) -> None:
    """Let the page try to set a limit where CORS refuses it."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    problem = f"No limit for conversation {conversation_id}: HTTP status 0"
    with browsing(widget(site, stack.api_url, {"conversation": conversation_id})) as browser:
        wait_for(lambda: problem in browser.log())
        said = browser.log()
    print(f"  > fetch PUT {timeout_path(DEPLOYMENT_ID, conversation_id, LIMIT_SECONDS)}, after a preflight")
    expect("whether its console says that there is no limit", problem in said, expected=True)
    expect("whether its console says that the preflight was refused", REFUSED in said, expected=True)
    expect("whether there is a limit", conversation_id in limits_of(stack), expected=False)
    print("  The preflight was refused, also when the page tried again: the browser sent no PUT.")


def retry(site: Site) -> None:
    """Let the page set limits at an API that fails at first. Its sentences show that it uses the clock of the API."""
    with Gateway() as gateway, browsing(widget(site, gateway.url, {"conversation": list(FAILURES)})):
        wait_for(lambda: len(site.said) == len(FAILURES) - 1 and gateway.puts.count("c400") == len(FAILURES["c400"]))
    puts = {conversation_id: gateway.puts.count(conversation_id) for conversation_id in FAILURES}
    print(f"  The page sent these PUTs: {json.dumps(puts)}")
    # Each conversation has two events. The second event counts if the first one set no limit. A 400 is not retried.
    expect("the number of PUTs", puts, {"c429": 2, "c429unreadable": 2, "c503twice": 3, "c400": 2})
    said = [(conversation_id, text_of(message)) for conversation_id, message, _ in site.said]
    expect("what was said", sorted(said), sorted((name, ANNOUNCEMENTS[60]) for name in FAILURES if name != "c400"))
    print(f"  Once each had its limit, the replica said: {ANNOUNCEMENTS[60]}")


def text_of(message: dict[str, Any]) -> str:
    """Return what a message lets the replica say."""
    text: str = message["properties"]["text"]
    expect(
        "the message", message, {"event_type": "conversation.echo", "properties": {"modality": "text", "text": text}}
    )
    return text


def check_announcements(site: Site, speaking: Iterable[str], limits: Mapping[str, str]) -> None:
    """Expect that the replicas of these conversations said each sentence in time, and that no others spoke."""
    said = []
    for conversation_id, message, at in site.said:
        left = (datetime.fromisoformat(limits[conversation_id]) - at).total_seconds()
        print(f"  < {conversation_id}, {left:.1f} s before its end: {text_of(message)}")
        # The clocks of the page and of this process can differ a little.
        due = next((seconds for seconds in ANNOUNCEMENTS if 0 <= seconds + 0.1 - left < LATE_SECONDS), None)
        said.append((conversation_id, due, text_of(message)))
    expected = [(name, seconds, text) for name in speaking for seconds, text in ANNOUNCEMENTS.items()]
    expect("what was said", sorted(said), sorted(expected))


def check_end(subscriber: Subscriber, conversation_id: str, ends_at: str) -> None:
    """Expect that this conversation ended at its limit."""
    late = seconds_late(subscriber.result_of(conversation_id, LIMIT_SECONDS), ends_at)
    print(f"  {conversation_id} ended {late:.1f} s after its limit.")
    expect(f"whether it ended at most {LATE_SECONDS} s after its limit", 0 <= late <= LATE_SECONDS, expected=True)


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
