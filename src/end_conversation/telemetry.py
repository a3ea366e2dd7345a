"""Logs, metrics and traces, with Powertools.

Nothing here logs an event, a header or a body, and ids are logged only after validation. Telemetry that fails or is
misconfigured never prevents an answer.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from end_conversation.conversation import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    from end_conversation.conversation import Conversation, Result
    from end_conversation.deadline import Deadline
    from end_conversation.ending import EndConversation

    type Trigger = Literal["http", "event", "timer"]

# Maps every level name that Lambda or Powertools accepts to Powertools' spelling. For any other spelling, Powertools
# raises TypeError when Lambda sets AWS_LAMBDA_LOG_LEVEL.
_LOG_LEVELS = {level: level for level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}
_LOG_LEVELS |= {"TRACE": "DEBUG", "NOTSET": "DEBUG", "WARN": "WARNING", "FATAL": "CRITICAL"}
# For another value of these, Powertools raises ValueError when it is imported or its classes are created.
_SWITCHES = ("DEBUG", "DEV", "LOG_DEDUPLICATION_DISABLED", "METRICS_DISABLED", "TRACE_DISABLED")
_ON, _OFF = {"1", "y", "yes", "t", "true", "on"}, {"0", "n", "no", "f", "false", "off"}
_ORIGIN_HINT = "Tavus may check the Origin header: set TAVUS_ORIGIN to an origin that the deployment allows"


class Telemetry:
    """The Logger, the Metrics and the Tracer of a deployment, configured by Powertools' own variables.

    Without `traces_tavus`, calls to Tavus get no trace subsegment, and the Tracer is not loaded.
    """

    def __init__(self, environ: Mapping[str, str], *, traces_tavus: bool = True) -> None:
        removed = _remove_invalid_settings()
        # Powertools reads its settings when it is imported and when its classes are created.
        from aws_lambda_powertools import Logger, Metrics

        service = environ.get("POWERTOOLS_SERVICE_NAME") or "end-conversation"
        namespace = environ.get("POWERTOOLS_METRICS_NAMESPACE") or "EndConversation"
        variable = "POWERTOOLS_LOG_LEVEL" if environ.get("POWERTOOLS_LOG_LEVEL") else "LOG_LEVEL"
        level = _LOG_LEVELS.get((environ.get(variable) or "INFO").strip().upper())
        self._logger = Logger(service=service, level=level or "INFO", utc=True, use_rfc3339=True, location=None)
        if level is None:
            self._logger.warning("%s is not a log level, so INFO is used", variable)
        for name in removed:
            self._logger.warning("%s has an invalid value and is ignored", name)
        self._metrics = Metrics(namespace=namespace, service=service)
        self._xray: Any = None
        # The X-Ray SDK takes 6 % of a cold start.
        if traces_tavus and environ.get("POWERTOOLS_TRACE_DISABLED", "").lower() not in _ON:
            try:
                self._xray = _create_xray(service)
            except Exception as error:  # noqa: BLE001 - the SDK is another project's
                text = "the X-Ray SDK did not start, so nothing is traced (%s): check AWS_XRAY_DAEMON_ADDRESS"
                self._logger.warning(text, type(error).__name__)
        self._environ = environ

    def instrument(self, handler: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Wrap a Lambda handler: its log lines name the invocation, and its metrics are flushed.

        Lambda traces the invocation itself, so there is no subsegment for it.
        """

        def measured(event: Any, context: Any) -> Any:
            try:
                return handler(event, context)
            finally:
                with _NEVER_RAISING:
                    if self._metrics.provider.metric_set:  # there is none if a session timeout only waits
                        self._metrics.flush_metrics()
                self._metrics.clear_metrics()  # in case flushing failed

        return self._logger.inject_lambda_context(measured, log_event=False)

    def observe(self, end_conversation: EndConversation) -> EndConversation:
        """Wrap the call to Tavus: it gets a trace subsegment, and its latency and attempts are measured."""

        def observed(conversation: Conversation, deadline: Deadline) -> Result:
            start = deadline.elapsed()
            subsegment = self._begin_subsegment()
            try:
                result = end_conversation(conversation, deadline)
                with _NEVER_RAISING:
                    self._measure_tavus(result, deadline.elapsed() - start)
                if subsegment is not None:
                    with _NEVER_RAISING:
                        _annotate(subsegment, result)
                return result
            finally:
                if subsegment is not None:
                    with _NEVER_RAISING:
                        self._xray.end_subsegment()

        return observed

    def _begin_subsegment(self) -> Any:
        """Return None if nothing is traced, and also if X-Ray has no segment for this invocation."""
        if self._xray is not None:
            with _NEVER_RAISING:
                return self._xray.begin_subsegment(name="Tavus", namespace="remote")
        return None

    def trace_header(self) -> str | None:
        """Return the X-Ray trace header of the current invocation. Lambda's runtime sets it for each invocation."""
        return self._environ.get("_X_AMZN_TRACE_ID")

    def result(self, trigger: Trigger, conversation: Conversation, result: Result, deadline: Deadline) -> None:
        """Log and count the result of an invocation."""
        self.log_result(trigger, conversation, result, deadline)
        self.count_result(trigger, result)

    def log_answer(self, conversation: Conversation, result: Result, deadline: Deadline) -> None:
        """Log Tavus' answer to a session timeout, before the record is used."""
        self._log(self._logger.info, "Tavus was called", "event", None, _result_fields(conversation, result, deadline))

    def log_result(self, trigger: Trigger, conversation: Conversation, result: Result, deadline: Deadline) -> None:
        """Log the result of an invocation."""
        fields = _result_fields(conversation, result, deadline)
        if result.tavus_status_code in (401, 403) and result.status is not Status.UNAVAILABLE:
            fields["hint"] = _ORIGIN_HINT
        logs = {Status.UNAVAILABLE: self._logger.error, Status.REJECTED: self._logger.warning}
        log = logs.get(result.status, self._logger.info)
        self._log(log, f"conversation {result.status}", trigger, result.status, fields)

    def count_result(self, trigger: Trigger, result: Result) -> None:
        """Count the result of an invocation."""
        self._count(trigger, result.status)
        if trigger == "event" and result.status in (Status.ENDED, Status.UNCONFIRMED):
            # 1 or 0: an alarm goes off if the maximum is 0, because then Tavus confirms nothing.
            self._count(trigger, "confirmed", result.status is Status.ENDED)

    def invalid(self, trigger: Trigger, reason: str, detail: str | None = None) -> None:
        """Log and count an invalid request or event. `detail` says what is wrong with an event that nobody answers."""
        fields = {"reason": reason, "detail": detail}
        self._log(self._logger.warning, "invalid request or event", trigger, "invalid", fields)
        self._count(trigger, "invalid")

    def armed(self, conversation: Conversation, ends_at: str, deadline: Deadline) -> None:
        """Log and count that a conversation has a limit. `ends_at` is its time, as in the answer."""
        fields = _conversation_fields(conversation, deadline) | {"ends_at": ends_at}
        self._log(self._logger.info, "limit set", "timer", "armed", fields)
        self._count("timer", "armed")

    def limit_reached(self, result: Result) -> None:
        """Count whether a conversation was still running at its limit. This is what limits save."""
        if result.status in (Status.ENDED, Status.NOT_FOUND):
            self._count("event", f"limit_{result.status}")

    def timer_failed(self, conversation: Conversation, kind: str, deadline: Deadline) -> None:
        """Log and count that a limit could not be set."""
        fields = _conversation_fields(conversation, deadline) | {"reason": kind}
        self._log(self._logger.error, "limit not set", "timer", "timer_failed", fields)
        self._count("timer", "timer_failed")

    def record_failed(self, kind: str) -> None:
        """Log and count that the table of ended conversations failed."""
        self._aws_failed("the table could not be read or written", "record_failed", kind)

    def publish_failed(self, kind: str) -> None:
        """Log and count that the event bus did not accept a result."""
        self._aws_failed("the result was not published", "publish_failed", kind)

    def late(self, seconds: float) -> None:
        """Emit how late a session timeout will be when it is tried again."""
        self._count("event", "late", seconds, "Seconds")

    def queue_failed(self, message: str, kind: str) -> None:
        """Log and count that a queue refused a call. `message` says what was not done."""
        self._aws_failed(message, "queue_failed", kind)

    def _aws_failed(self, message: str, metric: str, kind: str) -> None:
        self._log(self._logger.error, message, "event", None, {"reason": kind})
        self._count("event", metric)

    def _log(
        self, log: Callable[..., None], message: str, trigger: Trigger, status: str | None, fields: dict[str, Any]
    ) -> None:
        with _NEVER_RAISING:
            log(message, extra={"trigger": trigger, "status": status} | fields)

    def _count(self, trigger: Trigger, metric: str, value: float = 1, unit: str = "Count") -> None:
        with _NEVER_RAISING:
            self._metrics.add_dimension("trigger", trigger)
            self._metrics.add_metric(metric, unit, value)

    def _measure_tavus(self, result: Result, seconds: float) -> None:
        self._metrics.add_metric("tavus_latency", "Milliseconds", seconds * 1000)
        self._metrics.add_metric("attempts", "Count", result.attempts)


def _annotate(subsegment: Any, result: Result) -> None:
    if result.status is Status.UNAVAILABLE:
        subsegment.add_fault_flag()
    if result.tavus_status_code is not None:
        subsegment.put_http_meta("status", result.tavus_status_code)
    subsegment.put_annotation("status", str(result.status))
    subsegment.put_annotation("attempts", result.attempts)


def _conversation_fields(conversation: Conversation, deadline: Deadline) -> dict[str, Any]:
    return {
        "deployment_id": conversation.deployment_id,
        "conversation_id": conversation.conversation_id,
        "duration_ms": round(deadline.elapsed() * 1000),
    }


def _result_fields(conversation: Conversation, result: Result, deadline: Deadline) -> dict[str, Any]:
    return _conversation_fields(conversation, deadline) | {
        "reason": result.reason,
        "attempts": result.attempts,
        "tavus_status_code": result.tavus_status_code,
        "tavus_request_id": result.tavus_request_id,
        "failure": result.failure,
    }


def _remove_invalid_settings() -> list[str]:
    """Remove variables that Powertools would not start with. Returns the names of those that were not empty."""
    environ = os.environ  # which Powertools itself reads
    invalid = [
        name
        for name in (f"POWERTOOLS_{switch}" for switch in _SWITCHES)
        if environ.get(name, "0").lower() not in _ON | _OFF
    ]
    try:
        float(environ.get("POWERTOOLS_LOGGER_SAMPLE_RATE", "0"))
    except ValueError:
        invalid.append("POWERTOOLS_LOGGER_SAMPLE_RATE")
    removed = {name: environ.pop(name) for name in invalid}
    return [name for name, value in removed.items() if value]


def _create_xray(service: str) -> Any:  # Any, because Powertools' type for its provider lacks X-Ray's methods
    from aws_lambda_powertools import Tracer

    # The Tracer cannot patch urllib3 2, and patching other libraries takes a third of the cold start.
    return Tracer(service=service, auto_patch=False).provider


class _NeverRaising:
    """Reports a failure of the telemetry on stderr, which Lambda logs, and goes on."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> bool:
        # Telemetry can fail in any way, and no failure may prevent an answer.
        if not isinstance(error, Exception):
            return False
        print(f"telemetry failed: {type(error).__name__}", file=sys.stderr)  # noqa: T201 - the logger may be what failed
        return True


_NEVER_RAISING = _NeverRaising()
