"""The schedules: what Scheduler is asked for, and which end stands. test_aws_calls.py has what all calls share."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import boto3
import pytest
from botocore.stub import Stubber
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

from end_conversation.aws.client import PAUSE_SECONDS
from end_conversation.aws.schedules import Schedules
from end_conversation.conversation import Conversation
from end_conversation.deadline import Deadline
from end_conversation.errors import AwsCallFailed
from tests.unit.fakes import TRUSTS_NOBODY, FakeClock, create_client, let_aws_answer

CONVERSATION = Conversation("d1", "c1")
NAME = sha256(b"d1/c1").hexdigest()
TARGET = {
    "Arn": "arn:aws:sqs:eu-west-1:111122223333:timeouts",
    "RoleArn": "arn:aws:iam::111122223333:role/scheduler",
    "RetryPolicy": {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": 3600},
    "DeadLetterConfig": {"Arn": "arn:aws:sqs:eu-west-1:111122223333:failed"},
}
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
END = FakeClock().now() + 10 * MINUTE


def input_of(ends_at: datetime) -> str:
    """Return the whole event that the schedule puts into the queue."""
    text = f"{ends_at:%Y-%m-%dT%H:%M:%SZ}"
    detail = {"deployment_id": "d1", "conversation_id": "c1", "ends_at": text}
    return json.dumps(
        {"id": NAME, "source": "end-conversation", "detail-type": "Session Limit", "time": text, "detail": detail}
    )


def at(time: datetime) -> str:
    return f"at({time:%Y-%m-%dT%H:%M:%S})"


def schedule(ends_at: datetime, fires_at: datetime | None = None) -> dict[str, Any]:
    """Return the whole schedule. Each request that changes it has all of this: Scheduler resets the rest."""
    return {
        "GroupName": "limits",
        "Name": NAME,
        "Description": "d1/c1",
        "ScheduleExpression": at(fires_at or ends_at - MINUTE),
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "State": "ENABLED",
        "Target": {**TARGET, "Input": input_of(ends_at)},
    }


ARN = {"ScheduleArn": "arn:aws:scheduler:eu-west-1:111122223333:schedule/limits/name"}


class Scheduler(Stubber):
    """Expects exactly these requests, whose members are checked against botocore's model of Scheduler."""

    client: Any

    def creates(self, error: str | None = None, status: int = 400) -> None:
        self._expect("create_schedule", schedule(END), error, status)

    def updates(self, to: datetime = END, error: str | None = None, status: int = 400) -> None:
        self._expect("update_schedule", schedule(to), error, status)

    def _expect(self, operation: str, request: dict[str, Any], error: str | None, status: int) -> None:
        if error is None:
            self.add_response(operation, ARN, request)
        else:
            self.add_client_error(operation, error, http_status_code=status)

    def finds(self, end: datetime, **changes: Any) -> None:
        found = schedule(end) | {"Arn": ARN["ScheduleArn"]} | changes
        self.add_response("get_schedule", found, {"GroupName": "limits", "Name": NAME})

    def finds_none(self) -> None:
        self.add_client_error("get_schedule", "ResourceNotFoundException", http_status_code=404)


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    with Scheduler(boto3.client("scheduler")) as stub:
        yield stub
        stub.assert_no_pending_responses()


def put(scheduler: Scheduler, end: datetime = END, clock: FakeClock | None = None) -> datetime:
    clock = clock or FakeClock()
    schedules = Schedules(scheduler.client, "limits", TARGET, clock)
    return schedules.put(CONVERSATION, end, Deadline(clock, 4.5, 0.5))


@pytest.mark.parametrize(("seconds", "fires_after"), [(600, 540), (76, 16), (75, 15), (74, 15), (60, 15)])
def test_a_limit_is_one_schedule_that_deletes_itself(scheduler: Scheduler, seconds: int, fires_after: int) -> None:
    """It fires a minute ahead, because Scheduler may be late by as much. The message then waits in the queue.

    It never fires in the past: Scheduler may refuse such a time, and the request takes a while.
    """
    now = FakeClock().now()
    end = now + seconds * SECOND
    scheduler.add_response("create_schedule", ARN, schedule(end, now + fires_after * SECOND))

    assert put(scheduler, end) == end


@pytest.mark.parametrize(
    ("found", "resulting"),
    [
        ([END], END),
        ([END - SECOND], END - SECOND),
        ([END - 9 * MINUTE], END - 9 * MINUTE),
        ([END + SECOND, END], END),
        ([END + SECOND, END - SECOND], END - SECOND),
        ([END + SECOND, END + SECOND], END),
    ],
)
def test_the_earlier_end_stands(scheduler: Scheduler, found: list[datetime], resulting: datetime) -> None:
    """A later one is updated. After a pause, the schedule is read again, because another request may have written it.

    Repeating a request changes nothing.
    """
    clock = FakeClock()
    scheduler.creates("ConflictException")
    for end in found:
        scheduler.finds(end)
        if end > END:
            scheduler.updates()

    assert put(scheduler, clock=clock) == resulting
    assert clock.slept == [PAUSE_SECONDS for end in found if end > END]


def old(end: datetime) -> dict[str, Any]:
    """Return what differs in a schedule of an earlier version. It put the detail on the bus at the end itself."""
    target = {"Arn": "arn:aws:events:eu-west-1:111122223333:event-bus/default", "RoleArn": TARGET["RoleArn"]}
    target["Input"] = '{"deployment_id": "d1", "conversation_id": "c1"}'
    return {"ScheduleExpression": at(end), "Target": target}


def with_target(end: datetime, **changes: Any) -> dict[str, Any]:
    return {"Target": schedule(end)["Target"] | changes}


OTHER_TARGETS: dict[str, Callable[[datetime], dict[str, Any]]] = {
    "of an earlier version": old,
    "of another queue": lambda end: with_target(end, Arn="arn:aws:sqs:eu-west-1:111122223333:old"),
    "with another role": lambda end: with_target(end, RoleArn="arn:aws:iam::111122223333:role/old"),
    "without dead letters": lambda end: {
        "Target": {name: value for name, value in schedule(end)["Target"].items() if name != "DeadLetterConfig"}
    },
    "with another event": lambda end: with_target(end, Input=input_of(end).replace("Session Limit", "Other")),
}


@pytest.mark.parametrize("changes", OTHER_TARGETS.values(), ids=OTHER_TARGETS)
@pytest.mark.parametrize("known", [END + MINUTE, END, END - SECOND, END - 5 * MINUTE])
def test_schedule_gets_the_current_target(
    scheduler: Scheduler, known: datetime, changes: Callable[[datetime], dict[str, Any]]
) -> None:
    """An update of the stack may have moved the queue. The earlier end stands."""
    resulting = min(known, END)
    scheduler.creates("ConflictException")
    scheduler.finds(known, **changes(known))
    scheduler.updates(to=resulting)
    scheduler.finds(resulting)

    assert put(scheduler) == resulting


EARLIER = END - 5 * MINUTE


@pytest.mark.parametrize(
    "changes",
    [
        {"State": "DISABLED"},
        {"ScheduleExpressionTimezone": "Europe/Berlin"},
        {"FlexibleTimeWindow": {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15}},
        {"ScheduleExpression": "rate(5 minutes)"},
        {"ScheduleExpression": "cron(0 8 * * ? *)"},
    ],
)
def test_a_schedule_that_would_not_end_the_conversation_is_replaced(
    scheduler: Scheduler, changes: dict[str, Any]
) -> None:
    """Somebody has changed it by hand."""
    for end in (EARLIER, END):
        scheduler.creates("ConflictException")
        scheduler.finds(end, **changes)
        scheduler.updates()
        scheduler.finds(END)

        assert put(scheduler) == END


@pytest.mark.parametrize(
    "changes",
    [
        {"StartDate": END + MINUTE, "EndDate": EARLIER - 2 * MINUTE},  # which one-time schedules ignore
        {"Description": "by hand"},
        {"ScheduleExpression": at(FakeClock().now() - MINUTE)},  # Scheduler is about to fire
        with_target(EARLIER, SqsParameters={"MessageGroupId": "by-hand"}),
        {"ActionAfterCompletion": "NONE"},
        {"ScheduleExpression": at(EARLIER - 4 * MINUTE)},
        {"ScheduleExpression": at(EARLIER + 15 * SECOND)},
    ],
)
def test_other_changes_by_hand_stand(scheduler: Scheduler, changes: dict[str, Any]) -> None:
    """The conversation still ends at that time."""
    scheduler.creates("ConflictException")
    scheduler.finds(EARLIER, **changes)

    assert put(scheduler) == EARLIER


NOW = FakeClock().now()
SOON = NOW + 15 * SECOND
# What is found, and the end that it gets.
MOVED: dict[str, tuple[datetime, dict[str, Any], datetime]] = {
    # Scheduler has kept it instead of deleting it, or still tries to deliver it. A request must not delay it.
    "overdue": (EARLIER, {"ScheduleExpression": at(NOW - 2 * MINUTE), "ActionAfterCompletion": "NONE"}, SOON),
    "to a later time": (EARLIER, {"ScheduleExpression": at(EARLIER + MINUTE)}, EARLIER + MINUTE),
    # Its session timeout would be refused, because it cannot wait for so long.
    "too far ahead": (END + 20 * MINUTE, {"ScheduleExpression": at(END)}, END + 20 * MINUTE),
    # Or the conversation would never end.
    **{
        f"with the input {junk[:40]}": (
            EARLIER,
            {"ScheduleExpression": at(EARLIER), **with_target(EARLIER, Input=junk)},
            EARLIER,
        )
        for junk in ("null", "[]", "{", "[" * 100_000, '{"detail": null}', '{"detail": {"ends_at": 7}}')
    },
}


@pytest.mark.parametrize(("known", "changes", "resulting"), MOVED.values(), ids=MOVED)
def test_schedule_that_fires_at_another_time_is_corrected(
    scheduler: Scheduler, known: datetime, changes: dict[str, Any], resulting: datetime
) -> None:
    fires_at = max(resulting - MINUTE, SOON)
    scheduler.add_client_error("create_schedule", "ConflictException")
    scheduler.finds(known, **changes)
    scheduler.add_response("update_schedule", ARN, schedule(resulting, fires_at))
    scheduler.finds(resulting, ScheduleExpression=at(fires_at))

    assert put(scheduler, END + 30 * MINUTE) == resulting


def test_a_schedule_that_has_just_fired_is_created_again(scheduler: Scheduler) -> None:
    scheduler.creates("ConflictException")
    scheduler.finds_none()
    scheduler.creates()

    assert put(scheduler) == END


def test_vanishing_schedule_is_created_at_most_twice(scheduler: Scheduler) -> None:
    for _ in range(2):
        scheduler.creates("ConflictException")
        scheduler.finds_none()

    with pytest.raises(AwsCallFailed, match="^ResourceNotFoundException$"):
        put(scheduler)


@pytest.mark.parametrize(
    ("error", "status"),
    [("ThrottlingException", 429), ("ConflictException", 409), ("ResourceNotFoundException", 404)],
)
def test_a_failed_update_is_retried_from_the_start(scheduler: Scheduler, error: str, status: int) -> None:
    """Another request was changing the schedule, or it has just fired."""
    scheduler.creates("ConflictException")
    scheduler.finds(END + SECOND)
    scheduler.updates(error=error, status=status)
    scheduler.creates()

    assert put(scheduler) == END


def test_truncated_answer_lengthens_no_limit(scheduler: Scheduler) -> None:
    """For botocore it is an empty schedule, which must not replace an earlier end."""
    scheduler.creates("ConflictException")
    scheduler.add_response("get_schedule", {})
    scheduler.creates("ConflictException")
    scheduler.finds(END - MINUTE)

    assert put(scheduler) == END - MINUTE


def test_message_can_wait_for_15_minutes(scheduler: Scheduler) -> None:
    scheduler.add_client_error("create_schedule", "ConflictException")
    scheduler.finds(END + 15 * MINUTE, ScheduleExpression=at(END))

    assert put(scheduler, END + 30 * MINUTE) == END + 15 * MINUTE


@pytest.mark.parametrize(("junk", "resulting"), [({"ScheduleExpression": 5}, END), ({"Target": None}, END - MINUTE)])
def test_malformed_schedule_is_replaced(junk: dict[str, Any], resulting: datetime) -> None:
    """Botocore passes on a number in place of a text, and leaves out what is null. Then the end is when it fires."""
    client = create_client("scheduler", TRUSTS_NOBODY)
    malformed = json.dumps(schedule(END) | junk).encode()
    replaced = json.dumps(schedule(resulting)).encode()
    conflict, updated = b'{"__type": "ConflictException"}', json.dumps(ARN).encode()
    let_aws_answer(client, (409, conflict), (200, malformed), (200, updated), (200, replaced))
    clock = FakeClock()

    assert Schedules(client, "limits", TARGET, clock).put(CONVERSATION, END, Deadline(clock, 10, 0.5)) == resulting


def test_our_own_bug_is_raised(scheduler: Scheduler) -> None:
    """It escapes, so that an alarm goes off."""
    no_time: Any = None

    with pytest.raises(TypeError):
        put(scheduler, no_time)


@pytest.mark.parametrize("slow", ["CreateSchedule", "GetSchedule"])
def test_no_call_starts_without_time_for_it(scheduler: Scheduler, slow: str) -> None:
    clock = FakeClock()
    event = f"before-parameter-build.scheduler.{slow}"
    scheduler.client.meta.events.register(event, lambda **_: clock.advance(2.1))
    scheduler.creates("ConflictException")
    if slow == "GetSchedule":
        scheduler.finds(END + SECOND)

    with pytest.raises(AwsCallFailed, match="^NoTimeLeft$"):
        put(scheduler, clock=clock)


def test_a_lost_answer_makes_no_second_schedule(scheduler: Scheduler) -> None:
    """The second create meets the first one's schedule, and the same end stands."""
    scheduler.creates("InternalServerException", 500)
    scheduler.creates("ConflictException")
    scheduler.finds(END)

    assert put(scheduler) == END


@pytest.fixture(scope="module")
def moto_client() -> Iterator[Any]:
    with mock_aws():
        yield boto3.client("scheduler", region_name="eu-west-1")


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(60, 86_400), min_size=1, max_size=8), st.uuids())
def test_the_earliest_of_many_ends_stands(moto_client: Any, offsets: list[int], group: UUID) -> None:
    """After each request, the schedule and the answer have the earliest end so far."""
    moto_client.create_schedule_group(Name=str(group))
    clock = FakeClock()
    schedules = Schedules(moto_client, str(group), TARGET, clock)
    earliest = END + timedelta(days=2)
    for offset in offsets:
        end = END + timedelta(seconds=offset)
        earliest = min(earliest, end)

        assert schedules.put(CONVERSATION, end, Deadline(clock, 4.5, 0.5)) == earliest

        found = moto_client.get_schedule(GroupName=str(group), Name=NAME)
        expected = schedule(earliest) | {"GroupName": str(group)}
        assert {name: found[name] for name in expected} == expected
    assert len(moto_client.list_schedules(GroupName=str(group))["Schedules"]) == 1
