"""One call to AWS: bounded in time, made once more where that can help, its failure told by kind."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, overload

import boto3
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3 import PoolManager, Timeout

from end_conversation.deadline import within

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from botocore.awsrequest import AWSPreparedRequest
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient

    from end_conversation.deadline import Clock

# A silent server is left after these, so that a thread that was given up ends soon.
CONNECT_SECONDS, READ_SECONDS = 1, 2
PAUSE_SECONDS = 0.2

# AWS' own words for "try again", in an error and in an entry that PutEvents refused.
_MAY_PASS = {
    "InternalException",
    "InternalFailure",
    "InternalServerError",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}


class AwsRefused(Exception):
    """AWS did not do what it was asked. Its text is the kind of the failure, never AWS' own."""

    def __init__(self, kind: str, *, may_pass: bool | None = None) -> None:
        super().__init__(kind)
        self.may_pass = kind in _MAY_PASS if may_pass is None else may_pass


@overload
def client(service: Literal["dynamodb"], tls: ssl.SSLContext) -> DynamoDBClient: ...
@overload
def client(service: Literal["events"], tls: ssl.SSLContext) -> EventBridgeClient: ...
def client(service: Literal["dynamodb", "events"], tls: ssl.SSLContext) -> object:
    """Make a client of boto3 that tries once, and all of whose connections trust what `tls` has loaded.

    botocore's own HTTP session loads a CA bundle for each connection: its `_setup_ssl_cert` sets one on each, and
    urllib3 then loads it. That takes longer than all else that a first call does.
    """
    # At DEBUG, which Lambda can set for every logger, botocore quotes what is sent and answered.
    logging.getLogger("botocore").propagate = False
    # One layer retries, and it is ours. `verify` keeps botocore from reading AWS_CA_BUNDLE and REQUESTS_CA_BUNDLE.
    once = Config(retries={"total_max_attempts": 1, "mode": "standard"})
    made: Any = boto3.client(service, config=once, verify=True)
    # A before-send handler could send too, but botocore calls all of them: under moto, which has one, ours would still.
    made._endpoint.http_session = _HttpSession(tls)  # noqa: SLF001 - for the reason above
    return made


class _HttpSession:
    """Sends what a client has signed."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        timeout = Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        self._pool = PoolManager(ssl_context=tls, timeout=timeout, retries=False)

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        # Any: botocore's stubs want HTTPHeaders here, where botocore itself passes urllib3's.
        response: Any = self._pool.urlopen(
            request.method,
            request.url,
            body=request.body,
            headers=request.headers,
            preload_content=False,
        )
        return AWSResponse(request.url, response.status, response.headers, response)


def ask[T](work: Callable[[], T], seconds: float, clock: Clock) -> T:
    """What `work` returns, at the first try or a second, all within so many seconds. Raises AwsRefused.

    The second try is for what AWS calls passing, and for a kept connection that died while the sandbox was frozen.
    """
    over = clock.monotonic() + seconds
    try:
        return _ask_once(work, seconds / 2)
    except AwsRefused as refused:
        if not refused.may_pass:
            raise
    clock.sleep(min(PAUSE_SECONDS, seconds / 10))
    return _ask_once(work, over - clock.monotonic())


def _ask_once[T](work: Callable[[], T], seconds: float) -> T:
    try:
        return within(seconds, work)
    except AwsRefused:
        raise
    except ClientError as error:
        code = error.response["Error"]["Code"]
        http_status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise AwsRefused(code, may_pass=True if http_status >= 500 else None) from None  # noqa: PLR2004 - server errors
    except BotoCoreError as error:
        # Credentials are missing or a parameter is invalid: nothing was sent, nor would be.
        raise AwsRefused(type(error).__name__, may_pass=False) from None
    except Exception as error:  # noqa: BLE001 - besides urllib3's, botocore's parser fails in any way
        raise AwsRefused(type(error).__name__, may_pass=True) from None
