"""The EventBridge Scheduler group that holds one schedule for each conversation with a limit."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from end_conversation.aws.client import PAUSE_SECONDS, expect_member, expect_time_for_a_try, retry, translate_errors
from end_conversation.conversation import (
    LIMIT_DETAIL_TYPE,
    LIMIT_SOURCE,
    MAX_SECONDS_AHEAD,
    format_utc,
    parse_utc,
)
from end_conversation.errors import AwsCallFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mypy_boto3_scheduler import EventBridgeSchedulerClient

    from end_conversation.conversation import Conversation
    from end_conversation.deadline import Clock, Deadline

# Scheduler fires at most this late. So a schedule fires this early, and the message waits in the queue for its second.
PRECISION = timedelta(seconds=60)
# Scheduler may refuse a time that is past when the request arrives.
MIN_LEAD = timedelta(seconds=15)

_AT = "at(%Y-%m-%dT%H:%M:%S)"
# A schedule with other values fires at another time, or never. A StartDate or an EndDate does not matter: Scheduler
# ignores them in one-time schedules.
_FIRES_AS_SET = {"State": "ENABLED", "ScheduleExpressionTimezone": "UTC", "FlexibleTimeWindow": {"Mode": "OFF"}}


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
        return retry(lambda: self._put(conversation, ends_at, deadline), deadline, self._clock)

    def _put(self, conversation: Conversation, ends_at: datetime, deadline: Deadline) -> datetime:
        try:
            _call(self._client.create_schedule, self._schedule(conversation, ends_at), "ScheduleArn")
        except AwsCallFailed as error:
            if error.kind != "ConflictException":
                raise
        else:
            return ends_at
        try:
            return self._keep_earliest(conversation, ends_at, deadline)
        except AwsCallFailed as error:
            # The schedule has just fired and deleted itself, or another request is changing it. Both are temporary.
            temporary = error.kind in ("ConflictException", "ResourceNotFoundException")
            raise AwsCallFailed(error.kind, retryable=error.retryable or temporary) from None

    def _keep_earliest(self, conversation: Conversation, ends_at: datetime, deadline: Deadline) -> datetime:
        # An update cannot be conditional, so another request that has read the same end may replace ours with a later
        # one. The second read detects that, unless the other request takes longer than the pause.
        key = {"GroupName": self._group, "Name": _schedule_name(conversation)}
        for _ in range(2):
            expect_time_for_a_try(deadline)
            found = _call(self._client.get_schedule, key, "ScheduleExpression")
            stored_end, will_end = self._stored_end(found)
            if stored_end is not None and stored_end <= ends_at:
                ends_at = stored_end
            wanted = self._schedule(conversation, ends_at)
            if will_end and stored_end == ends_at and wanted["Target"].items() <= found.get("Target", {}).items():
                return ends_at
            expect_time_for_a_try(deadline)
            # Scheduler resets whatever an update leaves out.
            _call(self._client.update_schedule, wanted, "ScheduleArn")
            self._clock.sleep(PAUSE_SECONDS)
        return ends_at

    def _stored_end(self, schedule: Mapping[str, Any]) -> tuple[datetime | None, bool]:
        """Return the end that a stored schedule stands for, and whether it would end the conversation then.

        The end is None if somebody changed the schedule to another kind. A schedule of an earlier version names no
        `ends_at`, and fires at the end itself.
        """
        if any(schedule.get(member) != value for member, value in _FIRES_AS_SET.items()):
            return None, False
        try:
            fires_at = datetime.strptime(schedule["ScheduleExpression"], _AT).replace(tzinfo=UTC)
        except (TypeError, ValueError):
            return None, False
        ends_at = fires_at
        with suppress(KeyError, RecursionError, TypeError, ValueError):
            ends_at = parse_utc(json.loads(schedule["Target"]["Input"])["detail"]["ends_at"])
        now = self._clock.now()
        if fires_at < now - PRECISION:  # Scheduler has kept it, or still tries to deliver it
            return now.replace(microsecond=0) + MIN_LEAD, False
        if fires_at - ends_at > MIN_LEAD:
            return fires_at, False
        return ends_at, ends_at - fires_at <= timedelta(seconds=MAX_SECONDS_AHEAD)

    def _schedule(self, conversation: Conversation, ends_at: datetime) -> dict[str, Any]:
        fires_at = max(ends_at - PRECISION, self._clock.now() + MIN_LEAD)
        name = _schedule_name(conversation)
        session_timeout = {
            "id": name,
            "source": LIMIT_SOURCE,
            "detail-type": LIMIT_DETAIL_TYPE,
            "time": format_utc(ends_at),
            "detail": {
                "deployment_id": conversation.deployment_id,
                "conversation_id": conversation.conversation_id,
                "ends_at": format_utc(ends_at),
            },
        }
        return {
            "GroupName": self._group,
            "Name": name,
            "Description": conversation.key,
            "ScheduleExpression": fires_at.strftime(_AT),
            "ActionAfterCompletion": "DELETE",
            **_FIRES_AS_SET,
            "Target": {**self._target, "Input": json.dumps(session_timeout)},
        }


def _call(operation: Callable[..., Mapping[str, Any]], request: dict[str, Any], member: str) -> Mapping[str, Any]:
    """Call Scheduler, whose whole answer has this member. Raises AwsCallFailed."""
    return expect_member(member, translate_errors(lambda: operation(**request)))


def _schedule_name(conversation: Conversation) -> str:
    # A name has up to 64 characters, which the two ids together can exceed.
    return hashlib.sha256(conversation.key.encode()).hexdigest()
