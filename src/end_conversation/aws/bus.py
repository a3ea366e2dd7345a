"""The event bus that results are published on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from end_conversation.aws.client import RETRYABLE_CODES, call_with_retry, error_code
from end_conversation.errors import AwsCallFailed, ResultNotPublished

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

    from end_conversation.deadline import Clock, Deadline


MAX_TRACE_HEADER = 500  # PutEvents refuses a longer one


class EventBus:
    """Publishes events under one source. `trace_header` returns the X-Ray trace header of the invocation."""

    def __init__(
        self, client: EventBridgeClient, name: str, source: str, trace_header: Callable[[], str | None], clock: Clock
    ) -> None:
        self._client = client
        self._name = name
        self._source = source
        self._trace_header = trace_header
        self._clock = clock

    def publish(self, detail_type: str, detail: dict[str, Any], deadline: Deadline) -> None:
        """Put one event on the bus. Raises ResultNotPublished with the kind of the failure."""
        entry: PutEventsRequestEntryTypeDef = {
            "EventBusName": self._name,
            "Source": self._source,
            "DetailType": detail_type,
            "Detail": json.dumps(detail),
        }
        trace_header = self._trace_header()
        if trace_header and len(trace_header) <= MAX_TRACE_HEADER:
            entry["TraceHeader"] = trace_header
        try:
            call_with_retry(lambda: self._put(entry), deadline, self._clock)
        except AwsCallFailed as error:
            raise ResultNotPublished(error.kind) from None

    def _put(self, entry: PutEventsRequestEntryTypeDef) -> None:
        response = self._client.put_events(Entries=[entry])
        # PutEvents reports a refused entry within a 200. A truncated 200 has no FailedEntryCount at all.
        if response.get("FailedEntryCount") == 0:
            return
        match response.get("Entries"):
            case [{"ErrorCode": str(code)}]:
                raise AwsCallFailed(error_code(code), retryable=code in RETRYABLE_CODES)
        raise AwsCallFailed("IncompleteAnswer", retryable=True)
