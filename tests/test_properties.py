"""What holds whatever happens: for any script of faults, any time left and any event."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from moto import mock_aws

from end_conversation.attempt import NoAnswer
from end_conversation.bootstrap import bootstrap
from end_conversation.conversation import Conversation, Result
from end_conversation.deadline import Deadline
from end_conversation.errors import (
    InvalidEvent,
    ResultNotPublished,
    TavusUnavailable,
    UnsupportedEvent,
)
from end_conversation.events import EventDoor
from end_conversation.exchange import Answer
from end_conversation.record import EndRecorded
from end_conversation.tavus import BACKOFF_SECONDS, LEAST_SECONDS, MAX_ATTEMPTS, Tavus
from tests.fakes import Context, FakeClock, FakeRecord, FakeTelemetry
from tests.fault_server import FaultServer, Peer, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

properties = settings(derandomize=True, deadline=None, max_examples=300)

RESULT_SCHEMA = json.loads(
    (Path(__file__).parent.parent / "events" / "conversation-end-result.schema.json").read_text()
)
C1 = Conversation("d1", "c1")
ENDED_BODY = b'{"conversation_id": "c1", "status": "ended"}'
PASSING_FAILURES = {408, *range(500, 600)} - {501, 505}

ID = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{,127}")

type Handler = Callable[[Any, Any], Any]
type Claim = tuple[str, str | None]


@dataclass(frozen=True)
class Step:
    """What becomes of one POST, and the share of the time it was given that it takes."""

    outcome: Answer | NoAnswer
    share: float


def may_have_ended(steps: list[Step]) -> bool:
    """Whether Tavus may have ended the conversation at one of these without saying so."""
    return any(
        step.outcome.sent if isinstance(step.outcome, NoAnswer) else step.outcome.status_code in PASSING_FAILURES
        for step in steps
    )


class FakePost:
    """POSTs that come out as a script says."""

    def __init__(self, script: list[Step], clock: FakeClock) -> None:
        self._script = script
        self._clock = clock
        self.played: list[Step] = []

    def __call__(self, path: str, seconds: float) -> Answer:
        assert path == "/v2/deployments/d1/conversations/c1/end"
        step = self._script[len(self.played)]
        self.played.append(step)
        self._clock.advance(step.share * seconds)
        if isinstance(step.outcome, NoAnswer):
            raise step.outcome
        return step.outcome


def claim(played: list[Step]) -> Claim:
    """The status and reason that the contract gives to these attempts; `unavailable` where nothing can be said yet."""
    *earlier, last = played
    if isinstance(last.outcome, NoAnswer):
        return "unavailable", "tavus_timeout" if last.outcome.timeout else "tavus_unreachable"
    code, body = last.outcome.status_code, last.outcome.body
    rules: list[tuple[bool, Claim]] = [
        (code in {423, 429}, ("unavailable", "tavus_throttled")),
        (code == 425 or code in PASSING_FAILURES, ("unavailable", "tavus_error")),
        (code < 300 and body == ENDED_BODY, ("ended", None)),
        (code < 300, ("unconfirmed", "unexpected_answer")),
        (code in {400, 404, 409, 410} and may_have_ended(earlier), ("unconfirmed", "earlier_attempt")),
        (code in {404, 410}, ("not_found", None)),
        (True, ("rejected", "tavus_rejected")),
    ]
    return next(claim for holds, claim in rules if holds)


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
codes = st.sampled_from([200, 202, 400, 404, 408, 409, 410, 425, 429, 500, 501, 503]) | st.integers(200, 599)
bodies = st.just(ENDED_BODY) | st.sampled_from([None, b"", b"{}", ENDED_BODY.replace(b"c1", b"c2")])
answers = st.builds(Answer, codes, headers, bodies)
no_answers = st.sampled_from(
    [
        {"timeout": True, "sent": True},
        {"timeout": True, "sent": False},
        {"timeout": False, "sent": True},
        {"timeout": False, "sent": False},
        {"timeout": False, "sent": False, "untrusted": True},
    ]
).map(lambda facts: NoAnswer("Kind", **facts))
shares = st.sampled_from([0.0, 1.0]) | st.floats(0, 1)
scripts = st.lists(
    st.builds(Step, answers | answers | no_answers, shares), min_size=MAX_ATTEMPTS, max_size=MAX_ATTEMPTS
)
jitters = st.sampled_from([0.0, 1.0]) | st.floats(0, 1)


@properties
@given(scripts, st.floats(-1, 30), st.floats(0, 10), jitters)
def test_the_client_tells_what_its_attempts_amount_to_before_the_deadline(
    script: list[Step], seconds: float, reserve: float, jitter: float
) -> None:
    """At most three attempts, over in time with the waits between them, and no claim but what they bear out."""
    clock = FakeClock()
    post = FakePost(script, clock)
    deadline = Deadline(clock, seconds, reserve)
    outcome: Result | TavusUnavailable
    try:
        outcome = Tavus(post, clock, lambda least, most: least + jitter * (most - least)).end(C1, deadline)
    except TavusUnavailable as unavailable:
        outcome = unavailable

    assert clock.elapsed <= max(seconds - reserve, seconds / 2, 0) + 1e-6
    assert outcome.attempts == len(post.played) <= MAX_ATTEMPTS
    if not post.played:
        assert (outcome.status, outcome.reason) == ("unavailable", "tavus_timeout")
        assert seconds < reserve + LEAST_SECONDS or seconds < 2 * LEAST_SECONDS
        return
    assert (outcome.status, outcome.reason) == claim(post.played)
    assert all(claim([step])[0] == "unavailable" for step in post.played[:-1])
    if isinstance(outcome, TavusUnavailable):
        assert outcome.may_have_ended == may_have_ended(post.played)
        last = post.played[-1].outcome
        assert (
            outcome.attempts == MAX_ATTEMPTS
            or (isinstance(last, NoAnswer) and last.untrusted)
            or deadline.left_for_tavus()
            < max(outcome.retry_after or 0, BACKOFF_SECONDS * 2 ** (outcome.attempts - 1)) + LEAST_SECONDS
        )


@properties
@given(st.text() | dates | st.from_regex(r"[0-9]+"))
def test_retry_after_is_seconds_or_nothing(value: str) -> None:
    """Whatever text Retry-After holds, what is read from it is a time to wait, or it is ignored."""
    clock = FakeClock()
    post = FakePost([Step(Answer(503, {"Retry-After": value}, b""), share=1)], clock)

    with pytest.raises(TavusUnavailable) as unavailable:
        Tavus(post, clock, lambda least, _: least).end(C1, Deadline(clock, LEAST_SECONDS, reserve=0))

    assert unavailable.value.retry_after is None or unavailable.value.retry_after >= 0


@dataclass(frozen=True)
class Delivery:
    """One delivery of the same event: what meets it."""

    script: list[Step]
    remaining_ms: int
    table_down: bool
    bus_down: bool


def deliver(delivery: Delivery, record: FakeRecord, clock: FakeClock) -> tuple[list[Step], Claim | type[Exception]]:
    """Hand over the same event once more; what Tavus was asked, and what was published or raised."""
    published: list[Claim] = []

    def publish(detail: dict[str, Any], deadline: Deadline) -> None:
        clock.advance(deadline.left())
        if delivery.bus_down:
            raise ResultNotPublished("down")
        published.append((detail["status"], detail["reason"]))

    record.down = delivery.table_down
    post = FakePost(delivery.script, clock)
    end = EndRecorded(Tavus(post, clock, lambda least, _: least).end, record, lambda _: None, clock)
    event = {"detail-type": "x", "detail": {"deployment_id": "d1", "conversation_id": "c1"}}
    try:
        EventDoor(end, publish, FakeTelemetry(), clock)(event, Context(delivery.remaining_ms))
    except (TavusUnavailable, ResultNotPublished) as error:
        return post.played, type(error)
    [claim] = published
    return post.played, claim


STRENGTH = {"ended": 2, "unconfirmed": 1, "not_found": 0, "rejected": 0, "unavailable": 0}


def stronger(known: Result | None, answered: Claim) -> Claim:
    """What an invocation tells: what is known before what was answered, though a suspicion is worth another try."""
    if known is None or STRENGTH[known.status] <= STRENGTH[answered[0]]:
        return answered
    if answered[0] == "unavailable" and not known.settled:
        return answered
    return known.status, known.reason


deliveries = st.lists(
    st.builds(
        Delivery, scripts, st.just(60_000) | st.integers(0, 60_000), table_down=st.booleans(), bus_down=st.booleans()
    ),
    min_size=1,
    max_size=3,
)


@properties
@given(deliveries)
def test_the_stronger_of_record_and_answer_is_published(deliveries: list[Delivery]) -> None:
    """However often one event is delivered, no publication says less than was answered, or written down before."""
    clock = FakeClock()
    record = FakeRecord(clock)
    for delivery in deliveries:
        kept, begun = record.kept, clock.elapsed
        played, outcome = deliver(delivery, record, clock)

        assert clock.elapsed - begun <= delivery.remaining_ms / 1000 + 1e-6
        answered = claim(played) if played else ("unavailable", "tavus_timeout")
        told = stronger(None if delivery.table_down else kept, answered)
        if told[0] == "unavailable":
            assert outcome is TavusUnavailable
        elif delivery.bus_down:
            assert outcome is ResultNotPublished
        else:
            assert outcome == told

        strengths = [STRENGTH[kept.status] if kept else 0]
        if not delivery.table_down:
            suspected = answered[0] in {"unavailable", "rejected"} and may_have_ended(played)
            strengths.append(STRENGTH["unconfirmed" if suspected else answered[0]])
        assert (STRENGTH[record.kept.status] if record.kept else 0) == max(strengths)


right_ids = st.from_regex(ID, fullmatch=True)
ids = right_ids | st.from_regex("[A-Za-z0-9_./%?#\\n-]{0,5}", fullmatch=True) | st.text()
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ids,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
right_parameters = st.fixed_dictionaries({"deployment_id": right_ids, "conversation_id": right_ids})
parameters = right_parameters | st.fixed_dictionaries({}, optional={"deployment_id": values, "conversation_id": values})
paths = st.builds("{}/v2/deployments/{}/conversations/{}/end{}".format, st.just("") | ids, ids, ids, st.just("") | ids)
methods = st.sampled_from(["POST", "GET", "post"]) | values
right_requests = right_parameters.map(
    lambda ids: {"requestContext": {"http": {"method": "POST"}}, "pathParameters": ids},
)
requests = right_requests | st.fixed_dictionaries(
    {"requestContext": st.builds(lambda method: {"http": {"method": method}}, methods) | values},
    optional={
        "pathParameters": parameters | values,
        "rawPath": paths | values,
        "path": paths | values,
        "httpMethod": methods,
        "headers": values,
        "body": values,
        "isBase64Encoded": values,
        "detail-type": values,
    },
)
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
    """Answer as Tavus does, one way or another for each id."""
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
    """The handler as Lambda would compose it, by the bus that it publishes on."""
    environ = {"TAVUS_API_URL": server.url, "ALLOWED_DEPLOYMENT_IDS": "*"}
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        yield {
            "": bootstrap(environ),
            "default": bootstrap(environ | {"EVENT_BUS_NAME": "default"}),
            "missing": bootstrap(environ | {"EVENT_BUS_NAME": "missing"}),
        }


@properties
@given(requests, times)
def test_every_request_is_answered(handlers: dict[str, Handler], event: dict[str, Any], remaining_ms: int) -> None:
    """Any event with a requestContext gets a valid proxy response with a documented status; none raises."""
    response = handlers[""](event, Context(remaining_ms))

    assert set(response) == {"statusCode", "headers", "body", "isBase64Encoded"}
    assert response["statusCode"] in {200, 202, 400, 403, 404, 405, 502, 503, 504}
    assert all(isinstance(part, str) for header in response["headers"].items() for part in header)
    assert isinstance(json.loads(response["body"]), dict)
    assert response["isBase64Encoded"] is False
    json.dumps(response).encode()


@properties
@given(events, st.sampled_from(["", "default", "missing"]), times)
def test_an_event_raises_only_what_is_named(
    handlers: dict[str, Handler], event: dict[str, Any], bus: str, remaining_ms: int
) -> None:
    """Any event with a detail-type is ended and published, or raises an error that the contract names."""
    raised: type[Exception] | None = None
    try:
        handlers[bus](event, Context(remaining_ms))
    except (InvalidEvent, UnsupportedEvent, TavusUnavailable, ResultNotPublished) as error:
        raised = type(error)

    assert (raised is UnsupportedEvent) == (bus == "")
    assert raised is not None or bus == "default"


@properties
@given(values | ids, values | ids, st.sampled_from(["parameters", "path", "event"]))
def test_nothing_is_sent_or_exactly_the_right_path(
    handlers: dict[str, Handler], server: FaultServer, deployment_id: Any, conversation_id: Any, place: str
) -> None:
    """Tavus is asked, once, if and only if both ids are ids, and then about no other conversation."""
    named = {"deployment_id": deployment_id, "conversation_id": conversation_id}
    path = f"/v2/deployments/{deployment_id}/conversations/{conversation_id}/end"
    request = {"requestContext": {"http": {"method": "POST"}}}
    event = {
        "parameters": request | {"pathParameters": named},
        "path": request | {"rawPath": path},
        "event": {"detail-type": "Session Timeout", "detail": named},
    }[place]
    server.requests.clear()
    with suppress(InvalidEvent, TavusUnavailable):
        handlers["default"](event, Context())

    shown = [str(id_) if place == "path" else id_ for id_ in named.values()]
    right = all(isinstance(id_, str) and ID.fullmatch(id_) for id_ in shown)
    assert [request.path for request in server.requests] == ([path] if right else [])


@properties
@given(values, values, values, values)
def test_what_is_published_holds_to_its_schema(id_: Any, source: Any, time: Any, detail_type: Any) -> None:
    """Whatever an event says of itself, the result that names it as its trigger is as the schema says."""
    published: list[dict[str, Any]] = []
    clock = FakeClock()
    tavus = Tavus(FakePost([Step(Answer(200, {}, ENDED_BODY), 0.0)], clock), clock, lambda least, _: least)
    door = EventDoor(tavus.end, lambda detail, _: published.append(detail), FakeTelemetry(), clock)
    envelope = {"id": id_, "source": source, "time": time, "detail-type": detail_type}

    door({**envelope, "detail": {"deployment_id": "d1", "conversation_id": "c1"}}, Context())

    [detail] = published
    event = {"source": "s", "detail-type": "Conversation End Result", "detail": detail}
    Draft202012Validator(RESULT_SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(event)
