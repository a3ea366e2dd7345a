"""The table of ended conversations: what is kept, what is not overwritten, and what cannot be read.

test_aws_calls.py has what all calls to AWS share.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from end_conversation.aws.client import PAUSE_SECONDS, TRY_SECONDS
from end_conversation.aws.table import EndedTable
from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Deadline
from tests.unit.fakes import TRUSTS_NOBODY, FakeClock, create_client, let_aws_answer

CONVERSATION = Conversation("d1", "c1")
DECIDED_AT = datetime(2026, 11, 22, 20, 14, 0, 123456, UTC)
ENDED = Result(Status.ENDED, None, DECIDED_AT, 1, 200, "9a1e")
UNANSWERED = Result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, DECIDED_AT, 3)
REFUSED = Result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, DECIDED_AT, 2, 404)
UNEXPECTED = Result(Status.UNCONFIRMED, Reason.UNEXPECTED_ANSWER, DECIDED_AT, 1, 204)


NOTHING = {"ConsumedCapacity": {"TableName": "ended", "CapacityUnits": 1.0}}


class Table:
    """An EndedTable with plenty of time, and the failures that it reported."""

    def __init__(self, client: Any, name: str = "ended") -> None:
        self._clock = FakeClock()
        self.failures: list[str] = []
        self._table = EndedTable(client, name, self.failures.append, self._clock)

    def get(self, conversation: Conversation = CONVERSATION) -> Result | None:
        return self._table.get(conversation, Deadline(self._clock, 10, 5))

    def put(self, result: Result) -> None:
        self._table.put(CONVERSATION, result, Deadline(self._clock, 10, 5))


@pytest.fixture(scope="module")
def moto_client() -> Any:
    with mock_aws():
        return boto3.client("dynamodb", region_name="eu-west-1")


@pytest.fixture
def client(moto_client: Any) -> Iterator[Any]:
    with mock_aws():
        moto_client.create_table(
            TableName="ended",
            KeySchema=[{"AttributeName": "conversation", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "conversation", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        yield moto_client


@pytest.mark.parametrize("result", [ENDED, UNANSWERED, REFUSED, UNEXPECTED])
def test_a_result_is_read_as_it_was_written(client: Any, result: Result) -> None:
    """And for its own conversation only."""
    table = Table(client)

    table.put(result)

    assert table.get() == result
    assert table.get(Conversation("d1", "c2")) is None
    assert table.get(Conversation("d2", "c1")) is None
    assert table.failures == []


def test_an_item_is_named_by_both_ids_and_expires_after_30_days(client: Any) -> None:
    Table(client).put(ENDED)

    [item] = client.scan(TableName="ended")["Items"]
    assert item["conversation"] == {"S": "d1/c1"}
    assert int(item["expires_at"]["N"]) == int((DECIDED_AT + timedelta(days=30)).timestamp())


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (ENDED, UNANSWERED, ENDED),
        (ENDED, UNEXPECTED, ENDED),
        (UNANSWERED, ENDED, ENDED),
        (UNEXPECTED, UNANSWERED, UNANSWERED),
        (UNANSWERED, REFUSED, REFUSED),
        (UNANSWERED, UNANSWERED._replace(attempts=1), UNANSWERED._replace(attempts=1)),
        (ENDED, ENDED._replace(attempts=2), ENDED._replace(attempts=2)),
    ],
)
def test_ended_is_never_overwritten_by_unconfirmed(client: Any, first: Result, second: Result, kept: Result) -> None:
    """Duplicate deliveries may write in any order. That `ended` stands is not reported as a failure."""
    table = Table(client)

    table.put(first)
    table.put(second)

    assert table.get() == kept
    assert table.failures == []


def test_an_item_is_read_consistently(client: Any) -> None:
    """A second delivery may come before the replicas of the table have the item."""
    with Stubber(client) as stub:
        expected = {"TableName": "ended", "Key": {"conversation": {"S": "d1/c1"}}, "ConsistentRead": True}
        expected["ReturnConsumedCapacity"] = "TOTAL"
        stub.add_response("get_item", NOTHING, expected)

        assert Table(client).get() is None
        stub.assert_no_pending_responses()


@pytest.mark.parametrize(("spare", "tries"), [(0.1, 2), (-0.1, 1)])
def test_a_second_try_leaves_the_time_to_publish(client: Any, spare: float, tries: int) -> None:
    clock = FakeClock()
    failures: list[str] = []
    with Stubber(client) as stub:
        for _ in range(2):
            stub.add_client_error("get_item", "ThrottlingException")
        table = EndedTable(client, "ended", failures.append, clock)

        found = table.get(CONVERSATION, Deadline(clock, PAUSE_SECONDS + 2 * TRY_SECONDS + spare, 0))
        assert found is not None
        assert found.status is Status.UNCONFIRMED

    assert (failures, len(clock.slept)) == (["ThrottlingException"], tries - 1)


@pytest.mark.usefixtures("_in_tokyo")
def test_the_time_of_a_record_is_returned_in_utc(client: Any) -> None:
    table = Table(client)
    table.put(ENDED._replace(decided_at=DECIDED_AT.astimezone(timezone(timedelta(hours=5)))))

    found = table.get()

    assert found is not None
    assert found.decided_at.isoformat() == DECIDED_AT.isoformat()


@pytest.mark.parametrize(
    "change",
    [
        *({"status": {"S": status}} for status in ("over", "not_found")),
        {"reason": {"S": "why"}},
        {"attempts": {"S": "x"}},
        {"decided_at": {"NULL": True}},
        {"decided_at": {"S": "2026-11-22T20:14:00"}},
        {"tavus_request_id": {"N": "7"}},
    ],
    ids=str,
)
def test_a_malformed_item_is_reported_and_not_returned(client: Any, change: dict[str, Any]) -> None:
    table = Table(client)
    table.put(ENDED)
    [item] = client.scan(TableName="ended")["Items"]
    client.put_item(TableName="ended", Item=item | change)

    assert_unread(table)
    assert table.failures == ["MalformedItem"]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"Item": {"con',
        b'{"ConsumedCapacity": {}, "Item": "x"}',
        b'{"ConsumedCapacity": {}, "Item": {"status": {"N": "Infinity"}, "attempts": {"N": "1E+999"}}}',
    ],
)
def test_a_malformed_answer_is_reported_and_not_returned(body: bytes) -> None:
    client = create_client("dynamodb", TRUSTS_NOBODY)
    let_aws_answer(client, (200, body), (200, body))
    table = Table(client)

    assert_unread(table)
    assert len(table.failures) == 1


def assert_unread(table: Table) -> None:
    """What cannot be read may say that the conversation has ended."""
    found = table.get()
    assert found is not None
    assert (found.status, found.reason) == (Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT)
