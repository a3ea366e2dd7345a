"""What an operator sees: log lines, metrics, and the trace of the call to Tavus."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock, create_autospec
from uuid import uuid4

import pytest
from aws_lambda_powertools import Metrics
from aws_xray_sdk import global_sdk_config  # type: ignore[import-untyped]
from aws_xray_sdk.core import xray_recorder  # type: ignore[import-untyped]
from aws_xray_sdk.core.context import Context as XRayContext  # type: ignore[import-untyped]
from aws_xray_sdk.core.models.subsegment import Subsegment  # type: ignore[import-untyped]

from end_conversation.bootstrap import bootstrap
from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.telemetry import Telemetry
from tests.unit.cold_start import cold_start
from tests.unit.fakes import Context, FakeClock

REQUEST = json.loads((Path(__file__).parents[2] / "events" / "http-api.json").read_text())
CONVERSATION = Conversation("d1", "c1")
CLOCK = FakeClock()
NOW = CLOCK.now()
ENDED = Result(Status.ENDED, None, NOW, 1, 200, "9a1e")
THROTTLED = Result(Status.UNAVAILABLE, Reason.TAVUS_THROTTLED, NOW, 3, 429, failure="HTTP 429")
UNREACHABLE = Result(Status.UNAVAILABLE, Reason.TAVUS_UNREACHABLE, NOW, 1, failure="ConnectionResetError")

type Captured = tuple[list[dict[str, Any]], dict[str, Any]]
type Capture = Callable[[Callable[[Telemetry], object]], Captured]


@pytest.fixture(autouse=True)
def _no_metrics_left() -> Iterator[None]:
    """Powertools keeps one set of metrics per process."""
    yield
    Metrics().clear_metrics()


class _CurrentStdout:
    """Writes to the current stdout."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


@pytest.fixture
def telemetry(request: pytest.FixtureRequest) -> Telemetry:
    # Powertools keeps one logger per service, so each test has its own service. The logger keeps the stdout of its
    # creation, which pytest closes before the test begins.
    created = Telemetry({"POWERTOOLS_METRICS_NAMESPACE": "Test", "POWERTOOLS_SERVICE_NAME": request.node.name})
    for handler in logging.getLogger(request.node.name).handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(_CurrentStdout())
    return created


@pytest.fixture
def capture(telemetry: Telemetry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Capture:
    """Run something in one invocation. Returns its log lines and its metrics."""
    monkeypatch.setenv("POWERTOOLS_LOGGER_LOG_EVENT", "true")

    def run(work: Callable[[Telemetry], object]) -> Captured:
        telemetry.instrument(lambda event, context: work(telemetry))({"body": "c0ffee"}, Context(request_id="r1"))
        printed = capsys.readouterr()
        assert "c0ffee" not in printed.out + printed.err
        *lines, metrics = map(json.loads, printed.out.splitlines())
        return lines, metrics

    return run


def report(trigger: Any, result: Result) -> Callable[[Telemetry], None]:
    return lambda telemetry: telemetry.result(trigger, CONVERSATION, result, Deadline(CLOCK, 10, 5))


def call(telemetry: Telemetry, result: Result) -> Result:
    """One invocation that calls Tavus. Returns what the caller gets."""

    def handle(event: object, context: object) -> Result:
        deadline = Deadline(CLOCK, 10, 5)
        observed = telemetry.observe(lambda conversation, deadline: result)(CONVERSATION, deadline)
        telemetry.result("http", CONVERSATION, observed, deadline)
        return observed

    returned: Result = telemetry.instrument(handle)({}, Context())
    return returned


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ENDED, {"level": "INFO", "status": "ended", "tavus_status_code": 200, "tavus_request_id": "9a1e"}),
        (THROTTLED, {"level": "ERROR", "status": "unavailable", "attempts": 3, "failure": "HTTP 429"}),
    ],
)
def test_a_result_is_one_log_line_with_all_that_is_known(
    capture: Capture, result: Result, expected: dict[str, Any]
) -> None:
    [line], _ = capture(report("http", result))

    ids = {"deployment_id": "d1", "conversation_id": "c1", "function_request_id": "r1"}
    known = {"trigger": "http", "reason": result.reason, "attempts": result.attempts, "duration_ms": 0}
    expected = ids | known | {"failure": result.failure} | expected
    assert {name: line.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("result", "level"),
    [
        (Result(Status.UNCONFIRMED, Reason.UNEXPECTED_ANSWER, NOW, 1, 200), "INFO"),
        (Result(Status.NOT_FOUND, None, NOW, 1, 404), "INFO"),
        (Result(Status.REJECTED, Reason.TAVUS_REJECTED, NOW, 1, 400), "WARNING"),
        (Result(Status.REJECTED, Reason.DEPLOYMENT_NOT_ALLOWED, NOW, 0), "WARNING"),
        (THROTTLED, "ERROR"),
    ],
)
def test_a_rejection_is_a_warning_and_only_unavailable_is_an_error(
    capture: Capture, result: Result, level: str
) -> None:
    [line], _ = capture(report("event", result))

    assert (line["level"], line["status"], line.get("reason")) == (level, result.status, result.reason)


@pytest.mark.parametrize(("status_code", "hinted"), [(401, True), (403, True), (400, False)])
def test_a_401_or_403_is_logged_with_a_hint_at_the_origin(capture: Capture, status_code: int, hinted: bool) -> None:
    """It is unknown whether Tavus checks the Origin header at the end endpoint."""
    [line], _ = capture(report("http", Result(Status.REJECTED, Reason.TAVUS_REJECTED, NOW, 1, status_code)))

    assert ("TAVUS_ORIGIN" in line.get("hint", "")) is hinted


@pytest.mark.parametrize("trigger", ["http", "event"])
@pytest.mark.parametrize("result", [ENDED, THROTTLED])
def test_a_result_is_counted_by_status_and_trigger(capture: Capture, trigger: str, result: Result) -> None:
    """The dimensions are the trigger and the service, and never an id."""
    _, metrics = capture(report(trigger, result))

    assert metrics[result.status] == [1.0]
    [directive] = metrics["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Test"
    assert [set(dimensions) for dimensions in directive["Dimensions"]] == [{"trigger", "service"}]
    assert metrics["trigger"] == trigger
    assert "c1" not in json.dumps(metrics)


def test_an_invalid_request_is_logged_and_counted_without_ids(capture: Capture) -> None:
    [line], metrics = capture(lambda telemetry: telemetry.invalid("http", "invalid_id"))

    assert (line["level"], line["message"]) == ("WARNING", "invalid request or event")
    assert (line["trigger"], line["status"], line["reason"]) == ("http", "invalid", "invalid_id")
    assert not {"deployment_id", "conversation_id"} & line.keys()
    assert metrics["invalid"] == [1.0]


def units(metrics: dict[str, Any]) -> dict[str, str]:
    """The unit of each metric."""
    [directive] = metrics["_aws"]["CloudWatchMetrics"]
    return {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("record_failed", "the table of ended conversations failed"),
        ("publish_failed", "the result was not published"),
    ],
)
def test_a_failure_of_aws_is_logged_and_counted(capture: Capture, metric: str, message: str) -> None:
    def work(telemetry: Telemetry) -> None:
        report("event", ENDED)(telemetry)
        getattr(telemetry, metric)("AccessDeniedException")

    [_, failed], metrics = capture(work)

    assert (failed["level"], failed["message"], failed["reason"]) == ("ERROR", message, "AccessDeniedException")
    assert metrics[metric] == [1.0]
    assert set(units(metrics).values()) == {"Count"}


@pytest.mark.parametrize(
    ("status", "argument", "expected"),
    [
        ("armed", "2026-11-25T08:37:41Z", {"level": "INFO", "ends_at": "2026-11-25T08:37:41Z"}),
        ("timer_failed", "ThrottlingException", {"level": "ERROR", "reason": "ThrottlingException"}),
    ],
)
def test_a_limit_is_one_log_line_and_a_count(
    capture: Capture, status: str, argument: str, expected: dict[str, str]
) -> None:
    deadline = Deadline(CLOCK, 10, 5)

    [line], metrics = capture(lambda telemetry: getattr(telemetry, status)(CONVERSATION, argument, deadline))

    ids = {"trigger": "timer", "deployment_id": "d1", "conversation_id": "c1", "status": status, "duration_ms": 0}
    assert {name: line[name] for name in ids | expected} == ids | expected
    assert (metrics["trigger"], metrics[status]) == ("timer", [1.0])


@pytest.mark.parametrize("result", [ENDED, THROTTLED])
def test_the_call_to_tavus_is_measured(capture: Capture, result: Result) -> None:
    """The average of `tavus_answered` is the share of calls that Tavus answered."""
    clock = FakeClock()

    def end(conversation: Conversation, deadline: Deadline) -> Result:
        clock.sleep(1.5)
        return result

    def work(telemetry: Telemetry) -> None:
        deadline = Deadline(clock, 10, 5)
        clock.sleep(1)
        assert telemetry.observe(end)(CONVERSATION, deadline) is result
        telemetry.result("http", CONVERSATION, result, deadline)

    _, metrics = capture(work)

    assert metrics["tavus_latency"] == [1500.0]
    assert metrics["attempts"] == [float(result.attempts)]
    assert metrics["tavus_answered"] == [float(result is ENDED)]
    counts = dict.fromkeys(("attempts", "tavus_answered", str(result.status)), "Count")
    assert units(metrics) == counts | {"tavus_latency": "Milliseconds"}


def test_the_default_service_and_namespace(capfd: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry({})

    telemetry.instrument(lambda event, context: telemetry.invalid("http", "invalid_id"))({}, Context())

    metrics = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert metrics["service"] == "end-conversation"
    assert metrics["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "EndConversation"


def test_the_trace_header_is_that_of_the_current_invocation() -> None:
    """Lambda's runtime changes the variable for each invocation."""
    environ = {"_X_AMZN_TRACE_ID": "Root=1-2-3"}
    telemetry = Telemetry(environ)

    assert telemetry.trace_header() == "Root=1-2-3"
    environ["_X_AMZN_TRACE_ID"] = "Root=4-5-6"
    assert telemetry.trace_header() == "Root=4-5-6"


@pytest.fixture
def xray(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """X-Ray's recorder within a segment. `begin_subsegment.return_value` is the subsegment."""
    recorder: Mock = create_autospec(xray_recorder, instance=True)
    recorder.begin_subsegment.return_value = create_autospec(Subsegment, instance=True)
    monkeypatch.setattr("end_conversation.telemetry.Tracer", lambda **_: Mock(provider=recorder))
    return recorder


@pytest.mark.parametrize(
    ("result", "http_meta", "faults"),
    [(ENDED, [("status", 200)], 0), (THROTTLED, [("status", 429)], 1), (UNREACHABLE, [], 1)],
)
def test_the_call_to_tavus_is_traced(
    xray: Mock, telemetry: Telemetry, result: Result, http_meta: list[tuple[str, int]], faults: int
) -> None:
    call(telemetry, result)

    xray.begin_subsegment.assert_called_once_with(name="Tavus", namespace="remote")
    subsegment = xray.begin_subsegment.return_value
    annotations = dict(put.args for put in subsegment.put_annotation.call_args_list)
    assert annotations == {"status": result.status, "attempts": result.attempts}
    assert [put.args for put in subsegment.put_http_meta.call_args_list] == http_meta
    assert subsegment.add_fault_flag.call_count == faults
    xray.end_subsegment.assert_called_once_with()


def test_a_bug_in_the_call_to_tavus_ends_the_subsegment_and_is_raised(xray: Mock, telemetry: Telemetry) -> None:
    def broken(conversation: Conversation, deadline: Deadline) -> Result:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        telemetry.observe(broken)(CONVERSATION, Deadline(CLOCK, 10, 5))

    xray.end_subsegment.assert_called_once_with()


@pytest.mark.parametrize("result", [ENDED, UNREACHABLE])
@pytest.mark.parametrize(
    ("broken", "ends"),
    [
        ("begin_subsegment", 0),
        ("end_subsegment", 1),
        ("begin_subsegment.return_value.put_annotation", 1),
        ("begin_subsegment.return_value.put_http_meta", 1),
        ("begin_subsegment.return_value.add_fault_flag", 1),
    ],
)
def test_an_answer_survives_a_failing_trace(
    xray: Mock, telemetry: Telemetry, result: Result, broken: str, ends: int
) -> None:
    xray.configure_mock(**{f"{broken}.side_effect": RuntimeError("secret")})

    assert call(telemetry, result) is result
    assert xray.end_subsegment.call_count == ends


@pytest.mark.parametrize("context_missing", ["LOG_ERROR", "RUNTIME_ERROR", "IGNORE_ERROR"])
@pytest.mark.parametrize("result", [ENDED, UNREACHABLE])
def test_an_answer_survives_a_missing_segment(
    telemetry: Telemetry,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    result: Result,
    context_missing: str,
) -> None:
    """X-Ray has a segment only within an invocation on Lambda. Here X-Ray itself runs, without one."""
    monkeypatch.setattr(global_sdk_config, "sdk_enabled", lambda: True)
    monkeypatch.setattr(xray_recorder, "context", XRayContext(context_missing=context_missing))

    assert call(telemetry, result) is result
    # X-Ray raises in one of its modes. In the others, a missing segment is no failure.
    assert ("telemetry failed" in capsys.readouterr().err) is (context_missing == "RUNTIME_ERROR")


@pytest.mark.filterwarnings("ignore:No application metrics")
@pytest.mark.parametrize(
    "broken", ["Metrics.add_metric", "Metrics.add_dimension", "Metrics.flush_metrics", "Logger.info"]
)
def test_an_answer_survives_failing_metrics_or_logs(
    telemetry: Telemetry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """The failure is reported on stderr, without its text. If metrics fail, logs are still written, and the reverse."""
    monkeypatch.setattr(f"aws_lambda_powertools.{broken}", Mock(side_effect=RuntimeError("secret")))

    assert call(telemetry, ENDED) is ENDED

    out, err = capsys.readouterr()
    assert "telemetry failed: RuntimeError" in err
    assert "secret" not in out + err
    assert ('"message":"conversation ended"' in out) is broken.startswith("Metrics")
    assert ('"ended":[1.0]' in out) is broken.startswith("Logger")


@pytest.mark.parametrize("broken", ["Metrics.add_metric", "Logger.info", "Logger.warning", "Logger.error"])
def test_no_report_raises(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    monkeypatch.setattr(f"aws_lambda_powertools.{broken}", Mock(side_effect=RuntimeError))

    telemetry.invalid("http", "invalid_id")
    telemetry.record_failed("Throttling")
    telemetry.publish_failed("Throttling")
    telemetry.armed(CONVERSATION, "2026-11-25T08:37:41Z", Deadline(CLOCK, 10, 5))
    telemetry.timer_failed(CONVERSATION, "Throttling", Deadline(CLOCK, 10, 5))


@pytest.mark.parametrize("junk", ["", "perhaps"])
def test_answers_and_log_lines_survive_a_junk_metrics_switch(
    telemetry: Telemetry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, junk: str
) -> None:
    """Metrics that cannot be flushed do not pile up. With 100 of them, Powertools would fail to add another."""
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", junk)

    assert all(call(telemetry, ENDED) is ENDED for _ in range(110))
    assert capsys.readouterr().out.count('"message":"conversation ended"') == 110


LEVELS = ["trace", "notset", "debug", "info", "warn", "warning", "error", "fatal", "critical"]


def reject(service: str, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Start with these variables, and answer a request, which logs a warning."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    settings = environ | {"ALLOWED_DEPLOYMENT_IDS": "d1", "POWERTOOLS_SERVICE_NAME": service}
    answer: dict[str, Any] = bootstrap(settings)(REQUEST, Context())
    return answer


@pytest.fixture
def service() -> str:
    """A new service, because Powertools keeps one logger per service."""
    return str(uuid4())


@pytest.mark.filterwarnings("ignore:Current log level")
@pytest.mark.parametrize(
    "lambda_log",
    [{}, *({"AWS_LAMBDA_LOG_LEVEL": level, "AWS_LAMBDA_LOG_FORMAT": "JSON"} for level in ["TRACE", "INFO", "FATAL"])],
    ids=["none", "TRACE", "INFO", "FATAL"],
)
@pytest.mark.parametrize("level", [spelled for name in LEVELS for spelled in (name, name.upper(), name.title())])
def test_every_log_level_is_known_and_answers(
    service: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    level: str,
    lambda_log: dict[str, str],
) -> None:
    answer = reject(service, lambda_log | {"POWERTOOLS_LOG_LEVEL": level}, monkeypatch)

    assert answer["statusCode"] == 403
    assert "is not a log level" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("level", "logged"), [("debug", True), ("Warn", True), (" warning ", True), ("error", False), ("Fatal", False)]
)
def test_lines_below_the_log_level_are_not_logged(
    service: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, level: str, logged: bool
) -> None:
    reject(service, {"POWERTOOLS_LOG_LEVEL": level}, monkeypatch)

    assert ('"message":"conversation rejected"' in capsys.readouterr().out) is logged


def test_the_log_level_of_powertools_comes_before_the_older_name(
    service: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reject(f"{service} old", {"LOG_LEVEL": "error"}, monkeypatch)
    assert "conversation rejected" not in capsys.readouterr().out
    reject(f"{service} both", {"LOG_LEVEL": "error", "POWERTOOLS_LOG_LEVEL": "info"}, monkeypatch)
    assert "conversation rejected" in capsys.readouterr().out


@pytest.mark.parametrize("variable", ["POWERTOOLS_LOG_LEVEL", "LOG_LEVEL"])
def test_an_unknown_log_level_is_logged_and_counts_as_info(
    service: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    lambda_log = {"AWS_LAMBDA_LOG_LEVEL": "INFO", "AWS_LAMBDA_LOG_FORMAT": "JSON"}

    answer = reject(service, lambda_log | {variable: "LOUD"}, monkeypatch)

    warned, rejected, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert (warned["level"], warned["message"]) == ("WARNING", f"{variable} is not a log level, so INFO is used")
    assert (answer["statusCode"], rejected["status"]) == (403, "rejected")


def test_a_cold_start_survives_a_log_level_in_lower_case() -> None:
    """Powertools itself raises TypeError for it once Lambda sets AWS_LAMBDA_LOG_LEVEL."""
    lambda_log = {"AWS_LAMBDA_LOG_LEVEL": "INFO", "AWS_LAMBDA_LOG_FORMAT": "JSON"}

    assert "end_conversation.handler" in cold_start(
        lambda_log | {"ALLOWED_DEPLOYMENT_IDS": "d1", "POWERTOOLS_LOG_LEVEL": "warn"}
    )
