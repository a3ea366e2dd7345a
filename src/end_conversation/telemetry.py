"""What an operator sees: a log line, metrics and a trace of each invocation, by Powertools.

Nothing here logs an event, a header or a body, and ids only once they are checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit

from end_conversation.conversation import Status
from end_conversation.errors import InvalidSetting, TavusUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    from end_conversation.conversation import Conversation, End, Result
    from end_conversation.deadline import Deadline
    from end_conversation.errors import RecordUnavailable, ResultNotPublished

    type Door = Literal["http", "event"]

_ORIGIN_HINT = "Tavus may check the Origin: set TAVUS_ORIGIN to one that the deployment allows"


class Telemetry:
    """Logger, Metrics and Tracer of one deployment, set by Powertools' own variables. Raises InvalidSetting."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        service = environ.get("POWERTOOLS_SERVICE_NAME") or "end-conversation"
        try:
            self._logger = Logger(service=service, utc=True, use_rfc3339=True, location=None)
        except ValueError:
            levels = "DEBUG, INFO, WARNING, ERROR or CRITICAL"
            raise InvalidSetting(f"POWERTOOLS_LOG_LEVEL must be {levels} (and so must LOG_LEVEL)") from None
        self._metrics = Metrics(
            namespace=environ.get("POWERTOOLS_METRICS_NAMESPACE") or "EndConversation", service=service
        )
        self._environ = environ
        # urllib3 2 is not among the libraries that the Tracer patches; not patching saves a third of the cold start.
        self._tracer = Tracer(service=service, auto_patch=False)

    def instrument(self, handler: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Let a Lambda handler log its context, never its event, and flush its metrics.

        Lambda traces the invocation itself; a subsegment of our own around it would cost as much as Tavus' does.
        """
        measured = self._metrics.log_metrics(handler)
        return self._logger.inject_lambda_context(measured, log_event=False, clear_state=True)

    def observe(self, end: End) -> End:
        """Trace and measure what is asked of Tavus."""

        def observed(conversation: Conversation, deadline: Deadline) -> Result:
            outcome: Result | TavusUnavailable
            subsegment: Any  # Powertools' type of it knows less than X-Ray's
            begun = deadline.elapsed()
            with self._tracer.provider.in_subsegment(name="Tavus", namespace="remote") as subsegment:
                try:
                    outcome = end(conversation, deadline)
                except TavusUnavailable as unavailable:
                    outcome = unavailable
                    subsegment.add_fault_flag()
                if outcome.tavus_status_code is not None:
                    subsegment.put_http_meta("status", outcome.tavus_status_code)
                subsegment.put_annotation("status", str(outcome.status))
                subsegment.put_annotation("attempts", outcome.attempts)
            milliseconds = (deadline.elapsed() - begun) * 1000
            self._metrics.add_metric("tavus_latency", MetricUnit.Milliseconds, milliseconds)
            self._metrics.add_metric("attempts", MetricUnit.Count, outcome.attempts)
            # One or zero, so that its average is a share that an alarm can go by.
            self._metrics.add_metric("tavus_answered", MetricUnit.Count, not isinstance(outcome, TavusUnavailable))
            if isinstance(outcome, TavusUnavailable):
                raise outcome
            return outcome

        return observed

    def trace_header(self) -> str | None:
        """Give the X-Ray trace header of this invocation, which Lambda's runtime sets for each."""
        return self._environ.get("_X_AMZN_TRACE_ID")

    def outcome(
        self,
        door: Door,
        conversation: Conversation,
        outcome: Result | TavusUnavailable,
        deadline: Deadline,
    ) -> None:
        """Log and count what became of a conversation."""
        self._count(door, outcome.status)
        fields = {
            "trigger": door,
            "deployment_id": conversation.deployment_id,
            "conversation_id": conversation.conversation_id,
            "status": outcome.status,
            "reason": outcome.reason,
            "attempts": outcome.attempts,
            "tavus_status_code": outcome.tavus_status_code,
            "tavus_request_id": outcome.tavus_request_id,
            "duration_ms": round(deadline.elapsed() * 1000),
        }
        if outcome.tavus_status_code in (401, 403):
            fields["hint"] = _ORIGIN_HINT
        if isinstance(outcome, TavusUnavailable):
            self._logger.error(str(outcome), extra=fields)
        elif outcome.status is Status.REJECTED:
            self._logger.warning("conversation end rejected", extra=fields)
        else:
            self._logger.info("conversation end decided", extra=fields)

    def invalid(self, door: Door, reason: str) -> None:
        """Log and count a request or event that names no conversation."""
        self._count(door, "invalid")
        fields = {"trigger": door, "status": "invalid", "reason": reason}
        self._logger.warning("no conversation named", extra=fields)

    def record_failed(self, error: RecordUnavailable) -> None:
        """Log and count that the table of ended conversations was of no help."""
        self._metrics.add_metric("record_failed", MetricUnit.Count, 1)
        self._logger.error("the table of ended conversations failed", extra={"reason": str(error)})

    def publish_failed(self, error: ResultNotPublished) -> None:
        """Log and count that the event bus did not take a result."""
        self._metrics.add_metric("publish_failed", MetricUnit.Count, 1)
        self._logger.error("the result was not published", extra={"reason": str(error)})

    def _count(self, door: Door, status: str) -> None:
        self._metrics.add_dimension("trigger", door)
        self._metrics.add_metric(status, MetricUnit.Count, 1)
