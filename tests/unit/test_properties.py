"""Properties that hold for every script of faults, every deadline and every event."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from end_conversation.bootstrap import bootstrap
from end_conversation.conversation import Conversation, Reason, Result
from end_conversation.deadline import Deadline
from end_conversation.decision import Answer, NoAnswer, decide, may_have_ended
from end_conversation.ending import EndRecorded
from end_conversation.errors import AwsCallFailed, InvalidEvent, ResultNotPublished, TavusUnavailable, UnsupportedEvent
from end_conversation.events import EventDoor
from end_conversation.messages import MAX_SLEEP_SECONDS, MessageDoor
from end_conversation.tavus import BACKOFF_SECONDS, MAX_ATTEMPTS, MIN_ATTEMPT_SECONDS, TavusClient
from tests.unit.doors import MALFORMED_IDS
from tests.unit.fakes import (
    TIMER_SETTINGS,
    Context,
    FakeClock,
    FakeQueue,
    FakeRecord,
    FakeTelemetry,
    mocked_aws,
    sample,
)
from tests.unit.fault_server import FaultServer, Peer, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

properties = settings(derandomize=True, deadline=None, max_examples=200)

C1 = Conversation("d1", "c1")
ENDED_BODY = b'{"conversation_id": "c1", "status": "ended"}'
ID = "[A-Za-z0-9][A-Za-z0-9_-]{0,127}"

type Handler = Callable[[Any, Any], Any]
type Claim = tuple[str, str | None]


@dataclass(frozen=True)
class Step:
    """The outcome of one POST, and the share of its time that it takes."""

    outcome: Answer | NoAnswer
    share: float


def any_may_have_ended(steps: list[Step]) -> bool:
    """Whether Tavus may have ended the conversation at one of these attempts without saying so."""
    return any(may_have_ended(step.outcome) for step in steps)


class FakePost:
    """Returns the outcomes of a script, one per POST."""

    def __init__(self, script: list[Step], clock: FakeClock) -> None:
        self._script = script
        self._clock = clock
        self.played: list[Step] = []

    def __call__(self, path: str, seconds: float) -> Answer | NoAnswer:
        assert path == "/v2/deployments/d1/conversations/c1/end"
        step = self._script[len(self.played)]
        self.played.append(step)
        self._clock.advance(step.share * seconds)
        return step.outcome


def expected_result(played: list[Step]) -> Claim:
    """The status and reason that table 1 of the contract gives to these attempts. test_decision.py tests its cells."""
    if not played:
        return "unavailable", "tavus_timeout"
    *earlier, last = played
    return decide(last.outcome, C1, earlier_may_have_ended=any_may_have_ended(earlier))


days = st.sampled_from(["Sun", "Sunday", "Xxx"])
numbers = st.integers(-1, 70) | st.sampled_from([1970, 1994, 2026, 2027, 9999, 10**10, 10**30])
months = st.sampled_from(["Nov", "Feb", "xyz"])
zones = st.sampled_from(["GMT", "-0000", "+2359", "+9999", "+99999999999999999999", ""])
dates = st.builds("{}, {} {} {} {}:{}:{} {}".format, days, numbers, months, numbers, numbers, numbers, numbers, zones)
retry_afters = (
    st.integers(0, 20).map(str) | st.sampled_from(["3600", "1.5", "-5", "abc", "9" * 400]) | dates | st.text()
)
headers = st.fixed_dictionaries(
    {},
    optional={"Retry-After": retry_afters, "X-Tavus-Request-Id": st.text() | st.from_regex("[a-z0-9-]{1,70}")},
)
codes = st.sampled_from([200, 202, 400, 403, 404, 408, 409, 410, 425, 429, 500, 501, 503]) | st.integers(200, 599)
bodies = st.just(ENDED_BODY) | st.sampled_from([None, b"", b"{}", ENDED_BODY.replace(b"c1", b"c2")])
answers = st.builds(Answer, codes, headers, bodies)
no_answers = st.builds(
    NoAnswer,
    st.sampled_from([Reason.TAVUS_TIMEOUT, Reason.TAVUS_UNREACHABLE]),
    st.just("Failure"),
    sent=st.booleans(),
    retryable=st.booleans(),
)
shares = st.sampled_from([0.0, 1.0]) | st.floats(0, 1)
scripts = st.lists(
    st.builds(Step, answers | answers | no_answers, shares), min_size=MAX_ATTEMPTS, max_size=MAX_ATTEMPTS
)
jitters = st.sampled_from([0.0, 1.0]) | st.floats(0, 1)


@properties
@given(scripts, st.floats(-1, 30), st.floats(0, 10), jitters)
def test_the_client_follows_table_1_and_keeps_the_deadline(
    script: list[Step], seconds: float, reserve: float, jitter: float
) -> None:
    """At most three attempts, and the waits between them, fit into the time; the result is that of table 1."""
    clock = FakeClock()
    post = FakePost(script, clock)
    deadline = Deadline(clock, seconds, reserve)
    client = TavusClient(post, clock, lambda low, high: low + jitter * (high - low))

    result = client.end_conversation(C1, deadline)

    assert clock.elapsed <= max(seconds - reserve, seconds / 3, 0) + 1e-6
    assert result.attempts == len(post.played) <= MAX_ATTEMPTS
    assert (result.status, result.reason) == expected_result(post.played)
    assert result.retry_after is None or result.retry_after >= 0
    if not post.played:
        assert seconds < reserve + MIN_ATTEMPT_SECONDS or seconds < 3 * MIN_ATTEMPT_SECONDS
        return
    assert all(expected_result([step])[0] == "unavailable" for step in post.played[:-1])
    unavailable = result.status == "unavailable"
    assert result.may_have_ended == (unavailable and any_may_have_ended(post.played))
    if unavailable:
        last = post.played[-1].outcome
        assert (
            result.attempts == MAX_ATTEMPTS
            or (isinstance(last, NoAnswer) and not last.retryable)
            or deadline.left_for_tavus()
            < max(result.retry_after or 0, BACKOFF_SECONDS * 2 ** (result.attempts - 1)) + MIN_ATTEMPT_SECONDS
        )


@dataclass(frozen=True)
class Delivery:
    """One delivery of the same message, and the faults that it meets. Its end is `ahead` seconds away."""

    script: list[Step]
    ahead: int
    remaining_ms: int
    table_down: bool
    bus_down: bool
    queue_down: bool


def deliver(delivery: Delivery, record: FakeRecord, clock: FakeClock) -> tuple[list[Step], Claim | None, bool]:
    """Deliver the message once more. Returns the attempts at Tavus, what was published, and whether it was due.

    Tavus gets no request before the end. The message leaves the queue only if its result was published.
    """
    published: list[Claim] = []

    def publish(detail_type: str, detail: dict[str, Any], deadline: Deadline) -> None:
        clock.advance(deadline.left())
        if delivery.bus_down:
            raise ResultNotPublished("down")
        published.append((detail["status"], detail["reason"]))

    record.down = delivery.table_down
    post = FakePost(delivery.script, clock)
    end = EndRecorded(TavusClient(post, clock, lambda low, _: low).end_conversation, record, nothing, nothing)
    ends_at = clock.now().replace(microsecond=0) + timedelta(seconds=delivery.ahead)
    detail = {"deployment_id": "d1", "conversation_id": "c1", "ends_at": f"{ends_at:%Y-%m-%dT%H:%M:%SZ}"}
    message = {"messageId": "m1", "receiptHandle": "h1", "body": json.dumps({"detail-type": "x", "detail": detail})}
    queue, telemetry = FakeQueue(), FakeTelemetry()
    queue.failure = AwsCallFailed("down", retryable=True) if delivery.queue_down else None
    begun_at: list[datetime] = []

    def timed(conversation: Conversation, deadline: Deadline) -> Result:
        begun_at.append(clock.now())
        return end(conversation, deadline)

    event_door = EventDoor(timed, {"d1"}, publish, telemetry, clock)
    door = MessageDoor(event_door, queue, telemetry, clock, lambda low, _: low)

    answered = door({"Records": [message]}, Context(delivery.remaining_ms))

    stays = answered["batchItemFailures"] == [{"itemIdentifier": "m1"}]
    assert stays is not bool(published)
    assert bool(queue.postponed) is (stays and not delivery.queue_down)
    assert all(begun >= ends_at for begun in begun_at)
    assert begun_at or delivery.ahead > 0
    return post.played, published[0] if published else None, bool(begun_at)


def nothing(conversation: Conversation, result: Result, deadline: Deadline) -> None: ...


class Model:
    """What the contract says about a record: nothing, may have ended, or ended. It never gets weaker."""

    def __init__(self) -> None:
        self.known = "nothing"

    def deliver(self, delivery: Delivery, played: list[Step]) -> Claim | None:
        """Return what a delivery must publish, by table 2. None if the message stays."""
        answered = expected_result(played)
        known = "may have ended" if delivery.table_down else self.known
        if not delivery.table_down and self.known != "ended":
            if answered[0] == "ended":
                self.known = "ended"
            elif answered[0] == "unconfirmed" or (answered[0] == "unavailable" and any_may_have_ended(played)):
                self.known = "may have ended"
        claim = answered
        if known == "ended":
            claim = "ended", None
        elif known == "may have ended" and answered[0] in {"not_found", "rejected"}:
            claim = "unconfirmed", "earlier_attempt"
        return None if claim[0] == "unavailable" or delivery.bus_down else claim


deliveries = st.lists(
    st.builds(
        Delivery,
        scripts,
        st.integers(-900, 0) | st.integers(1, 900),
        st.just(60_000) | st.integers(0, 60_000),
        table_down=st.booleans(),
        bus_down=st.booleans(),
        queue_down=st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


@properties
@given(deliveries)
def test_repeated_deliveries_match_the_model(deliveries: list[Delivery]) -> None:
    """However often an event is delivered, and whatever fails, no result claims more or less than is known."""
    clock, record, model = FakeClock(), FakeRecord(), Model()
    for delivery in deliveries:
        start = clock.elapsed
        played, outcome, begun = deliver(delivery, record, clock)

        assert outcome == (model.deliver(delivery, played) if begun else None)
        assert clock.elapsed - start <= delivery.remaining_ms / 1000 + MAX_SLEEP_SECONDS
        recorded = {"unconfirmed": "may have ended", "ended": "ended"}
        assert (recorded[record.known.status] if record.known else "nothing") == model.known


right_ids = st.from_regex(ID, fullmatch=True)
ids = right_ids | st.from_regex("[A-Za-z0-9_./%?#\\n-]{0,5}", fullmatch=True) | st.text()
values = st.recursive(
    st.sampled_from(MALFORMED_IDS) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ids,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
right_parameters = st.fixed_dictionaries({"deployment_id": right_ids, "conversation_id": right_ids})
parameters = right_parameters | st.fixed_dictionaries({}, optional={"deployment_id": values, "conversation_id": values})
operations = st.sampled_from(["end", "timeout"])
around = st.just("") | ids
paths = st.builds("{}/v2/deployments/{}/conversations/{}/{}{}".format, around, ids, ids, operations, around)
methods = st.sampled_from(["POST", "PUT", "GET", "post"]) | values
seconds = st.sampled_from(["60", "0600", "9" * 5000]) | st.from_regex("[-+ 0-9_.,e]{0,5}", fullmatch=True) | values
queries = st.fixed_dictionaries({}, optional={"seconds": seconds | st.lists(seconds, max_size=2)}) | values


def http_request(target: tuple[Any, str], ids: Any, query: Any) -> dict[str, Any]:
    """A request of an HTTP API for a method and a path."""
    method, path = target
    context = {"http": {"method": method}}
    return {"requestContext": context, "rawPath": path, "pathParameters": ids, "queryStringParameters": query}


right_targets = st.sampled_from([("POST", "/end"), ("PUT", "/timeout")])
right_requests = st.builds(http_request, right_targets, right_parameters, queries)
near_requests = st.builds(http_request, st.tuples(methods, paths), parameters | st.none(), queries)
other_requests = st.fixed_dictionaries(
    {"requestContext": st.builds(lambda method: {"http": {"method": method}}, methods) | values},
    optional={
        "pathParameters": parameters | values,
        "rawPath": paths | values,
        "path": paths | values,
        "httpMethod": methods,
        "queryStringParameters": queries,
        "multiValueQueryStringParameters": queries,
        "headers": values,
        "body": values,
        "isBase64Encoded": values,
        "detail-type": values,
        "type": st.just("REQUEST") | values,
        "methodArn": values,
        "routeArn": values,
    },
)
requests = right_requests | near_requests | other_requests
right_events = right_parameters.map(lambda ids: {"detail-type": "Session Timeout", "detail": ids})
events = right_events | st.fixed_dictionaries(
    {"detail-type": st.sampled_from(["Session Timeout", "Conversation End Result"]) | values},
    optional={
        "detail": parameters | values,
        "id": values,
        "source": values,
        "time": values,
        "resources": values,
    },
)
times = st.sampled_from([0, 10_000])


def serve(peer: Peer) -> None:
    """Answer in one of Tavus' ways, chosen by the length of the id."""
    conversation_id = peer.request.path.split("/")[-2]
    ended = json.dumps({"conversation_id": conversation_id, "status": "ended"}).encode()
    replies = [answer(200, ended), answer(204), answer(403), answer(404), answer(429, b"", "Retry-After: 3600")]
    peer.send(replies[len(conversation_id) % len(replies)])


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer(serve) as server:
        yield server


@pytest.fixture(scope="module")
def handlers(server: FaultServer) -> Iterator[dict[str, Handler]]:
    """The handler as on Lambda, by the name of its event bus."""
    environ = {"TAVUS_API_URL": server.url, "ALLOWED_DEPLOYMENT_IDS": "*", **TIMER_SETTINGS}
    with mocked_aws():
        sqs = boto3.client("sqs")
        urls = {f"{name}_QUEUE_URL": sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("TIMEOUT", "FAILED")}
        yield {
            "": bootstrap(environ),
            "default": bootstrap(environ | {"EVENT_BUS_NAME": "default"}),
            "missing": bootstrap(environ | {"EVENT_BUS_NAME": "missing"}),
            "queue": bootstrap(environ | urls | {"EVENT_BUS_NAME": "default"}),
        }


def counts_as_a_request(event: dict[str, Any]) -> bool:
    """The contract's rule: an HTTP method, in `requestContext.http.method` or in `httpMethod`, and no authorizer."""
    if event.get("type") == "REQUEST" or event.keys() & {"methodArn", "routeArn"}:
        return False
    context = event["requestContext"]
    http = context.get("http") if isinstance(context, dict) else None
    methods = [http.get("method") if isinstance(http, dict) else None, event.get("httpMethod")]
    return any(isinstance(method, str) for method in methods)


@properties
@given(requests, times)
def test_every_request_is_answered(
    handlers: dict[str, Handler], server: FaultServer, event: dict[str, Any], remaining_ms: int
) -> None:
    """A request gets a valid proxy response with a documented status. Any other requestContext is unsupported.

    Tavus gets no request that names anything but two valid ids.
    """
    server.requests.clear()
    if not counts_as_a_request(event):
        with pytest.raises(UnsupportedEvent):
            handlers[""](event, Context(remaining_ms))
        return

    response = handlers[""](event, Context(remaining_ms))

    assert set(response) == {"statusCode", "headers", "body", "isBase64Encoded"}
    assert response["statusCode"] in {200, 202, 400, 403, 404, 405, 502, 503, 504}
    assert all(isinstance(part, str) for header in response["headers"].items() for part in header)
    assert isinstance(json.loads(response["body"]), dict)
    assert response["isBase64Encoded"] is False
    json.dumps(response).encode()
    tavus_path = f"/v2/deployments/{ID}/conversations/{ID}/end"
    assert all(re.fullmatch(tavus_path, request.path) for request in server.requests)


@properties
@given(events.map(json.dumps) | st.text(max_size=20) | values.map(json.dumps), st.integers(1, 10), times)
def test_a_message_never_raises(handlers: dict[str, Handler], body: str, receives: int, remaining_ms: int) -> None:
    """It leaves the queue, or Lambda is told that it stays."""
    message = sample("session-timeout-message")
    message["Records"][0] |= {"body": body, "receiptHandle": "no longer valid"}
    message["Records"][0]["attributes"]["ApproximateReceiveCount"] = str(receives)

    answered = handlers["queue"](message, Context(remaining_ms))

    stays = [{"itemIdentifier": message["Records"][0]["messageId"]}]
    assert answered in ({"batchItemFailures": []}, {"batchItemFailures": stays})


@properties
@given(events, st.sampled_from(["", "default", "missing"]), times)
def test_events_raise_only_documented_errors(
    handlers: dict[str, Handler], event: dict[str, Any], bus: str, remaining_ms: int
) -> None:
    """Any event with a detail-type publishes a result, or raises an error that the contract names."""
    raised: type[Exception] | None = None
    try:
        handlers[bus](event, Context(remaining_ms))
    except (InvalidEvent, UnsupportedEvent, TavusUnavailable, ResultNotPublished) as error:
        raised = type(error)

    assert (raised is UnsupportedEvent) == (bus == "")
    assert raised is not None or bus == "default"
