"""What the build leaves out of botocore's data: nothing that a request of ours depends on."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader
from botocore.session import Session

from local.build import build
from operations.trim import SERVICES

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest

WHOLE = Path(botocore.__file__).parent / "data"
# One of each partition, and one that botocore does not know yet.
REGIONS = ["us-east-1", "eu-west-1", "us-gov-west-1", "cn-north-1", "us-iso-east-1", "us-isob-east-1", "xx-north-9"]
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("events", "put_events", {"Entries": [{"Source": "s", "DetailType": "d", "Detail": "{}", "EventBusName": "bus"}]}),
    ("dynamodb", "get_item", {"TableName": "ended", "Key": {"conversation": {"S": "d/c"}}, "ConsistentRead": True}),
    ("dynamodb", "put_item", {"TableName": "ended", "Item": {"conversation": {"S": "d/c"}, "reason": {"NULL": True}}}),
]


@pytest.fixture(scope="module")
def trimmed() -> Path:
    """The data of botocore as it is deployed."""
    return build().parent / "EventFunction/botocore/data"


class Sent(Exception):
    """Holds a request at the moment when it would be sent."""


def request(data: Path, region: str, call: tuple[str, str, dict[str, Any]], config: Config) -> tuple[Any, ...]:
    """What would be sent, and the scope of its signature, by a client that has only this data; or why nothing would."""
    loader = Loader(extra_search_paths=[str(data)], include_default_search_paths=False)
    loader.BUILTIN_DATA_PATH = str(data)  # data from elsewhere would be asked differently for endpoints
    session: Any = Session()
    session.register_component("data_loader", loader)
    service, operation, arguments = call

    def stop(request: AWSPreparedRequest, **_: object) -> None:
        raise Sent(request)

    try:
        client = session.create_client(service, region_name=region, config=config)
        client.meta.events.register("before-send", stop)
        getattr(client, operation)(**arguments)
    except BotoCoreError as error:
        return type(error), str(error)
    except Sent as sent:
        [asked] = sent.args
    scope = re.search(r"Credential=\w+/\d+/([^,]+)", str(asked.headers["Authorization"]))
    return asked.method, asked.url, asked.body, asked.headers["X-Amz-Target"], scope and scope[1]


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[1])
def test_requests_are_those_of_the_untrimmed_data(
    trimmed: Path, region: str, call: tuple[str, str, dict[str, Any]]
) -> None:
    """The same endpoint, body and signing scope, with and without FIPS and dualstack."""
    for fips, dualstack in product([False, True], repeat=2):
        config = Config(use_fips_endpoint=fips, use_dualstack_endpoint=dualstack)
        assert request(trimmed, region, call, config) == request(WHOLE, region, call, config)


def test_nothing_is_kept_of_other_services(trimmed: Path) -> None:
    """A client costs the more to make, the more data there is to search."""
    assert {entry.name for entry in trimmed.iterdir() if entry.is_dir()} == set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_the_newest_version_is_kept(trimmed: Path, service: str) -> None:
    """It is the one that botocore chooses, so a newer one must be named in `operations/trim.py`."""
    assert [entry.name for entry in (trimmed / service).iterdir()] == [
        Loader().determine_latest_version(service, "service-2")
    ]


def test_data_of_boto3s_resources_is_left_out(trimmed: Path) -> None:
    """No resource is ever made, only clients."""
    assert (WHOLE.parent.parent / "boto3/data").exists()
    assert not (trimmed.parent.parent / "boto3/data").exists()


def test_botocores_ca_bundle_is_kept(trimmed: Path) -> None:
    """A client without another bundle falls back on it."""
    assert (trimmed.parent / "cacert.pem").read_bytes() == (WHOLE.parent / "cacert.pem").read_bytes()
