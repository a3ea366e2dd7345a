"""The EventBridge Scheduler group that holds one schedule for each conversation with a limit."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from end_conversation.aws.client import PAUSE_SECONDS, call_with_retry, expect_time_for_a_try
from end_conversation.deadline import ThreadNotStarted, run_with_timeout
from end_conversation.errors import AwsCallFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_scheduler import EventBridgeSchedulerClient

    from end_conversation.conversation import Conversation
    from end_conversation.deadline import Clock, Deadline

_AT = "at(%Y-%m-%dT%H:%M:%S)"


class Schedules:
    """Keeps one-time schedules in a group. `target` is the Target of each schedule, without its Input."""

    def __init__(self, client: EventBridgeSchedulerClient, group: str, target: Mapping[str, Any], clock: Clock) -> None:
        self._client = client
        self._group = group
        self._target = target
        self._clock = clock

    def put(self, conversation: Conversation, ends_at: datetime, deadline: Deadline) -> datetime:
        """Schedule a session timeout at `ends_at` (UTC, whole seconds), unless the conversation has an earlier one.

        Returns the time that stands. Asks Scheduler at most twice to create the schedule. Raises AwsCallFailed.
        """
        schedule = self._schedule(conversation, ends_at)
        try:
            # In a worker thread, because a caller waits for the answer, and Scheduler can send it byte by byte.
            return run_with_timeout(
                lambda: call_with_retry(lambda: self._put(schedule, ends_at, deadline), deadline, self._clock),
                deadline.left(),
            )
        except (TimeoutError, ThreadNotStarted) as error:
            raise AwsCallFailed(type(error).__name__, retryable=False) from None

    def _put(self, schedule: dict[str, Any], ends_at: datetime, deadline: Deadline) -> datetime:
        try:
            _expect_arn(self._client.create_schedule(**schedule))
        except self._client.exceptions.ConflictException:
            pass
        else:
            return ends_at
        try:
            return self._shorten(schedule, ends_at, deadline)
        # The schedule has just fired and deleted itself, or another request is changing it. Both are temporary.
        except (
            self._client.exceptions.ConflictException,
            self._client.exceptions.ResourceNotFoundException,
        ) as error:
            raise AwsCallFailed(error.response["Error"]["Code"], retryable=True) from None

    def _shorten(self, schedule: dict[str, Any], ends_at: datetime, deadline: Deadline) -> datetime:
        # An update cannot be conditional, so another request that has read the same end may replace ours with a later
        # one. The second read detects that, unless the other request takes longer than the pause.
        for _ in range(2):
            expect_time_for_a_try(deadline)
            found = self._client.get_schedule(GroupName=schedule["GroupName"], Name=schedule["Name"])
            known = datetime.strptime(found["ScheduleExpression"], _AT).replace(tzinfo=UTC)
            if known <= ends_at:
                return known
            expect_time_for_a_try(deadline)
            # Scheduler resets whatever an update leaves out.
            _expect_arn(self._client.update_schedule(**schedule))
            self._clock.sleep(PAUSE_SECONDS)
        return ends_at

    def _schedule(self, conversation: Conversation, ends_at: datetime) -> dict[str, Any]:
        detail = {"deployment_id": conversation.deployment_id, "conversation_id": conversation.conversation_id}
        return {
            "GroupName": self._group,
            # A name has up to 64 characters, which the two ids together can exceed.
            "Name": hashlib.sha256(conversation.key.encode()).hexdigest(),
            "Description": conversation.key,
            "ScheduleExpression": ends_at.strftime(_AT),
            "ScheduleExpressionTimezone": "UTC",
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "ActionAfterCompletion": "DELETE",
            "State": "ENABLED",
            "Target": {**self._target, "Input": json.dumps(detail)},
        }


def _expect_arn(answer: Mapping[str, Any]) -> None:
    # botocore treats a truncated 200 as an empty answer.
    if "ScheduleArn" not in answer:
        raise AwsCallFailed("IncompleteAnswer", retryable=True)
