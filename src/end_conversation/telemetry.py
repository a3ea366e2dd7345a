"""Logs, metrics and traces, with Powertools.

Nothing here logs an event, a header or a body, and ids are logged only after validation. A telemetry failure never
prevents an answer.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit

from end_conversation.conversation import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Literal

    from end_conversation.conversation import Conversation, Result
    from end_conversation.deadline import Deadline
    from end_conversation.ending import EndConversation

    type Trigger = Literal["http", "event", "timer"]

# Maps every level name that Lambda or Powertools accepts to Powertools' spelling. For any other spelling, Powertools
# raises TypeError when Lambda sets AWS_LAMBDA_LOG_LEVEL.
_LOG_LEVELS = {
    "TRACE": "DEBUG",
    "NOTSET": "DEBUG",
    "DEBUG": "DEBUG",
    "INFO": "INFO",
    "WARN": "WARNING",
    "WARNING": "WARNING",
    "ERROR": "ERROR",
    "FATAL": "CRITICAL",
    "CRITICAL": "CRITICAL",
}
_ORIGIN_HINT = "Tavus may check the Origin header: set TAVUS_ORIGIN to an origin that the deployment allows"


class Telemetry:
    """The Logger, the Metrics and the Tracer of a deployment, configured by Powertools' own variables."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        service = environ.get("POWERTOOLS_SERVICE_NAME") or "end-conversation"
        namespace = environ.get("POWERTOOLS_METRICS_NAMESPACE") or "EndConversation"
        variable = "POWERTOOLS_LOG_LEVEL" if environ.get("POWERTOOLS_LOG_LEVEL") else "LOG_LEVEL"
        level = _LOG_LEVELS.get((environ.get(variable) or "INFO").strip().upper())
        self._logger = Logger(service=service, level=level or "INFO", utc=True, use_rfc3339=True, location=None)
        if level is None:
            self._logger.warning("%s is not a log level, so INFO is used", variable)
        self._metrics = Metrics(namespace=namespace, service=service)
        # The Tracer cannot patch urllib3 2, and patching other libraries takes a third of the cold start.
        # Any, because Powertools' type for its provider lacks these X-Ray methods.
        self._xray: Any = Tracer(service=service, auto_patch=False).provider
        self._environ = environ

    def instrument(self, handler: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Wrap a Lambda handler: its log lines name the invocation, and its metrics are flushed.

        Lambda traces the invocation itself, so there is no subsegment for it.
        """

        def measured(event: Any, context: Any) -> Any:
            try:
                return handler(event, context)
            finally:
                with _never_raising():
                    self._metrics.flush_metrics()
                self._metrics.clear_metrics()  # in case flushing failed

        return self._logger.inject_lambda_context(measured, log_event=False)

    def observe(self, end_conversation: EndConversation) -> EndConversation:
        """Wrap the call to Tavus: it gets a trace subsegment, and its latency and attempts are measured."""

        def observed(conversation: Conversation, deadline: Deadline) -> Result:
            start = deadline.elapsed()
            subsegment: Any = None
            with _never_raising():
                subsegment = self._xray.begin_subsegment(name="Tavus", namespace="remote")
            try:
                result = end_conversation(conversation, deadline)
                with _never_raising():
                    self._measure_tavus(result, deadline.elapsed() - start)
                with _never_raising():
                    self._annotate(subsegment, result)
                return result
            finally:
                # X-Ray returns no subsegment if there is no segment.
                if subsegment is not None:
                    with _never_raising():
                        self._xray.end_subsegment()

        return observed

    def trace_header(self) -> str | None:
        """Return the X-Ray trace header of the current invocation. Lambda's runtime sets it for each invocation."""
        return self._environ.get("_X_AMZN_TRACE_ID")

    def result(self, trigger: Trigger, conversation: Conversation, result: Result, deadline: Deadline) -> None:
        """Log and count the result of an invocation."""
        fields = _fields(conversation, deadline) | {
            "reason": result.reason,
            "attempts": result.attempts,
            "tavus_status_code": result.tavus_status_code,
            "tavus_request_id": result.tavus_request_id,
            "failure": result.failure,
        }
        if result.tavus_status_code in (401, 403):
            fields["hint"] = _ORIGIN_HINT
        logs = {Status.UNAVAILABLE: self._logger.error, Status.REJECTED: self._logger.warning}
        self._report(
            logs.get(result.status, self._logger.info), f"conversation {result.status}", result.status, trigger, fields
        )

    def invalid(self, trigger: Trigger, reason: str, detail: str | None = None) -> None:
        """Log and count an invalid request or event. `detail` says what is wrong with an event that nobody answers."""
        fields = {"reason": reason, "detail": detail}
        self._report(self._logger.warning, "invalid request or event", "invalid", trigger, fields)

    def armed(self, conversation: Conversation, ends_at: str, deadline: Deadline) -> None:
        """Log and count that a conversation has a limit. `ends_at` is its time, as in the answer."""
        self._report(
            self._logger.info, "limit set", "armed", "timer", _fields(conversation, deadline) | {"ends_at": ends_at}
        )

    def limit_reached(self, result: Result) -> None:
        """Count whether a conversation was still running at its limit. This is what limits save."""
        if result.status in (Status.ENDED, Status.NOT_FOUND):
            with _never_raising():
                self._metrics.add_metric(f"limit_{result.status}", MetricUnit.Count, 1)

    def timer_failed(self, conversation: Conversation, kind: str, deadline: Deadline) -> None:
        """Log and count that a limit could not be set."""
        fields = _fields(conversation, deadline) | {"reason": kind}
        self._report(self._logger.error, "limit not set", "timer_failed", "timer", fields)

    def record_failed(self, kind: str) -> None:
        """Log and count that the table of ended conversations failed."""
        self._report(
            self._logger.error, "the table of ended conversations failed", "record_failed", None, {"reason": kind}
        )

    def publish_failed(self, kind: str) -> None:
        """Log and count that the event bus did not accept a result."""
        self._report(self._logger.error, "the result was not published", "publish_failed", None, {"reason": kind})

    def queue_failed(self, kind: str) -> None:
        """Log and count that a message could not be postponed, or not be copied to the failed queue."""
        self._report(self._logger.error, "a queue did not take a request", "queue_failed", "event", {"reason": kind})

    def _report(
        self, log: Callable[..., None], message: str, status: str, trigger: Trigger | None, fields: dict[str, Any]
    ) -> None:
        """Write one log line, and count `status`. A status of an invocation has a trigger."""
        if trigger is not None:
            fields = {"trigger": trigger, "status": status} | fields
        with _never_raising():
            log(message, extra=fields)
        with _never_raising():
            if trigger is not None:
                self._metrics.add_dimension("trigger", trigger)
            self._metrics.add_metric(status, MetricUnit.Count, 1)

    def _measure_tavus(self, result: Result, seconds: float) -> None:
        self._metrics.add_metric("tavus_latency", MetricUnit.Milliseconds, seconds * 1000)
        self._metrics.add_metric("attempts", MetricUnit.Count, result.attempts)
        # 1 or 0: the average is the share of answered calls, which an alarm watches.
        self._metrics.add_metric("tavus_answered", MetricUnit.Count, result.status is not Status.UNAVAILABLE)

    def _annotate(self, subsegment: Any, result: Result) -> None:
        if subsegment is None:
            return
        if result.status is Status.UNAVAILABLE:
            subsegment.add_fault_flag()
        if result.tavus_status_code is not None:
            subsegment.put_http_meta("status", result.tavus_status_code)
        subsegment.put_annotation("status", str(result.status))
        subsegment.put_annotation("attempts", result.attempts)


def _fields(conversation: Conversation, deadline: Deadline) -> dict[str, Any]:
    return {
        "deployment_id": conversation.deployment_id,
        "conversation_id": conversation.conversation_id,
        "duration_ms": round(deadline.elapsed() * 1000),
    }


@contextmanager
def _never_raising() -> Iterator[None]:
    """Report a failure of the telemetry on stderr, which Lambda logs, and go on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - telemetry can fail in any way, and no failure may prevent an answer
        print(f"telemetry failed: {type(error).__name__}", file=sys.stderr)  # noqa: T201 - the logger may be what failed
