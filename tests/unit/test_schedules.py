"""The schedules: what Scheduler is asked for, which end stands, and what is given up."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

from end_conversation.aws.client import PAUSE_SECONDS, TRY_SECONDS, create_client
from end_conversation.aws.schedules import Schedules
from end_conversation.conversation import Conversation
from end_conversation.deadline import Clock, Deadline
from end_conversation.errors import AwsCallFailed
from tests.unit.fakes import TRUSTS_NOBODY, FakeClock
from tests.unit.fault_server import FaultServer, answer, drip, hang, reset

CONVERSATION = Conversation("d1", "c1")
NAME = sha256(b"d1/c1").hexdigest()
TARGET = {
    "Arn": "arn:aws:events:eu-west-1:111122223333:event-bus/default",
    "RoleArn": "arn:aws:iam::111122223333:role/scheduler",
    "EventBridgeParameters": {"Source": "myapp.sessions", "DetailType": "Session Timeout"},
    "RetryPolicy": {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": 3600},
    "DeadLetterConfig": {"Arn": "arn:aws:sqs:eu-west-1:111122223333:retry"},
}
END = datetime(2026, 11, 25, 8, 37, 41, tzinfo=UTC)
# Each request that changes the schedule carries all of this: Scheduler resets what an update leaves out.
SCHEDULE = {
    "GroupName": "limits",
    "Name": NAME,
    "Description": "d1/c1",
    "ScheduleExpression": "at(2026-11-25T08:37:41)",
    "ScheduleExpressionTimezone": "UTC",
    "FlexibleTimeWindow": {"Mode": "OFF"},
    "ActionAfterCompletion": "DELETE",
    "State": "ENABLED",
    "Target": {**TARGET, "Input": '{"deployment_id": "d1", "conversation_id": "c1"}'},
}
ARN = {"ScheduleArn": "arn:aws:scheduler:eu-west-1:111122223333:schedule/limits/name"}


class Scheduler(Stubber):
    """Expects exactly these requests, whose members are checked against botocore's model of Scheduler."""

    client: Any

    def creates(self, error: str | None = None, status: int = 400) -> None:
        self._expect("create_schedule", error, status)

    def updates(self, error: str | None = None, status: int = 400) -> None:
        self._expect("update_schedule", error, status)

    def _expect(self, operation: str, error: str | None, status: int) -> None:
        if error is None:
            self.add_response(operation, ARN, SCHEDULE)
        else:
            self.add_client_error(operation, error, http_status_code=status)

    def finds(self, end: datetime) -> None:
        self.finds_expression(f"at({end:%Y-%m-%dT%H:%M:%S})")

    def finds_expression(self, expression: str) -> None:
        self.add_response("get_schedule", {"ScheduleExpression": expression}, {"GroupName": "limits", "Name": NAME})

    def finds_none(self) -> None:
        self.add_client_error("get_schedule", "ResourceNotFoundException", http_status_code=404)


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    with Scheduler(boto3.client("scheduler")) as stub:
        yield stub
        stub.assert_no_pending_responses()


def put(scheduler: Scheduler, end: datetime = END, seconds: float = 4.5) -> datetime:
    clock = FakeClock()
    schedules = Schedules(scheduler.client, "limits", TARGET, clock)
    return schedules.put(CONVERSATION, end, Deadline(clock, seconds, 0.5))


def test_a_limit_is_one_schedule_that_deletes_itself(scheduler: Scheduler) -> None:
    scheduler.creates()

    assert put(scheduler) == END


def test_a_name_and_a_description_fit_the_longest_ids() -> None:
    """Scheduler allows 64 characters for a name and 512 for a description."""
    client: Any = boto3.client("scheduler")
    longest = Conversation("d" * 128, "c" * 128)
    with Scheduler(client) as stub:
        name = sha256(f"{'d' * 128}/{'c' * 128}".encode()).hexdigest()
        expected = {**dict.fromkeys(SCHEDULE, ANY), "Name": name}
        stub.add_response("create_schedule", ARN, expected | {"Description": f"{'d' * 128}/{'c' * 128}"})

        Schedules(client, "limits", TARGET, FakeClock()).put(longest, END, Deadline(FakeClock(), 4.5, 0.5))

        stub.assert_no_pending_responses()


@pytest.mark.parametrize("earlier", [timedelta(0), timedelta(seconds=1), timedelta(days=1)])
def test_an_earlier_end_stands(scheduler: Scheduler, earlier: timedelta) -> None:
    """An equal one too: repeating a request changes nothing."""
    scheduler.creates("ConflictException")
    scheduler.finds(END - earlier)

    assert put(scheduler) == END - earlier


def test_a_later_end_is_replaced_by_a_whole_update(scheduler: Scheduler) -> None:
    scheduler.creates("ConflictException")
    scheduler.finds(END + timedelta(seconds=1))
    scheduler.updates()
    scheduler.finds(END)

    assert put(scheduler) == END


def test_a_later_end_that_another_request_wrote_meanwhile_is_replaced_once_more(scheduler: Scheduler) -> None:
    scheduler.creates("ConflictException")
    for _ in range(2):
        scheduler.finds(END + timedelta(seconds=1))
        scheduler.updates()

    assert put(scheduler) == END


def test_an_earlier_end_that_another_request_wrote_meanwhile_stands(scheduler: Scheduler) -> None:
    scheduler.creates("ConflictException")
    scheduler.finds(END + timedelta(seconds=1))
    scheduler.updates()
    scheduler.finds(END - timedelta(seconds=1))

    assert put(scheduler) == END - timedelta(seconds=1)


def test_a_schedule_that_has_just_fired_is_created_again(scheduler: Scheduler) -> None:
    scheduler.creates("ConflictException")
    scheduler.finds_none()
    scheduler.creates()

    assert put(scheduler) == END


@pytest.mark.parametrize(("error", "status"), [("ThrottlingException", 429), ("InternalServerException", 500)])
def test_a_create_that_fails_for_a_moment_is_sent_once_more(scheduler: Scheduler, error: str, status: int) -> None:
    scheduler.creates(error, status)
    scheduler.creates()

    assert put(scheduler) == END


@pytest.mark.parametrize(("error", "status"), [("ThrottlingException", 429), ("InternalServerException", 500)])
def test_a_schedule_is_created_at_most_twice(scheduler: Scheduler, error: str, status: int) -> None:
    scheduler.creates(error, status)
    scheduler.creates(error, status)

    with pytest.raises(AwsCallFailed, match=f"^{error}$"):
        put(scheduler)


def test_a_schedule_that_is_there_and_gone_is_created_at_most_twice(scheduler: Scheduler) -> None:
    for _ in range(2):
        scheduler.creates("ConflictException")
        scheduler.finds_none()

    with pytest.raises(AwsCallFailed, match="^ResourceNotFoundException$"):
        put(scheduler)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("ResourceNotFoundException", 404),  # the group is missing
        ("ServiceQuotaExceededException", 402),
        ("AccessDeniedException", 403),
        ("ValidationException", 400),
    ],
)
def test_what_a_second_create_cannot_help_is_given_up(scheduler: Scheduler, error: str, status: int) -> None:
    scheduler.creates(error, status)

    with pytest.raises(AwsCallFailed, match=f"^{error}$"):
        put(scheduler)


def test_an_update_that_is_throttled_is_tried_again_from_the_start(scheduler: Scheduler) -> None:
    for error in ("ThrottlingException", None):
        scheduler.creates("ConflictException")
        scheduler.finds(END + timedelta(seconds=1))
        scheduler.updates(error)
    scheduler.finds(END)

    assert put(scheduler) == END


@pytest.mark.parametrize(("error", "status"), [("ConflictException", 409), ("ResourceNotFoundException", 404)])
def test_an_update_that_meets_another_request_or_the_firing_is_tried_again(
    scheduler: Scheduler, error: str, status: int
) -> None:
    scheduler.creates("ConflictException")
    scheduler.finds(END + timedelta(seconds=1))
    scheduler.updates(error, status)
    scheduler.creates()

    assert put(scheduler) == END


def test_a_schedule_of_another_kind_is_left_alone(scheduler: Scheduler) -> None:
    """Nobody but us creates schedules in the group, so this is an error."""
    for _ in range(2):
        scheduler.creates("ConflictException")
        scheduler.finds_expression("rate(5 minutes)")

    with pytest.raises(AwsCallFailed, match="^ValueError$"):
        put(scheduler)


def test_no_call_begins_that_could_not_end_in_time(scheduler: Scheduler) -> None:
    scheduler.creates("ConflictException")

    with pytest.raises(AwsCallFailed, match="^NoTimeLeft$"):
        put(scheduler, seconds=TRY_SECONDS - 0.1)


def test_an_update_waits_before_the_second_look(scheduler: Scheduler) -> None:
    """By then, another request that had read the same end has written its own."""
    clock = FakeClock()
    scheduler.creates("ConflictException")
    scheduler.finds(END + timedelta(seconds=1))
    scheduler.updates()
    scheduler.finds(END)

    Schedules(scheduler.client, "limits", TARGET, clock).put(CONVERSATION, END, Deadline(clock, 4.5, 0.5))

    assert clock.slept == [PAUSE_SECONDS]


@pytest.mark.parametrize("fault", [hang, reset, answer(503), answer(200, b"{")])
def test_a_scheduler_that_does_not_work_is_asked_twice(monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    with FaultServer(fault, fault) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SCHEDULER", aws.url)
        client = create_client("scheduler", TRUSTS_NOBODY)
        clock = Clock()
        with pytest.raises(AwsCallFailed):
            Schedules(client, "limits", TARGET, clock).put(CONVERSATION, END, Deadline(clock, 4.5, 0.5))

    assert [(request.method, request.path) for request in aws.requests] == [("POST", f"/schedules/{NAME}")] * 2


def test_an_answer_sent_byte_by_byte_is_given_up_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No timeout of a single read ends it."""
    with FaultServer(drip(answer(200, b'{"ScheduleArn": "arn"}'), every=0.02)) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SCHEDULER", aws.url)
        client = create_client("scheduler", TRUSTS_NOBODY)
        clock = Clock()
        with pytest.raises(AwsCallFailed, match="^TimeoutError$"):
            Schedules(client, "limits", TARGET, clock).put(CONVERSATION, END, Deadline(clock, 0.5, 0.1))


def test_an_answer_that_is_lost_does_not_make_a_second_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second create meets the first one's schedule, and the same end stands."""
    conflict = answer(409, b'{"Message": "exists"}', "x-amzn-errortype: ConflictException")
    found = answer(200, b'{"ScheduleExpression": "at(2026-11-25T08:37:41)"}')
    with FaultServer(reset, conflict, found) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SCHEDULER", aws.url)
        client = create_client("scheduler", TRUSTS_NOBODY)
        schedules = Schedules(client, "limits", TARGET, FakeClock())
        end = schedules.put(CONVERSATION, END, Deadline(FakeClock(), 4.5, 0.5))

    assert end == END
    assert [request.method for request in aws.requests] == ["POST", "POST", "GET"]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(60, 86_400), min_size=1, max_size=8))
def test_the_earliest_of_many_ends_stands(offsets: list[int]) -> None:
    """After each request, the schedule and the answer have the earliest end so far."""
    with mock_aws():
        client: Any = boto3.client("scheduler", region_name="eu-west-1")
        client.create_schedule_group(Name="limits")
        clock = FakeClock()
        schedules = Schedules(client, "limits", TARGET, clock)
        earliest = END + timedelta(days=2)
        for offset in offsets:
            end = END + timedelta(seconds=offset)
            earliest = min(earliest, end)

            assert schedules.put(CONVERSATION, end, Deadline(clock, 4.5, 0.5)) == earliest

            [summary] = client.list_schedules(GroupName="limits")["Schedules"]
            found = client.get_schedule(GroupName="limits", Name=summary["Name"])
            assert found["ScheduleExpression"] == f"at({earliest:%Y-%m-%dT%H:%M:%S})"
            assert {name: found[name] for name in SCHEDULE if name != "ScheduleExpression"} == {
                name: value for name, value in SCHEDULE.items() if name != "ScheduleExpression"
            }
