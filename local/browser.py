"""`make browser`: pages in a real headless Chromium end conversations, by fetch and sendBeacon, and set limits."""

import json
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler
from typing import Any, override
from urllib.parse import urlencode

from local.console import step
from local.process import ROOT, ProcessFailed, Program, clean_environment, running
from local.run import LIMIT_SECONDS, check_late, check_tavus, expect, local_stack
from local.server import Handler, Request, Server
from local.session import DEPLOYMENT_ID, end_path, log, logged, schedules, seconds_ahead, timeout_path, wait_until
from local.stack import Stack
from local.subscriber import Subscriber
from local.tavus import Tavus

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
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
LATE_SECONDS = 5  # while a browser uses the machine; `make run` checks the two seconds
# What limit.js sends to the replica, by the seconds that are left.
ANNOUNCEMENTS = {
    seconds: {"event_type": "conversation.echo", "properties": {"modality": "text", "text": text}}
    for seconds, text in {60: "We have one minute left.", 10: "Our time is up. Goodbye!"}.items()
}
# What widget.html does with five conversations: one element is replaced, one has two conversations, and one is left.
CONVERSATIONS = ("replaced", "replacement", "earlier", "later", "left")
SPEAKING = ("replacement", "later")
AHEAD = timedelta(hours=1)  # the clocks of the sites
UNREADABLE = HTTPStatus.BAD_GATEWAY
# How a site answers the first PUTs of each conversation. A PUT belongs to an event, and there are two events.
FAILURES = {
    "c429": [HTTPStatus.TOO_MANY_REQUESTS],
    "cunreadable": [UNREADABLE],
    "c503twice": [HTTPStatus.SERVICE_UNAVAILABLE] * 2,
    "c400": [HTTPStatus.BAD_REQUEST] * 2,
}


class SiteHandler(Handler, SimpleHTTPRequestHandler):
    do_PUT = do_OPTIONS = Handler.do_POST  # noqa: N815 - the names that http.server calls

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, directory=ROOT / "local")

    @override
    def send_response(self, code: int, message: str | None = None) -> None:
        super().send_response(code, message)
        self.send_header("Retry-After", "1")
        if code != UNREADABLE:
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Access-Control-Allow-Methods", "PUT")
            self.send_header("Access-Control-Expose-Headers", "date, retry-after")

    @override
    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + AHEAD.total_seconds())


class Site(Server):
    """A website with the pages of this folder, and an API that fails at first and whose clock is ahead.

    `reports` has what pages posted to each path, and when. `puts` counts the PUTs by conversation.
    """

    handler = SiteHandler

    def __init__(self) -> None:
        super().__init__()
        self.reports: defaultdict[str, list[tuple[Any, datetime]]] = defaultdict(list)
        self.puts: Counter[str] = Counter()

    @override
    def answer(self, request: Request) -> tuple[HTTPStatus, dict[str, Any]]:
        if request.method != "PUT":
            self.reports[request.path].append((json.loads(request.body or "null"), datetime.now(UTC)))
            return HTTPStatus.OK, {}
        conversation_id = request.path.split("/")[5]
        failures = FAILURES[conversation_id][self.puts[conversation_id] :]
        self.puts[conversation_id] += 1
        return (failures or [HTTPStatus.OK])[0], {"ends_at": seconds_ahead(AHEAD.total_seconds() + 62)}


def main() -> None:
    """Visit the pages at a listed origin and at another one. Exits 1, with the reason, at the first wrong outcome."""
    if not CHROMIUM:
        sys.exit(f"Install Chromium, for example with apt-get install chromium. Looked for: {', '.join(NAMES)}.")
    tavus = Tavus()
    with Site() as listed, Site() as other, local_stack(tavus, CorsAllowedOrigins=listed.url) as stack:
        apply_cors(stack)
        subscriber = Subscriber(stack)
        print(f"\n1. A page with several elements at {listed.url}, which CorsAllowedOrigins lists")
        started = {name: tavus.start(DEPLOYMENT_ID) for name in CONVERSATIONS}
        with browsing(widget(listed, stack.api_url, **started)) as browser:
            limits = wait_for_limits(browser, stack, set(started.values()))
            print("\n2. More pages at the same origin")
            conversation_id = tavus.start(DEPLOYMENT_ID)
            with browsing(widget(listed, stack.api_url, conversation=conversation_id)) as killed:
                limits |= wait_for_limits(killed, stack, {conversation_id})
            visit(listed, stack, tavus, listed=True)
            print(f"\n3. The same pages at {other.url}, which it does not list")
            refuse_limit(other, stack, tavus)
            visit(other, stack, tavus, listed=False)
            print("\n4. A page whose API fails at first")
            retry(other)
            print("\n5. The page of step 1, until its limits")
            with step("Waiting"):
                limited = {(DEPLOYMENT_ID, conversation_id) for conversation_id in limits}
                wait_until(lambda: tavus.active.isdisjoint(limited), "the limits", LIMIT_SECONDS + LATE_SECONDS)
            check_announcements(listed, [started[name] for name in SPEAKING], limits)
        print("\n6. The end of each conversation with a limit. The browser of the last one is gone since step 2")
        for conversation_id, ends_at in limits.items():
            print(f"  {conversation_id}")
            check_late(subscriber.result_of(conversation_id, LIMIT_SECONDS), ends_at, LATE_SECONDS)
            check_tavus(tavus, conversation_id)
        puts = [line["conversation_id"] for line in logged(log(stack, "TimerLogGroupName"))]
        expect("the conversations of all PUTs", sorted(puts), sorted(limits))
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


@contextmanager
def browsing(url: str) -> Iterator[Program]:
    """Run a Chromium with an empty profile on this page. Its output explains a TimeoutError."""
    with running([CHROMIUM, *FLAGS, url], clean_environment()) as browser:
        try:
            yield browser
        except TimeoutError as error:
            raise ProcessFailed(f"{error}. Chromium said:", browser.log()) from None


def widget(site: Site, api_url: str, **conversations: object) -> str:
    """Return the address of widget.html at this site."""
    settings = {"api": api_url, "deployment": DEPLOYMENT_ID, "seconds": LIMIT_SECONDS}
    return f"{site.url}/widget.html?{urlencode(settings | conversations, doseq=True)}"


def limits_of(stack: Stack) -> dict[str, str]:
    """Return when each conversation with a limit ends."""
    details = [json.loads(schedule["Target"]["Input"])["detail"] for schedule in schedules(stack)]
    return {detail["conversation_id"]: detail["ends_at"] for detail in details}


def wait_for_limits(browser: Program, stack: Stack, conversation_ids: set[str]) -> dict[str, str]:
    """Wait until each of these conversations has a limit. Returns when each ends."""
    wait_until(lambda: conversation_ids <= limits_of(stack).keys(), "a limit for each conversation", WAIT_SECONDS)
    limits = limits_of(stack)
    expect("whether a preflight was refused", REFUSED in browser.log(), expected=False)
    for conversation_id in conversation_ids:
        print(f"  > fetch PUT {timeout_path(DEPLOYMENT_ID, conversation_id, LIMIT_SECONDS)}, after a preflight")
    print("  The preflight passed, and the limit is set.")
    return {conversation_id: limits[conversation_id] for conversation_id in conversation_ids}


def refuse_limit(site: Site, stack: Stack, tavus: Tavus) -> None:
    """Let the page try to set a limit where CORS refuses it."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    problem = f"No limit for conversation {conversation_id}: HTTP status 0"
    with browsing(widget(site, stack.api_url, conversation=conversation_id)) as browser:
        wait_until(lambda: problem in browser.log(), "an error on its console", WAIT_SECONDS)
        said = browser.log()
    print(f"  > fetch PUT {timeout_path(DEPLOYMENT_ID, conversation_id, LIMIT_SECONDS)}, after a preflight")
    expect("whether its console says that the preflight was refused", REFUSED in said, expected=True)
    expect("whether there is a limit", conversation_id in limits_of(stack), expected=False)
    print("  The preflight was refused, also when the page tried again: the browser sent no PUT.")


def retry(site: Site) -> None:
    """Let the page set limits at an API that fails at first. Its sentences show that it uses the clock of the API."""
    said, limited = site.reports["/said"], set(FAILURES) - {"c400"}
    with Site() as api, browsing(widget(site, api.url, conversation=list(FAILURES))):
        wait_until(lambda: len(said) == len(limited) and api.puts["c400"] > 1, "the sentences", WAIT_SECONDS)
    print(f"  The page sent these PUTs: {json.dumps(api.puts)}")
    expect("the number of PUTs", api.puts, {"c429": 2, "cunreadable": 2, "c503twice": 3, "c400": 2})
    expect("who spoke", {report["conversation"] for report, _ in said}, limited)
    expect("what was said", [report["message"] for report, _ in said], [ANNOUNCEMENTS[60]] * len(limited))
    print("  Once each had its limit, the replica said that one minute is left.")


def check_announcements(site: Site, speaking: Iterable[str], limits: Mapping[str, str]) -> None:
    """Expect that the replicas of these conversations said each sentence in time, and that no others spoke."""
    said = []
    for report, at in site.reports["/said"]:
        conversation_id, message = report["conversation"], report["message"]
        left = (datetime.fromisoformat(limits[conversation_id]) - at).total_seconds()
        print(f"  < {conversation_id}, {left:.1f} s before its end: {json.dumps(message)}")
        # The clocks of the page and of this process can differ a little.
        due = next((seconds for seconds in ANNOUNCEMENTS if 0 <= seconds + 0.1 - left < LATE_SECONDS), None)
        said.append((conversation_id, due, message))
    expected = [(name, *announcement) for name in speaking for announcement in ANNOUNCEMENTS.items()]
    expect("what was said", sorted(said, key=str), sorted(expected, key=str))


def visit(site: Site, stack: Stack, tavus: Tavus, *, listed: bool) -> None:
    """Let the page end one conversation by fetch and another by sendBeacon, and check both."""
    by_fetch, by_beacon = tavus.start(DEPLOYMENT_ID), tavus.start(DEPLOYMENT_ID)
    fetch, beacon = end_path(DEPLOYMENT_ID, by_fetch), end_path(DEPLOYMENT_ID, by_beacon)
    query = urlencode({"fetch": stack.api_url + fetch, "beacon": stack.api_url + beacon})
    with browsing(f"{site.url}/page.html?{query}") as browser:
        wait_until(lambda: site.reports["/read"], "a report of the page", WAIT_SECONDS)
        wait_until(lambda: (DEPLOYMENT_ID, by_beacon) not in tavus.active, "the end by sendBeacon", WAIT_SECONDS)
        said = browser.log()
    [(read, _)] = site.reports["/read"]
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


if __name__ == "__main__":
    main()
