"""What an operator sees: log lines, metrics, and the trace of the call to Tavus."""

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, create_autospec
from unittest.mock import call as call_of
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
from local.process import ROOT
from tests.unit.cold_start import run_script
from tests.unit.fakes import Context, FakeClock, sample

CONVERSATION = Conversation("d1", "c1")
CLOCK = FakeClock()
NOW = CLOCK.now()
ENDED = Result(Status.ENDED, None, NOW, 1, 200, "9a1e")
REJECTED = Result(Status.REJECTED, Reason.TAVUS_REJECTED, NOW, 1, 400)
THROTTLED = Result(Status.UNAVAILABLE, Reason.TAVUS_THROTTLED, NOW, 3, 429, failure="HTTP 429")
UNREACHABLE = Result(Status.UNAVAILABLE, Reason.TAVUS_UNREACHABLE, NOW, 1, failure="ConnectionResetError")
DEADLINE = Deadline(CLOCK, 10, 5)

type Captured = tuple[list[dict[str, Any]], dict[str, Any]]
type Capture = Callable[[Callable[[Telemetry], object]], Captured]


@pytest.fixture(autouse=True)
def _no_metrics_left() -> Iterator[None]:
    """Powertools keeps one set of metrics per process."""
    yield
    Metrics().clear_metrics()


@pytest.fixture
def telemetry(request: pytest.FixtureRequest) -> Telemetry:
    # Powertools keeps one logger per service, so each test has its own service. The logger keeps the stdout of its
    # creation, which pytest closes before the test begins.
    created = Telemetry({"POWERTOOLS_METRICS_NAMESPACE": "Test", "POWERTOOLS_SERVICE_NAME": request.node.name})
    handlers: Any = logging.getLogger(request.node.name).handlers
    for handler in handlers:
        handler.setStream(SimpleNamespace(write=lambda text: sys.stdout.writelines([text]), flush=lambda: None))
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
    return lambda telemetry: telemetry.result(trigger, CONVERSATION, result, DEADLINE)


def call(telemetry: Telemetry, result: Result) -> Result:
    """One invocation that calls Tavus. Returns what the caller gets."""

    def handle(event: object, context: object) -> Result:
        observed = telemetry.observe(lambda conversation, deadline: result)(CONVERSATION, DEADLINE)
        telemetry.result("http", CONVERSATION, observed, DEADLINE)
        return observed

    returned: Result = telemetry.instrument(handle)({}, Context())
    return returned


@pytest.mark.parametrize("trigger", ["http", "event"])
@pytest.mark.parametrize(
    ("result", "level"),
    [
        (ENDED, "INFO"),
        (Result(Status.UNCONFIRMED, Reason.UNEXPECTED_ANSWER, NOW, 1, 200), "INFO"),
        (Result(Status.NOT_FOUND, None, NOW, 1, 404), "INFO"),
        (REJECTED, "WARNING"),
        (THROTTLED, "ERROR"),
    ],
)
def test_result_is_one_log_line_and_one_count_by_trigger(
    capture: Capture, trigger: str, result: Result, level: str
) -> None:
    """The line has all that is known. A rejection is a warning, and only `unavailable` is an error.

    The dimensions of the metric are the trigger and the service, and never an id.
    """
    [line], metrics = capture(report(trigger, result))

    known = ("status", "reason", "attempts", "tavus_status_code", "tavus_request_id", "failure")
    expected = {name: getattr(result, name) for name in known}
    expected |= {"level": level, "trigger": trigger, "duration_ms": 0}
    expected |= {"deployment_id": "d1", "conversation_id": "c1", "function_request_id": "r1"}
    assert {name: line.get(name) for name in expected} == expected
    assert (metrics["trigger"], metrics[result.status]) == (trigger, [1.0])
    confirmed = {Status.ENDED: [1.0], Status.UNCONFIRMED: [0.0]}.get(result.status) if trigger == "event" else None
    assert metrics.get("confirmed") == confirmed
    [directive] = metrics["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Test"
    assert [set(dimensions) for dimensions in directive["Dimensions"]] == [{"trigger", "service"}]
    assert "c1" not in json.dumps(metrics)


@pytest.mark.parametrize(
    ("result", "hinted"),
    [
        (REJECTED._replace(tavus_status_code=401), True),
        (REJECTED._replace(tavus_status_code=403), True),
        (REJECTED, False),
        (THROTTLED._replace(tavus_status_code=403), False),
    ],
)
def test_401_and_403_log_an_origin_hint(capture: Capture, result: Result, hinted: bool) -> None:
    """It is unknown whether Tavus checks the Origin header at the end endpoint. A throttle has no hint."""
    [line], _ = capture(report("http", result))

    assert ("TAVUS_ORIGIN" in line.get("hint", "")) is hinted


@pytest.mark.parametrize("status", Status)
def test_a_limit_counts_whether_the_conversation_was_still_running(capture: Capture, status: Status) -> None:
    result = Result(status, None, NOW, 1)

    def work(telemetry: Telemetry) -> None:
        report("event", result)(telemetry)
        telemetry.limit_reached(result)

    _, metrics = capture(work)

    counted = {name for name in metrics if name.startswith("limit_")}
    assert counted == ({f"limit_{status}"} if status in ("ended", "not_found") else set())


def units(metrics: dict[str, Any]) -> dict[str, str]:
    """The unit of each metric."""
    [directive] = metrics["_aws"]["CloudWatchMetrics"]
    return {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}


IDS = {"deployment_id": "d1", "conversation_id": "c1", "duration_ms": 0}
DENIED = {"level": "ERROR", "reason": "Denied"}
ENDS_AT = "2026-11-25T08:37:41Z"
# By metric, which is also what reports it: the arguments, and what the log line has.
REPORTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "invalid": (
        ("event", "invalid_event", "no ids"),
        {
            "trigger": "event",
            "status": "invalid",
            "level": "WARNING",
            "message": "invalid request or event",
            "reason": "invalid_event",
            "detail": "no ids",
        },
    ),
    "record_failed": (
        ("Denied",),
        {"trigger": "event", "message": "the table could not be read or written", **DENIED},
    ),
    "publish_failed": (("Denied",), {"trigger": "event", "message": "the result was not published", **DENIED}),
    "queue_failed": (("not postponed", "Denied"), {"trigger": "event", "message": "not postponed", **DENIED}),
    "armed": (
        (CONVERSATION, ENDS_AT, DEADLINE),
        {"trigger": "timer", "status": "armed", "level": "INFO", "message": "limit set", "ends_at": ENDS_AT, **IDS},
    ),
    "timer_failed": (
        (CONVERSATION, "Denied", DEADLINE),
        {"trigger": "timer", "status": "timer_failed", "message": "limit not set", **IDS, **DENIED},
    ),
}


@pytest.mark.parametrize("metric", REPORTS)
def test_report_is_one_log_line_and_one_count(capture: Capture, metric: str) -> None:
    arguments, expected = REPORTS[metric]

    [line], metrics = capture(lambda telemetry: getattr(telemetry, metric)(*arguments))

    assert {name: line.get(name) for name in expected} == expected
    assert not line.keys() & ({"status", *IDS} - expected.keys())
    assert (metrics["trigger"], metrics[metric]) == (expected["trigger"], [1.0])
    assert units(metrics) == {metric: "Count"}


def test_lateness_is_counted_in_seconds_and_not_logged(capture: Capture) -> None:
    lines, metrics = capture(lambda telemetry: telemetry.late(12.5))

    assert lines == []
    assert (metrics["trigger"], metrics["late"], units(metrics)) == ("event", [12.5], {"late": "Seconds"})


def test_an_answer_is_logged_before_the_record_and_not_counted(capture: Capture) -> None:
    """The record may change the status."""

    def work(telemetry: Telemetry) -> None:
        telemetry.log_answer(CONVERSATION, THROTTLED, DEADLINE)
        telemetry.record_failed("Denied")

    [line, _], metrics = capture(work)

    expected: dict[str, Any] = {
        "level": "INFO",
        "message": "Tavus was called",
        "trigger": "event",
        "reason": "tavus_throttled",
    }
    expected |= {"attempts": 3, "tavus_status_code": 429, "failure": "HTTP 429", **IDS}
    assert {name: line.get(name) for name in expected} == expected
    assert "status" not in line
    assert units(metrics).keys() == {"record_failed"}


@pytest.mark.usefixtures("_in_tokyo")
def test_times_are_in_utc_and_in_the_format_of_rfc_3339(capture: Capture) -> None:
    """Whatever time zone a function is given."""
    [line], _ = capture(report("http", ENDED))

    logged = datetime.fromisoformat(line["timestamp"])
    assert re.fullmatch(r".{10}T.{8}\.[0-9]{3}\+00:00", line["timestamp"])
    assert abs(datetime.now(UTC) - logged) < timedelta(minutes=5)


@pytest.mark.parametrize("result", [ENDED, THROTTLED])
def test_call_to_tavus_is_measured(capture: Capture, result: Result) -> None:
    clock = FakeClock()

    def end(conversation: Conversation, deadline: Deadline) -> Result:
        clock.sleep(1.5)
        return result

    def work(telemetry: Telemetry) -> None:
        deadline = Deadline(clock, 10, 5)
        clock.sleep(1)
        assert telemetry.observe(end)(CONVERSATION, deadline) is result
        telemetry.result("http", CONVERSATION, result, deadline)

    [line], metrics = capture(work)

    assert line["duration_ms"] == 2500
    assert metrics["tavus_latency"] == [1500.0]
    assert metrics["attempts"] == [float(result.attempts)]
    counts = dict.fromkeys(("attempts", str(result.status)), "Count")
    assert units(metrics) == counts | {"tavus_latency": "Milliseconds"}


def test_an_invocation_without_metrics_writes_nothing(telemetry: Telemetry, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as one whose session timeout only waits. Powertools would warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        telemetry.instrument(lambda event, context: None)({}, Context())

    assert capsys.readouterr() == ("", "")


def test_default_service_and_namespace(capfd: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry({})

    telemetry.instrument(lambda event, context: telemetry.invalid("http", "invalid_id"))({}, Context())

    metrics = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert metrics["service"] == "end-conversation"
    assert metrics["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "EndConversation"


def test_trace_header_is_that_of_the_current_invocation() -> None:
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

    def create_tracer(*, service: str, auto_patch: bool) -> Mock:
        assert service
        assert not auto_patch, "patching takes a third of the cold start"
        return Mock(provider=recorder)

    monkeypatch.setattr("aws_lambda_powertools.Tracer", create_tracer)
    return recorder


@pytest.mark.parametrize(
    ("result", "http_meta", "faults"),
    [(ENDED, [("status", 200)], 0), (THROTTLED, [("status", 429)], 1), (UNREACHABLE, [], 1)],
)
def test_call_to_tavus_is_traced(
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


def test_bug_ends_the_subsegment_and_is_raised(xray: Mock, telemetry: Telemetry) -> None:
    def broken(conversation: Conversation, deadline: Deadline) -> Result:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        telemetry.observe(broken)(CONVERSATION, DEADLINE)

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
    """The failure is reported on stderr, without its text. If metrics fail, logs are still written, and vice versa."""
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

    for name, (arguments, _) in REPORTS.items():
        getattr(telemetry, name)(*arguments)


def test_an_exit_is_no_failure_of_the_telemetry(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aws_lambda_powertools.Logger.warning", Mock(side_effect=SystemExit))

    with pytest.raises(SystemExit):
        telemetry.invalid("http", "invalid_id")


@pytest.mark.parametrize("junk", ["", "perhaps"])
def test_answers_and_log_lines_survive_a_junk_metrics_switch(
    telemetry: Telemetry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, junk: str
) -> None:
    """Metrics that cannot be flushed do not pile up. With 100 of them, Powertools would fail to add another."""
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", junk)

    assert all(call(telemetry, ENDED) is ENDED for _ in range(110))
    assert capsys.readouterr().out.count('"message":"conversation ended"') == 110


type Start = Callable[[dict[str, str]], list[dict[str, Any]]]


@pytest.fixture
def start(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start with these variables, and answer a request that is rejected. Returns the log lines."""

    def run(environ: dict[str, str]) -> list[dict[str, Any]]:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        # Powertools keeps one logger per service.
        handler = bootstrap(environ | {"ALLOWED_DEPLOYMENT_IDS": "d1", "POWERTOOLS_SERVICE_NAME": str(uuid4())})
        assert handler(sample("http-api"), Context())["statusCode"] == 403
        return [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if "level" in line]

    return run


LAMBDA_LOG = {"AWS_LAMBDA_LOG_LEVEL": "INFO", "AWS_LAMBDA_LOG_FORMAT": "JSON"}


@pytest.mark.filterwarnings("ignore:Current log level")
@pytest.mark.parametrize("lambda_log", [{}, *(LAMBDA_LOG | {"AWS_LAMBDA_LOG_LEVEL": x} for x in ("TRACE", "FATAL"))])
@pytest.mark.parametrize("level", ["trace", "notset", "debug", "info", "warn", "warning", "error", "fatal", "critical"])
def test_every_log_level_is_known(start: Start, level: str, lambda_log: dict[str, str]) -> None:
    """Powertools itself accepts only some spellings."""
    for spelled in (level, level.upper(), level.title()):
        lines = start(lambda_log | {"POWERTOOLS_LOG_LEVEL": spelled})

        assert not any("is not a log level" in line["message"] for line in lines)


@pytest.mark.parametrize(
    ("environ", "logged"),
    [
        ({"POWERTOOLS_LOG_LEVEL": "debug"}, True),
        ({"POWERTOOLS_LOG_LEVEL": "Warn"}, True),
        ({"POWERTOOLS_LOG_LEVEL": " warning "}, True),
        ({"POWERTOOLS_LOG_LEVEL": "error"}, False),
        ({"POWERTOOLS_LOG_LEVEL": "Fatal"}, False),
        ({"LOG_LEVEL": "error"}, False),
        ({"LOG_LEVEL": "error", "POWERTOOLS_LOG_LEVEL": "info"}, True),
    ],
    ids=str,
)
def test_lines_below_the_log_level_are_not_logged(start: Start, environ: dict[str, str], logged: bool) -> None:
    """Powertools' variable comes before the older name."""
    assert [line["message"] for line in start(environ)] == ["conversation rejected"] * logged


@pytest.mark.parametrize("variable", ["POWERTOOLS_LOG_LEVEL", "LOG_LEVEL"])
def test_an_unknown_log_level_is_logged_and_counts_as_info(start: Start, variable: str) -> None:
    warned, rejected = start(LAMBDA_LOG | {variable: "LOUD"})

    assert (warned["level"], warned["message"]) == ("WARNING", f"{variable} is not a log level, so INFO is used")
    assert rejected["status"] == "rejected"


SWITCHES = ("DEBUG", "DEV", "LOG_DEDUPLICATION_DISABLED", "METRICS_DISABLED", "TRACE_DISABLED")
JUNK = {
    **{f"POWERTOOLS_{switch}": "maybe" for switch in SWITCHES},
    "POWERTOOLS_LOGGER_SAMPLE_RATE": "abc",
    "AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1",
}
ANSWER_ONE = """
from end_conversation.handler import handler
from tests.unit.fakes import Context, sample
assert handler(sample("http-api"), Context())["statusCode"] == 403
"""


@pytest.mark.parametrize("junk", [*JUNK, "all"])
def test_an_invalid_setting_of_telemetry_costs_no_answer(junk: str) -> None:
    """Powertools and the X-Ray SDK raise for each of them. The log names it."""
    environ = JUNK if junk == "all" else {junk: JUNK[junk]}
    path = f"{ROOT / 'src'}{os.pathsep}{ROOT}"

    lines = [json.loads(line) for line in run_script(ANSWER_ONE, environ | {"ALLOWED_DEPLOYMENT_IDS": "d1"}, path)]

    messages = [line["message"] for line in lines if "level" in line]
    *warned, rejected = messages
    assert rejected == "conversation rejected"
    assert [name in line for name, line in zip(environ, warned, strict=True)] == [True] * len(environ)
    assert any(line.get("rejected") == [1.0] for line in lines)


@pytest.mark.parametrize(
    ("name", "value", "ignored"),
    [
        *((name, value, True) for name, value in JUNK.items() if name.startswith("POWERTOOLS_")),
        *((f"POWERTOOLS_{switch}", value, False) for switch in SWITCHES for value in ("0", "F", "off", "no", "False")),
        *(("POWERTOOLS_LOGGER_SAMPLE_RATE", value, False) for value in ("0", "0.5", "1")),
    ],
)
def test_an_ignored_setting_is_named(
    name: str, value: str, ignored: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And removed, because Powertools would read it."""
    monkeypatch.setenv(name, value)

    Telemetry({"POWERTOOLS_SERVICE_NAME": str(uuid4())})

    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    named = [(line["level"], line["message"]) for line in lines]
    assert named == ([("WARNING", f"{name} has an invalid value and is ignored")] if ignored else [])
    assert (name in os.environ) is not ignored


@pytest.mark.parametrize(
    ("switch", "traced"),
    [
        ({}, True),
        *(({"POWERTOOLS_TRACE_DISABLED": on}, on in ("false", "")) for on in ("true", "TRUE", "1", "false", "")),
    ],
)
def test_tracing_can_be_disabled(switch: dict[str, str], traced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the X-Ray SDK is not loaded."""
    create_xray = Mock()
    monkeypatch.setattr("end_conversation.telemetry._create_xray", create_xray)

    Telemetry({"POWERTOOLS_SERVICE_NAME": "traced"} | switch)

    assert create_xray.mock_calls == ([call_of("traced")] if traced else [])


def test_an_x_ray_sdk_that_does_not_start_is_logged(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("end_conversation.telemetry._create_xray", Mock(side_effect=ValueError))

    telemetry = Telemetry({"POWERTOOLS_SERVICE_NAME": "no-x-ray"})

    [line] = map(json.loads, capfd.readouterr().out.splitlines())
    text = "the X-Ray SDK did not start, so nothing is traced (ValueError): check AWS_XRAY_DAEMON_ADDRESS"
    assert (line["level"], line["message"]) == ("WARNING", text)
    assert call(telemetry, ENDED) is ENDED


@pytest.mark.parametrize("name", [f"POWERTOOLS_{switch}" for switch in SWITCHES])
def test_an_empty_switch_counts_as_unset(start: Start, name: str) -> None:
    assert [line["message"] for line in start({name: ""})] == ["conversation rejected"]
