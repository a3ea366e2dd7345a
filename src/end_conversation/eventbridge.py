"""The event bus behind one method: publishes a result, once more where that can help, or raises."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from end_conversation.conversation import ResultNotPublished
from end_conversation.deadline import within
from end_conversation.events import RESULT_DETAIL_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

    from end_conversation.deadline import Clock, Deadline

MAX_SECONDS = 2
PAUSE_SECONDS = 0.2
# EventBridge's own words for "try again", in an entry's ErrorCode and in an error's (PutEvents' API reference).
_MAY_PASS = {"InternalFailure", "InternalException", "ServiceUnavailable", "Throttling", "ThrottlingException"}


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
        refusal, may_pass = self._send(entry, deadline.left_with_reserve() / 2)
        if may_pass:
            self._clock.sleep(min(PAUSE_SECONDS, deadline.left_with_reserve() / 2))
            refusal, _ = self._send(entry, deadline.left_with_reserve())
        if refusal:
            raise ResultNotPublished(refusal)

    def _send(self, entry: PutEventsRequestEntryTypeDef, seconds: float) -> tuple[str, bool]:
        """Why the bus did not take the entry (nothing where it did), and whether that may pass."""
        try:
            response = within(min(seconds, MAX_SECONDS), lambda: self._client.put_events(Entries=[entry]))
        except ClientError as error:
            code = error.response["Error"]["Code"]
            return code, code in _MAY_PASS or error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500  # noqa: PLR2004
        except (BotoCoreError, TimeoutError) as error:
            return type(error).__name__, True
        if response.get("FailedEntryCount") == 0:
            return "", False
        match response.get("Entries"):
            case [{"ErrorCode": str(code)}]:
                return code, code in _MAY_PASS
        return "an answer cut short", True
