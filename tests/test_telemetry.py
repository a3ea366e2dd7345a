"""What an operator sees: log lines, metrics and the trace of the Tavus call."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.errors import RecordUnavailable, TavusUnavailable
from end_conversation.telemetry import Telemetry
from tests.fakes import Context, FakeClock

CONVERSATION = Conversation("d1", "c1")
CLOCK = FakeClock()
ENDED = Result(Status.ENDED, None, CLOCK.now(), 1, 200, "9a1e")
THROTTLED = TavusUnavailable(Reason.TAVUS_THROTTLED, "HTTP 429", 3, tavus_status_code=429)

type Told = tuple[list[dict[str, Any]], dict[str, Any]]
type Tell = Callable[[Callable[[Telemetry], object]], Told]


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Tell:
    """Run something in one instrumented invocation; its log lines, and its metrics."""

    def run(work: Callable[[Telemetry], object]) -> Told:
        # A service of its own, as Powertools keeps one logger a service, with the stdout that it first saw.
        telemetry = Telemetry({"POWERTOOLS_METRICS_NAMESPACE": "Test", "POWERTOOLS_SERVICE_NAME": request.node.name})
        telemetry.instrument(lambda event, context: work(telemetry))({"body": "c0ffee"}, Context(request_id="r1"))
        printed = capsys.readouterr()
        assert "c0ffee" not in printed.out + printed.err
        *lines, metrics = map(json.loads, printed.out.splitlines())
        return lines, metrics

    return run


def outcome(trigger: Any, what: Result | TavusUnavailable) -> Callable[[Telemetry], object]:
    return lambda telemetry: telemetry.outcome(trigger, CONVERSATION, what, Deadline(CLOCK, 10, 5))


def test_a_result_is_one_line_with_all_that_is_known(tell: Tell) -> None:
    """Status, attempts, Tavus' answer, duration, ids and the request to look it up by."""
    [line], _ = tell(outcome("http", ENDED))

    assert line["level"] == "INFO"
    assert line["function_request_id"] == "r1"
    told = {"trigger", "deployment_id", "conversation_id", "status", "attempts", "tavus_status_code"}
    assert {name: line[name] for name in told | {"tavus_request_id", "duration_ms"}} == {
        "trigger": "http",
        "deployment_id": "d1",
        "conversation_id": "c1",
        "status": "ended",
        "attempts": 1,
        "tavus_status_code": 200,
        "tavus_request_id": "9a1e",
        "duration_ms": 0,
    }


@pytest.mark.parametrize(
    ("what", "level"),
    [
        (Result(Status.UNCONFIRMED, Reason.UNEXPECTED_ANSWER, CLOCK.now(), 1, 200), "INFO"),
        (Result(Status.NOT_FOUND, None, CLOCK.now(), 1, 404), "INFO"),
        (Result(Status.REJECTED, Reason.TAVUS_REJECTED, CLOCK.now(), 1, 400), "WARNING"),
        (Result(Status.REJECTED, Reason.DEPLOYMENT_NOT_ALLOWED, CLOCK.now(), 0), "WARNING"),
        (THROTTLED, "ERROR"),
    ],
)
def test_only_what_could_not_be_said_is_an_error_line(tell: Tell, what: Result | TavusUnavailable, level: str) -> None:
    """A refusal is a warning; a Tavus that can't be asked is an error."""
    [line], _ = tell(outcome("event", what))

    assert (line["level"], line["status"], line.get("reason")) == (level, what.status, what.reason)


@pytest.mark.parametrize(("status_code", "hinted"), [(401, True), (403, True), (400, False)])
def test_a_401_or_403_names_the_origin_check_as_a_possible_cause(tell: Tell, status_code: int, hinted: bool) -> None:
    """Whether Tavus checks the Origin at the end endpoint is unknown; the line says what to try."""
    [line], _ = tell(outcome("http", Result(Status.REJECTED, Reason.TAVUS_REJECTED, CLOCK.now(), 1, status_code)))

    assert ("TAVUS_ORIGIN" in line.get("hint", "")) is hinted


@pytest.mark.parametrize("trigger", ["http", "event"])
@pytest.mark.parametrize("what", [ENDED, THROTTLED])
def test_an_outcome_is_counted_by_status_and_trigger(tell: Tell, trigger: str, what: Result | TavusUnavailable) -> None:
    """The metric is named for the status; its dimensions are the trigger and the service, never an id."""
    _, metrics = tell(outcome(trigger, what))

    assert metrics[what.status] == [1.0]
    [directive] = metrics["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Test"
    assert [set(dimensions) for dimensions in directive["Dimensions"]] == [{"trigger", "service"}]
    assert metrics["trigger"] == trigger
    assert "c1" not in json.dumps(metrics)


def test_what_names_no_conversation_is_counted_as_invalid(tell: Tell) -> None:
    """The line gives the reason and no ids, as none were checked."""
    [line], metrics = tell(lambda telemetry: telemetry.invalid("http", "invalid_id"))

    assert (line["level"], line["reason"]) == ("WARNING", "invalid_id")
    assert metrics["invalid"] == [1.0]


def test_the_trace_header_is_of_the_invocation_at_hand() -> None:
    """Lambda's runtime sets it anew for each."""
    environ = {"_X_AMZN_TRACE_ID": "Root=1-2-3"}
    telemetry = Telemetry(environ)

    assert telemetry.trace_header() == "Root=1-2-3"
    environ["_X_AMZN_TRACE_ID"] = "Root=4-5-6"
    assert telemetry.trace_header() == "Root=4-5-6"


def test_a_failing_table_is_logged_and_counted(tell: Tell) -> None:
    """The run goes on, and the operator hears of it."""

    def work(telemetry: Telemetry) -> None:
        telemetry.record_failed(RecordUnavailable("AccessDeniedException"))
        telemetry.outcome("event", CONVERSATION, ENDED, Deadline(CLOCK, 10, 5))

    [failed, _], metrics = tell(work)

    assert (failed["level"], failed["reason"]) == ("ERROR", "AccessDeniedException")
    assert metrics["record_failed"] == [1.0]


@pytest.mark.parametrize("what", [ENDED, THROTTLED])
def test_the_call_to_tavus_is_measured(tell: Tell, what: Result | TavusUnavailable) -> None:
    """Its latency in milliseconds, its attempts, and whether it came to a result, whose average is a share."""
    clock = FakeClock()

    def end(conversation: Conversation, deadline: Deadline) -> Result:
        clock.sleep(1.5)
        if isinstance(what, TavusUnavailable):
            raise what
        return what

    def work(telemetry: Telemetry) -> None:
        deadline = Deadline(clock, 10, 5)
        try:
            assert telemetry.observe(end)(CONVERSATION, deadline) is what
        except TavusUnavailable as unavailable:
            assert unavailable is what  # noqa: PT017 - either way the outcome is handed on as it was
        telemetry.outcome("http", CONVERSATION, what, deadline)

    _, metrics = tell(work)

    assert metrics["tavus_latency"] == [1500.0]
    assert metrics["attempts"] == [float(what.attempts)]
    assert metrics["tavus_answered"] == [float(what is ENDED)]
