"""The table of ended conversations: what is kept, what is not overwritten, and what its failures look like."""

import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from end_conversation import aws
from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Clock, Deadline
from end_conversation.dynamodb import EndedTable
from end_conversation.errors import RecordUnavailable
from tests.fakes import let_aws_answer

CONVERSATION = Conversation("d1", "c1")
DECIDED_AT = datetime(2026, 11, 22, 20, 14, 0, 123456, UTC)
ENDED = Result(Status.ENDED, None, DECIDED_AT, 1, 200, "9a1e")
SUSPECTED = Result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, DECIDED_AT, 3)
REFUSED = Result(Status.UNCONFIRMED, Reason.EARLIER_ATTEMPT, DECIDED_AT, 2, 404)
UNEXPECTED = Result(Status.UNCONFIRMED, Reason.UNEXPECTED_ANSWER, DECIDED_AT, 1, 204)

ODD_ANSWERS = [
    (200, b"null"),
    (200, b"[]"),
    (200, b'"x"'),
    (200, b"5"),
    (200, b"\xff"),
    (400, b"[]"),
    (500, b"\xff"),
    (200, b'{"Item": "x"}'),
]


def soon() -> Deadline:
    return Deadline(Clock(), 10, 5)


@pytest.fixture
def client() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("dynamodb")
        client.create_table(
            TableName="ended",
            KeySchema=[{"AttributeName": "conversation", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "conversation", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        yield client


def test_nothing_is_known_of_a_conversation_at_first(client: Any) -> None:
    """An empty table makes no claim."""
    assert EndedTable(client, "ended", Clock()).recall(CONVERSATION, soon()) is None


@pytest.mark.parametrize("result", [ENDED, SUSPECTED, REFUSED, UNEXPECTED])
def test_a_result_comes_back_as_it_was_kept(client: Any, result: Result) -> None:
    """Status, reason, time, attempts and Tavus' answer are all there to be published later."""
    table = EndedTable(client, "ended", Clock())

    table.keep(CONVERSATION, result, soon())

    assert table.recall(CONVERSATION, soon()) == result
    assert table.recall(Conversation("d1", "c2"), soon()) is None
    assert table.recall(Conversation("d2", "c1"), soon()) is None


def test_an_item_is_keyed_and_expires_as_the_template_says(client: Any) -> None:
    """Key `deployment_id/conversation_id`; DynamoDB deletes it 30 days later."""
    EndedTable(client, "ended", Clock()).keep(CONVERSATION, ENDED, soon())

    [item] = client.scan(TableName="ended")["Items"]
    assert item["conversation"] == {"S": "d1/c1"}
    assert int(item["expires_at"]["N"]) == int((DECIDED_AT + timedelta(days=30)).timestamp())


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (ENDED, SUSPECTED, ENDED),
        (ENDED, UNEXPECTED, ENDED),
        (SUSPECTED, ENDED, ENDED),
        (UNEXPECTED, SUSPECTED, UNEXPECTED),
        (SUSPECTED, REFUSED, REFUSED),
        (SUSPECTED, replace(SUSPECTED, attempts=1), SUSPECTED),
        (ENDED, replace(ENDED, attempts=2), replace(ENDED, attempts=2)),
    ],
)
def test_a_stronger_record_is_never_weakened(client: Any, first: Result, second: Result, kept: Result) -> None:
    """Duplicate deliveries may write in any order."""
    table = EndedTable(client, "ended", Clock())

    table.keep(CONVERSATION, first, soon())
    table.keep(CONVERSATION, second, soon())

    assert table.recall(CONVERSATION, soon()) == kept


def test_it_is_asked_consistently(client: Any) -> None:
    """A redelivery may come within the second in which the other copies lag."""
    with Stubber(client) as stub:
        expected = {"TableName": "ended", "Key": {"conversation": {"S": "d1/c1"}}, "ConsistentRead": True}
        stub.add_response("get_item", {}, expected)

        assert EndedTable(client, "ended", Clock()).recall(CONVERSATION, soon()) is None
        stub.assert_no_pending_responses()


def test_a_missing_table_is_named_by_its_kind(client: Any) -> None:
    """The operator reads AWS' code."""
    table = EndedTable(client, "missing", Clock())

    with pytest.raises(RecordUnavailable, match="^ResourceNotFoundException$"):
        table.recall(CONVERSATION, soon())
    with pytest.raises(RecordUnavailable, match="^ResourceNotFoundException$"):
        table.keep(CONVERSATION, ENDED, soon())


@pytest.mark.parametrize(
    ("code", "tries"), [("ProvisionedThroughputExceededException", 2), ("AccessDeniedException", 1)]
)
def test_a_table_that_refuses_is_named_by_its_kind(client: Any, code: str, tries: int) -> None:
    """Throttled, after a second try, or denied, the record is of no help, and that is all."""
    with Stubber(client) as stub:
        for _ in range(tries):
            stub.add_client_error("put_item", code, "told by AWS")

        with pytest.raises(RecordUnavailable, match=f"^{code}$"):
            EndedTable(client, "ended", Clock()).keep(CONVERSATION, ENDED, soon())


@pytest.mark.parametrize(
    "change",
    [{"status": {"S": "over"}}, {"reason": {"S": "why"}}, {"attempts": {"S": "x"}}, {"decided_at": {"NULL": True}}],
)
def test_an_item_of_another_form_is_no_truth(client: Any, change: dict[str, Any]) -> None:
    """Somebody else's item is not published as ours."""
    table = EndedTable(client, "ended", Clock())
    table.keep(CONVERSATION, ENDED, soon())
    [item] = client.scan(TableName="ended")["Items"]
    client.put_item(TableName="ended", Item=item | change)

    with pytest.raises(RecordUnavailable, match="^an item of another form"):
        table.recall(CONVERSATION, soon())


@pytest.mark.parametrize("answer", ODD_ANSWERS)
def test_what_is_no_answer_of_dynamodb_is_no_truth(answer: tuple[int, bytes]) -> None:
    """Whatever botocore makes of it, the record is of no help, and that is all."""
    client = aws.client("dynamodb", ssl.create_default_context())
    let_aws_answer(client, answer, answer)

    with pytest.raises(RecordUnavailable):
        EndedTable(client, "ended", Clock()).recall(CONVERSATION, soon())


def test_a_failure_that_may_pass_is_tried_once_more() -> None:
    """A connection that was kept may have died unseen while the sandbox was frozen."""
    client = aws.client("dynamodb", ssl.create_default_context())
    requests = let_aws_answer(client, (500, b""), (200, b"{}"))

    assert EndedTable(client, "ended", Clock()).recall(CONVERSATION, soon()) is None
    assert len(requests) == 2


def test_a_slow_table_is_given_up_in_time() -> None:
    """It gets a quarter of what is left, so that publishing keeps the rest."""

    class Slow:
        def get_item(self, **_: Any) -> None:
            time.sleep(5)

    client: Any = Slow()
    deadline = Deadline(Clock(), 1.2, 0.6)

    with pytest.raises(RecordUnavailable, match="^TimeoutError$"):
        EndedTable(client, "ended", Clock()).recall(CONVERSATION, deadline)

    assert deadline.elapsed() < 1
