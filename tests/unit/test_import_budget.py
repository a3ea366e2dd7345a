"""What a cold start loads. Each module adds to its time."""

from functools import cache

import pytest

from tests.unit.cold_start import cold_start

HTTP_ONLY = {"ALLOWED_DEPLOYMENT_IDS": "d1"}
WITH_BUS = HTTP_ONLY | {"EVENT_BUS_NAME": "bus"}
WITH_TABLE = WITH_BUS | {"ENDED_TABLE_NAME": "ended"}
WITH_QUEUES = WITH_TABLE | {"TIMEOUT_QUEUE_URL": "https://sqs/timeouts", "FAILED_QUEUE_URL": "https://sqs/failed"}
WITH_LIMITS = HTTP_ONLY | {"TIMER_GROUP_NAME": "limits", "TIMER_TARGET": '{"Arn": "arn:queue", "RoleArn": "arn:role"}'}
UNTRACED = HTTP_ONLY | {"POWERTOOLS_TRACE_DISABLED": "true"}
DEPLOYMENTS = {
    "http": HTTP_ONLY,
    "untraced": UNTRACED,
    "bus": WITH_BUS,
    "table": WITH_TABLE,
    "queues": WITH_QUEUES,
    "limits": WITH_LIMITS,
}

# Each takes longer to load than the part of the program that would use it.
NEVER = {
    "asyncio",
    "aws_lambda_powertools.event_handler",
    "aws_lambda_powertools.utilities.data_classes",
    "aws_lambda_powertools.utilities.idempotency",
    "aws_xray_sdk.ext.botocore",
    "pydantic",
    "requests",
}
NOT_FOR_HTTP = NEVER | {
    "boto3",
    "botocore.session",
    "end_conversation.aws",
    "end_conversation.events",
    "end_conversation.limits",
    "end_conversation.messages",
}
NOT_FOR_TABLE = NEVER | {"end_conversation.aws.queue", "end_conversation.messages"}
NOT_FOR_BUS = NOT_FOR_TABLE | {"boto3.dynamodb.types", "end_conversation.aws.table"}
NOT_FOR_LIMITS = NOT_FOR_BUS | {"aws_xray_sdk", "end_conversation.aws.bus", "end_conversation.events"}


@cache
def modules(deployment: str) -> set[str]:
    return cold_start(DEPLOYMENTS[deployment])


@pytest.mark.parametrize(
    ("deployment", "budget"),
    [("http", 284), ("bus", 471), ("table", 474), ("queues", 476), ("limits", 420), ("untraced", 245)],
)
def test_a_cold_start_loads_no_more_modules_than_its_budget(deployment: str, budget: int) -> None:
    """Before you raise a budget, look at what it costs: `make bench`."""
    assert len(modules(deployment)) <= budget


@pytest.mark.parametrize(
    ("deployment", "unused"),
    [
        ("http", NOT_FOR_HTTP),
        ("bus", NOT_FOR_BUS),
        ("table", NOT_FOR_TABLE),
        ("queues", NEVER),
        ("limits", NOT_FOR_LIMITS),
        ("untraced", NOT_FOR_HTTP | {"aws_xray_sdk"}),
    ],
)
def test_a_cold_start_loads_nothing_that_the_deployment_does_not_use(deployment: str, unused: set[str]) -> None:
    assert modules(deployment) & unused == set()


def test_clients_are_imported_during_the_cold_start() -> None:
    """Lambda throttles the processor in the first call, but not during the cold start."""
    assert {"boto3", "end_conversation.aws.bus", "end_conversation.aws.table"} <= modules("table")
    assert {"boto3", "end_conversation.aws.schedules"} <= modules("limits")
