"""Clients without most of botocore's handlers make the requests and the answers of plain ones."""

import json
from datetime import UTC, datetime
from itertools import product
from typing import Any
from uuid import UUID

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.handlers import BUILTIN_HANDLERS

from end_conversation import USER_AGENT
from end_conversation.aws.client import HANDLERS, ClientFactory
from tests.unit.aws_calls import CALLS, ITEM, REGIONS
from tests.unit.fakes import TRUSTS_NOBODY, let_aws_answer

ENDPOINTS: list[dict[str, str]] = [
    *(
        {"AWS_USE_FIPS_ENDPOINT": fips, "AWS_USE_DUALSTACK_ENDPOINT": dualstack}
        for fips, dualstack in product(["false", "true"], repeat=2)
    ),
    {"AWS_ENDPOINT_URL": "http://localhost:4566"},
]
SERVICES = {"dynamodb", "events", "scheduler", "sqs"}
# The handlers that concern our services or all, and that our calls do not need.
NOT_NEEDED = {
    "handle_service_name_alias",  # for two old names
    "_handle_sqs_compatible_error",  # names an error as the former protocol did
    "_handle_request_validation_mode_member",  # for checksums in S3
    "set_operation_specific_signer",  # for operations that are not signed, or signed for many regions
    "_set_auth_scheme_preference_signer",  # the same, by a setting
    "inject_api_version_header_if_needed",  # for services that ask for it
}


@pytest.fixture(autouse=True)
def _as_on_lambda(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a traced invocation, at a fixed time and with a fixed token."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "end-conversation")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-2-3;Parent=4;Sampled=1")
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: datetime(2026, 11, 25, tzinfo=UTC))
    monkeypatch.setattr("uuid.uuid4", lambda: UUID(int=0))


# One each, because a session reads the data of a service only once.
FACTORY = ClientFactory(TRUSTS_NOBODY)
PLAIN = boto3.session.Session()


def our_client(service: Any) -> Any:
    return FACTORY.create(service)


def plain_client(service: str) -> Any:
    new_client: Any = PLAIN.client  # its overloads require a literal service name
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"}, user_agent=USER_AGENT, parameter_validation=False
    )
    return new_client(service, config=config)


def outcome(client: Any, operation: str, status: int, body: dict[str, Any]) -> tuple[Any, Any]:
    """Return the request that is sent, and the answer or the error that the call makes of it."""
    requests: list[Any] = let_aws_answer(client, (status, json.dumps(body).encode()))
    try:
        answer = getattr(client, operation)(**CALLS[operation][1])
    except ClientError as error:
        answer = [kind.__name__ for kind in type(error).__mro__], str(error), error.response
    [sent] = requests
    return (sent.method, sent.url, sent.body, dict(sent.headers)), answer


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
@pytest.mark.parametrize("operation", CALLS)
def test_requests_and_answers_are_those_of_a_plain_client(
    monkeypatch: pytest.MonkeyPatch, operation: str, endpoint: dict[str, str]
) -> None:
    """URL, headers, signature and body, in every partition. The trace of the invocation and the retry headers stay."""
    service, _, members = CALLS[operation]
    for name, value in endpoint.items():
        monkeypatch.setenv(name, value)
    for region in REGIONS:
        monkeypatch.setenv("AWS_DEFAULT_REGION", region)
        ours = outcome(our_client(service), operation, 200, members)

        assert ours == outcome(plain_client(service), operation, 200, members)
        headers = ours[0][3]
        assert b"Signature=" in headers["Authorization"]
        assert headers["X-Amzn-Trace-Id"] == b"Root=1-2-3;Parent=4;Sampled=1"
        assert headers["amz-sdk-request"].startswith(b"attempt=1")


@pytest.mark.parametrize("operation", CALLS)
def test_errors_are_those_of_a_plain_client(operation: str) -> None:
    service = CALLS[operation][0]
    model = plain_client(service).meta
    shapes = model.service_model.operation_model(model.method_to_api_mapping[operation]).error_shapes
    for code in [*(shape.name for shape in shapes), "Unheard"]:
        body = {"__type": f"com.amazonaws#{code}", "message": "text", "Message": "text", "Item": ITEM}

        ours = outcome(our_client(service), operation, 400, body)

        assert ours == outcome(plain_client(service), operation, 400, body)


def test_every_handler_of_botocore_is_known() -> None:
    """If botocore adds one for our services, decide whether our calls need it."""
    known = {handler.__name__ for _, handler in HANDLERS} | NOT_NEEDED
    concerning = set()
    for event, handler, *_ in BUILTIN_HANDLERS:
        parts = event.split(".")
        is_ours = len(parts) == 1 or parts[1] == "*" or SERVICES & set(parts)
        if is_ours and parts[0] != "docs" and handler.__module__ == "botocore.handlers":
            concerning.add(handler.__name__)

    assert concerning == known
