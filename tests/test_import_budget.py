"""What a cold start may load: time is money there, and a module more is never noticed by itself."""

import pytest

from tests.cold_start import cold_start

HTTP_ONLY = {"ALLOWED_DEPLOYMENT_IDS": "d1"}
WITH_BUS = HTTP_ONLY | {"EVENT_BUS_NAME": "bus"}
WITH_TABLE = WITH_BUS | {"ENDED_TABLE_NAME": "ended"}

# Each takes longer to load than the whole door that would use it.
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
    "end_conversation.dynamodb",
    "end_conversation.eventbridge",
    "end_conversation.events",
    "end_conversation.record",
}


@pytest.mark.parametrize(("environ", "budget"), [(HTTP_ONLY, 290), (WITH_BUS, 470), (WITH_TABLE, 475)])
def test_cold_start_keeps_to_its_number_of_modules(environ: dict[str, str], budget: int) -> None:
    """Raise a budget only for what is worth it: `make bench` says what it costs."""
    assert len(cold_start(environ)) <= budget


@pytest.mark.parametrize(
    ("environ", "unused"),
    [(HTTP_ONLY, NOT_FOR_HTTP), (WITH_BUS, NEVER | {"boto3.dynamodb.types"}), (WITH_TABLE, NEVER)],
)
def test_cold_start_loads_nothing_that_the_deployment_does_not_use(environ: dict[str, str], unused: set[str]) -> None:
    """Neither what people usually add, nor another deployment's parts."""
    assert cold_start(environ) & unused == set()


def test_the_event_deployment_builds_its_clients_at_cold_start() -> None:
    """Lambda gives the cold start a whole processor, and the first call a slice of one."""
    assert {"boto3", "end_conversation.dynamodb", "end_conversation.eventbridge"} <= cold_start(WITH_TABLE)
