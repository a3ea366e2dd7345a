"""The event bus behind one method: publishes a result, or raises."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from end_conversation.aws import AwsRefused, ask
from end_conversation.errors import ResultNotPublished
from end_conversation.events import RESULT_DETAIL_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

    from end_conversation.deadline import Clock, Deadline

MAX_SECONDS = 4


class EventBus:
    """Publishes results on one bus, under one source."""

    def __init__(
        self, client: EventBridgeClient, name: str, source: str, trace_header: Callable[[], str | None], clock: Clock
    ) -> None:
        self._client = client
        self._name = name
        self._source = source
        self._trace_header = trace_header
        self._clock = clock

    def publish(self, detail: dict[str, Any], deadline: Deadline) -> None:
        """Put one result on the bus before the deadline. Raises ResultNotPublished with the kind of the failure."""
        entry: PutEventsRequestEntryTypeDef = {
            "EventBusName": self._name,
            "Source": self._source,
            "DetailType": RESULT_DETAIL_TYPE,
            "Detail": json.dumps(detail),
        }
        if trace_header := self._trace_header():
            entry["TraceHeader"] = trace_header
        try:
            ask(lambda: self._put(entry), min(deadline.left(), MAX_SECONDS), self._clock)
        except AwsRefused as refused:
            raise ResultNotPublished(str(refused)) from None

    def _put(self, entry: PutEventsRequestEntryTypeDef) -> None:
        response = self._client.put_events(Entries=[entry])
        if response.get("FailedEntryCount") == 0:
            return
        match response.get("Entries"):
            case [{"ErrorCode": str(code)}]:
                raise AwsRefused(code)
        raise AwsRefused("an answer cut short", may_pass=True)
