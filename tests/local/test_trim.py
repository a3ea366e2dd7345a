"""What the build leaves out of botocore's data: nothing that a request of ours, or its answer, depends on."""

import json
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

import botocore
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader
from botocore.session import Session

from local.build import build
from operations.trim import MODEL, SERVICES
from tests.unit.aws_calls import CALLS, ITEM, REGIONS
from tests.unit.fakes import let_aws_answer

WHOLE = Path(botocore.__file__).parent / "data"


@pytest.fixture(scope="module")
def trimmed() -> Path:
    """The data of botocore as it is deployed."""
    return build().parent / "EventFunction/botocore/data"


@pytest.fixture(autouse=True)
def _same_time_and_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests and signatures contain the time and random ids."""
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: datetime(2026, 11, 25, tzinfo=UTC))
    monkeypatch.setattr("uuid.uuid4", lambda: UUID(int=0))


def create_client(data: Path, service: str, region: str = "eu-west-1", **options: Any) -> Any:
    """Create a client that has only this data and tries once."""
    loader = Loader(extra_search_paths=[str(data)], include_default_search_paths=False)
    loader.BUILTIN_DATA_PATH = str(data)  # data from elsewhere would be asked differently for endpoints
    session: Any = Session()
    session.register_component("data_loader", loader)
    config = Config(retries={"total_max_attempts": 1, "mode": "standard"}, **options)
    return session.create_client(service, region_name=region, config=config)


def request(data: Path, operation: str, region: str, **options: Any) -> tuple[Any, ...]:
    """Return the whole request that would be sent, or why there would be none."""
    service, parameters, _ = CALLS[operation]
    try:
        client = create_client(data, service, region, **options)
        requests: list[Any] = let_aws_answer(client, (200, b"{}"))
        getattr(client, operation)(**parameters)
    except BotoCoreError as error:
        return type(error), str(error)
    [sent] = requests
    return sent.method, sent.url, sent.body, dict(sent.headers)


def outcome(data: Path, operation: str, status: int, body: dict[str, Any]) -> Any:
    """Return what a client makes of an answer: the parsed answer, or the exception's classes and content."""
    service, parameters, _ = CALLS[operation]
    client = create_client(data, service)
    let_aws_answer(client, (status, json.dumps(body).encode()))
    try:
        return getattr(client, operation)(**parameters)
    except ClientError as error:
        return [kind.__name__ for kind in type(error).__mro__], str(error), error.response


def errors(operation: str) -> list[str]:
    """Return the errors of an operation in the whole model, and one that is in no model."""
    client = create_client(WHOLE, CALLS[operation][0])
    name = client.meta.method_to_api_mapping[operation]
    return [*(shape.name for shape in client.meta.service_model.operation_model(name).error_shapes), "Unheard"]


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("operation", CALLS)
def test_requests_are_those_of_the_untrimmed_data(trimmed: Path, region: str, operation: str) -> None:
    """The same endpoint, headers, signature and body, byte for byte, with and without FIPS and dualstack."""
    for fips, dualstack in product([False, True], repeat=2):
        options = {"use_fips_endpoint": fips, "use_dualstack_endpoint": dualstack}
        sent = request(trimmed, operation, region, **options)
        assert sent == request(WHOLE, operation, region, **options)
        assert fips or dualstack or b"Signature=" in sent[3]["Authorization"]


@pytest.mark.parametrize("operation", CALLS)
def test_answers_are_parsed_as_with_the_untrimmed_data(trimmed: Path, operation: str) -> None:
    """Each error keeps its own class and members."""
    answer = CALLS[operation][2]
    found = outcome(trimmed, operation, 200, answer)
    assert found == outcome(WHOLE, operation, 200, answer)
    assert found.keys() - {"ResponseMetadata"} == answer.keys()
    members = {"message": "text", "Message": "text", "ResourceType": "type", "Item": ITEM}
    for code in errors(operation):
        body = {"__type": f"com.amazonaws#{code}", **members}
        found = outcome(trimmed, operation, 400, body)
        assert found == outcome(WHOLE, operation, 400, body)
        assert found[0][0] == ("ClientError" if code == "Unheard" else code)


def test_only_what_is_used_is_kept(trimmed: Path) -> None:
    """A client costs the more to make, the more data there is to search.

    Of each service, botocore chooses the newest version, so a newer one must be named in `operations/trim.py`.
    """
    assert {entry.name for entry in trimmed.iterdir() if entry.is_dir()} == set(SERVICES)
    for service, (version, operations) in SERVICES.items():
        assert [entry.name for entry in (trimmed / service).iterdir()] == [version]
        assert version == Loader().determine_latest_version(service, "service-2")
        model = json.loads((trimmed / service / version / MODEL).read_bytes())
        assert model["operations"].keys() == operations
