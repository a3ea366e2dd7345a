"""Our clients make the requests and the answers of plain ones.

They have few of botocore's handlers, and only the data that the build leaves of its models and endpoint rules.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import boto3
import botocore
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.handlers import BUILTIN_HANDLERS
from botocore.loaders import Loader
from botocore.retries.standard import ThrottledRetryableChecker, TransientRetryableChecker

from end_conversation import USER_AGENT
from end_conversation.aws.client import HANDLERS, RETRYABLE_CODES, ClientFactory
from operations.trim import MODEL, SERVICES, TIME_ZONES, trim
from tests.unit.fakes import TRUSTS_NOBODY, let_aws_answer

WHOLE = Path(botocore.__file__).parent / "data"
ENDPOINTS: list[dict[str, str]] = [
    *(
        {"AWS_USE_FIPS_ENDPOINT": fips, "AWS_USE_DUALSTACK_ENDPOINT": dualstack}
        for fips, dualstack in product(["false", "true"], repeat=2)
    ),
    {"AWS_ENDPOINT_URL": "http://localhost:4566"},
]
# The handlers that concern our services or all, and that our calls do not need.
NOT_NEEDED = {
    "handle_service_name_alias",  # for two old names
    "_handle_sqs_compatible_error",  # names an error as the former protocol did
    "_handle_request_validation_mode_member",  # for checksums in S3
    "set_operation_specific_signer",  # for operations that are not signed, or signed for many regions
    "_set_auth_scheme_preference_signer",  # the same, by a setting
    "inject_api_version_header_if_needed",  # for services that ask for it
}
# One of each partition, and one that botocore does not know yet.
REGIONS = ["us-east-1", "eu-west-1", "us-gov-west-1", "cn-north-1", "us-iso-east-1", "us-isob-east-1", "xx-north-9"]
ITEM = {"conversation": {"S": "d/c"}, "reason": {"NULL": True}, "attempts": {"N": "1"}}
SCHEDULE = {
    "GroupName": "limits",
    "Name": "d-c",
    "Description": "d/c",
    "ScheduleExpression": "at(2026-11-25T08:37:41)",
    "ScheduleExpressionTimezone": "UTC",
    "FlexibleTimeWindow": {"Mode": "OFF"},
    "ActionAfterCompletion": "DELETE",
    "State": "ENABLED",
    "Target": {
        "Arn": "arn:queue",
        "RoleArn": "arn:role",
        "RetryPolicy": {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": 3600},
        "DeadLetterConfig": {"Arn": "arn:queue"},
        "Input": "{}",
    },
}
# By the name of the method: the service, the parameters, and the answer.
CALLS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "put_events": (
        "events",
        {
            "Entries": [
                {"Source": "s", "DetailType": "d", "Detail": "{}", "EventBusName": "bus", "TraceHeader": "Root=1-2-3"}
            ]
        },
        {"FailedEntryCount": 1, "Entries": [{"EventId": "1", "ErrorCode": "InternalFailure", "ErrorMessage": "text"}]},
    ),
    "get_item": (
        "dynamodb",
        {
            "TableName": "ended",
            "Key": {"conversation": {"S": "d/c"}},
            "ConsistentRead": True,
            "ReturnConsumedCapacity": "TOTAL",
        },
        {"Item": ITEM, "ConsumedCapacity": {"TableName": "ended", "CapacityUnits": 1.0}},
    ),
    "put_item": (
        "dynamodb",
        {
            "TableName": "ended",
            "Item": ITEM,
            "ConditionExpression": "attribute_not_exists(conversation) OR #status <> :ended",
            "ExpressionAttributeNames": {"#status": "status"},
            "ExpressionAttributeValues": {":ended": {"S": "ended"}},
        },
        {"Attributes": ITEM, "ConsumedCapacity": {"TableName": "ended", "CapacityUnits": 1.0}},
    ),
    "create_schedule": ("scheduler", SCHEDULE, {"ScheduleArn": "arn"}),
    "get_schedule": (
        "scheduler",
        {"GroupName": "limits", "Name": "d-c"},
        {**SCHEDULE, "Arn": "arn", "CreationDate": 1764060000.5},
    ),
    "update_schedule": ("scheduler", SCHEDULE, {"ScheduleArn": "arn"}),
    "change_message_visibility": (
        "sqs",
        {"QueueUrl": "https://example.com/1/queue", "ReceiptHandle": "handle", "VisibilityTimeout": 30},
        {},
    ),
    "send_message": (
        "sqs",
        {
            "QueueUrl": "https://example.com/1/queue",
            "MessageBody": "{}",
            "MessageAttributes": {
                "text": {"DataType": "String", "StringValue": "t"},
                "bytes": {"DataType": "Binary", "BinaryValue": b"b"},
            },
        },
        {"MessageId": "1", "MD5OfMessageBody": "99914b932bd37a50b983c5e7c90ae93b"},
    ),
}

PLAIN: Any = boto3.session.Session()  # one, because a session reads the data of a service only once


@pytest.fixture(autouse=True)
def _as_on_lambda(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a traced invocation, at a fixed time and with a fixed token."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "end-conversation")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-2-3;Parent=4;Sampled=1")
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: datetime(2026, 11, 25, tzinfo=UTC))
    monkeypatch.setattr("uuid.uuid4", lambda: UUID(int=0))


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of botocore as it is deployed."""
    tree = tmp_path_factory.mktemp("tree")
    for service in (*SERVICES, "s3"):
        shutil.copytree(WHOLE / service, tree / "botocore/data" / service)
    for file in WHOLE.glob("*.json"):
        shutil.copy(file, tree / "botocore/data")
    (tree / "boto3/data").mkdir(parents=True)
    (tree / TIME_ZONES).parent.mkdir(parents=True)
    (tree / TIME_ZONES).touch()
    trim(tree)
    return tree / "botocore/data"


@pytest.fixture(scope="module")
def factory(trimmed: Path) -> ClientFactory:
    """The factory of a deployment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.loaders.Loader", type("Trimmed", (Loader,), {"BUILTIN_DATA_PATH": str(trimmed)}))
        return ClientFactory(TRUSTS_NOBODY)


def plain_client(service: str) -> Any:
    retries: Any = {"total_max_attempts": 1, "mode": "standard"}
    return PLAIN.client(service, config=Config(retries=retries, user_agent=USER_AGENT, parameter_validation=False))


def outcome(create_client: Any, operation: str, status: int, body: dict[str, Any]) -> tuple[Any, Any]:
    """Return the request that is sent, and the answer or the error that the call makes of it."""
    service, parameters, _ = CALLS[operation]
    client = create_client(service)
    requests: list[Any] = let_aws_answer(client, (status, json.dumps(body).encode()))
    try:
        answer = getattr(client, operation)(**parameters)
    except ClientError as error:
        answer = [kind.__name__ for kind in type(error).__mro__], str(error), error.response
    [sent] = requests
    return (sent.method, sent.url, sent.body, dict(sent.headers)), answer


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
@pytest.mark.parametrize("operation", CALLS)
def test_requests_and_answers_are_those_of_a_plain_client(
    factory: ClientFactory, monkeypatch: pytest.MonkeyPatch, operation: str, endpoint: dict[str, str]
) -> None:
    """URL, headers, signature and body, in every partition. The trace of the invocation and the retry headers stay."""
    members = CALLS[operation][2]
    for name, value in endpoint.items():
        monkeypatch.setenv(name, value)
    for region in REGIONS:
        monkeypatch.setenv("AWS_DEFAULT_REGION", region)
        ours = outcome(factory.create, operation, 200, members)

        assert ours == outcome(plain_client, operation, 200, members)
        (_, _, _, headers), answer = ours
        assert b"Signature=" in headers["Authorization"]
        assert headers["X-Amzn-Trace-Id"] == b"Root=1-2-3;Parent=4;Sampled=1"
        assert headers["amz-sdk-request"].startswith(b"attempt=1")
        assert answer.keys() - {"ResponseMetadata"} == members.keys()


def errors_of(operation: str) -> list[Any]:
    """The errors that botocore's model names for an operation."""
    model = plain_client(CALLS[operation][0]).meta
    shapes: list[Any] = model.service_model.operation_model(model.method_to_api_mapping[operation]).error_shapes
    return shapes


@pytest.mark.parametrize("operation", CALLS)
def test_errors_are_those_of_a_plain_client(factory: ClientFactory, operation: str) -> None:
    """Each keeps its own class and members."""
    members = {"message": "text", "Message": "text", "ResourceType": "type", "Item": ITEM}
    for code in [*(error.name for error in errors_of(operation)), "Unheard"]:
        body = {"__type": f"com.amazonaws#{code}", **members}

        ours = outcome(factory.create, operation, 400, body)

        assert ours == outcome(plain_client, operation, 400, body)
        assert ours[1][0][0] == ("ClientError" if code == "Unheard" else code)


# Of the errors that all services share, those that can pass (Amazon DynamoDB API Reference, "Common Errors").
COMMON_ERRORS = {"InternalFailure", "RequestExpired", "RequestTimeoutException", "ServiceUnavailable"}


@pytest.mark.parametrize("operation", CALLS)
def test_what_botocore_retries_is_retryable(operation: str) -> None:
    """Of the error codes of an operation, these are in botocore's own lists or marked in its service model."""
    throttled, transient = cast("Any", ThrottledRetryableChecker), cast("Any", TransientRetryableChecker)
    # botocore has no public way to these lists.
    listed = {*throttled._THROTTLED_ERROR_CODES, *transient._TRANSIENT_ERROR_CODES}  # noqa: SLF001
    retried = {error.name for error in errors_of(operation) if error.name in listed or "retryable" in error.metadata}

    assert COMMON_ERRORS & listed
    assert retried | COMMON_ERRORS | {"ThrottlingException"} <= RETRYABLE_CODES


def test_every_handler_of_botocore_is_known() -> None:
    """If botocore adds one for our services, decide whether our calls need it."""
    known = {handler.__name__ for _, handler in HANDLERS} | NOT_NEEDED
    concerning = set()
    for event, handler, *_ in BUILTIN_HANDLERS:
        parts = event.split(".")
        is_ours = len(parts) == 1 or parts[1] == "*" or SERVICES.keys() & set(parts)
        if is_ours and parts[0] != "docs" and handler.__module__ == "botocore.handlers":
            concerning.add(handler.__name__)

    assert concerning == known


def test_only_what_is_used_is_kept(trimmed: Path) -> None:
    """Creating a client takes longer, the more data it searches.

    Of each service, botocore chooses the newest version, so a newer one must be named in `operations/trim.py`.
    """
    assert {entry.name for entry in trimmed.iterdir() if entry.is_dir()} == set(SERVICES)
    for service, (version, operations) in SERVICES.items():
        assert [entry.name for entry in (trimmed / service).iterdir()] == [version]
        assert version == Loader().determine_latest_version(service, "service-2")
        model = json.loads((trimmed / service / version / MODEL).read_bytes())
        assert model["operations"].keys() == operations
