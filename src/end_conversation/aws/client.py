"""boto3 clients that load no CA bundle of their own, and the one retry of a call to AWS."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import boto3.session
import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.handlers import add_recursion_detection_header, add_retry_headers, generate_idempotent_uuid
from botocore.httpsession import URLLib3Session
from urllib3 import PoolManager, Timeout

from end_conversation import USER_AGENT
from end_conversation.deadline import run_with_timeout
from end_conversation.errors import AwsCallFailed
from end_conversation.trust import failure_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from botocore.awsrequest import AWSPreparedRequest
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_sqs import SQSClient
    from urllib3 import BaseHTTPResponse

    from end_conversation.deadline import Clock, Deadline
    from end_conversation.trust import Trust

# The limits for connecting to one address, for each read, and for the whole try.
CONNECT_SECONDS, READ_SECONDS = 1, 1.5
TRY_SECONDS = CONNECT_SECONDS + READ_SECONDS
PAUSE_SECONDS = 0.2

# Of botocore's 137 handlers, those that our calls need: to register the others takes 6 % of a cold start.
HANDLERS: list[tuple[str, Any]] = [
    ("before-call", add_recursion_detection_header),
    ("before-parameter-build", generate_idempotent_uuid),
    ("request-created", add_retry_headers),
]

_FAILED = {"InternalException", "InternalFailure", "InternalServerError", "ServiceUnavailable"}
_TIMED_OUT = {"RequestTimeout", "RequestTimeoutException"}
_THROTTLED = {"KmsThrottled", "RequestLimitExceeded", "RequestThrottled", "Throttling", "ThrottlingException"}
_OVER_CAPACITY = {"TooManyRequestsException", "LimitExceededException", "ProvisionedThroughputExceededException"}
_IN_CONFLICT = {"ReplicatedWriteConflictException"}
# A signature expires in a sandbox that is frozen, or whose clock jumps. The second try signs again.
_BADLY_SIGNED = {"InvalidSignatureException", "SignatureDoesNotMatch"}
_BADLY_TIMED = {"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"}
# Error codes of AWS, in errors and in the entries of PutEvents, after which a second try can succeed.
RETRYABLE_CODES = _FAILED | _TIMED_OUT | _THROTTLED | _OVER_CAPACITY | _IN_CONFLICT | _BADLY_SIGNED | _BADLY_TIMED


class ClientFactory:
    """Creates boto3 clients that try once and connect with the TLS context of `trust`.

    botocore's own HTTP session loads a CA bundle for each connection, which takes longer than the whole rest of a
    first call, and it accepts no TLS context (boto/botocore#3171). So its session is replaced.
    """

    def __init__(self, trust: Trust) -> None:
        # At level DEBUG, botocore logs whole requests and answers.
        logging.getLogger("botocore").propagate = False
        self._trust = trust
        core = botocore.session.Session(include_builtin_handlers=False)
        for event, handler in HANDLERS:
            core.register(event, handler)
        self._session = boto3.session.Session(botocore_session=core)
        # botocore would compose its own user agent at each call. Our parameters are tested against the service models.
        self._config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"}, user_agent=USER_AGENT, parameter_validation=False
        )

    @overload
    def create(self, service: Literal["dynamodb"]) -> DynamoDBClient: ...
    @overload
    def create(self, service: Literal["events"]) -> EventBridgeClient: ...
    @overload
    def create(self, service: Literal["scheduler"]) -> EventBridgeSchedulerClient: ...
    @overload
    def create(self, service: Literal["sqs"]) -> SQSClient: ...
    def create(self, service: Literal["dynamodb", "events", "scheduler", "sqs"]) -> object:
        """Create the client of a service."""
        # `verify=True` stops botocore from reading AWS_CA_BUNDLE and REQUESTS_CA_BUNDLE: the TLS context decides.
        client: Any = self._session.client(service, config=self._config, verify=True)
        endpoint: Any = getattr(client, "_endpoint", None)  # botocore has no public way, see above
        if not isinstance(getattr(endpoint, "http_session", None), URLLib3Session):
            raise TypeError("this botocore keeps its HTTP session elsewhere: adapt ClientFactory")
        endpoint.http_session = _HttpSession(self._trust)
        return client


class _HttpSession:
    """Sends signed requests, in place of botocore's own session."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        timeout = Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        self._pool = PoolManager(ssl_context=trust.tls, timeout=timeout, retries=False)

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        # A worker thread is needed because a resolver can hang, and a server can send its answer byte by byte.
        # Any, because botocore's type stubs demand HTTPHeaders where botocore itself passes urllib3's.
        response: Any = run_with_timeout(lambda: self._trust.connect(lambda: self._exchange(request)), TRY_SECONDS)
        return AWSResponse(request.url, response.status, response.headers, _Body(response.data))

    def _exchange(self, request: AWSPreparedRequest) -> BaseHTTPResponse:
        return self._pool.urlopen(request.method, request.url, body=request.body, headers=request.headers)


class _Body(NamedTuple):
    """A body that was read, in the form that AWSResponse expects."""

    content: bytes

    def stream(self) -> list[bytes]:
        return [self.content]


def expect_time_for_a_try(deadline: Deadline) -> None:
    """Raise AwsCallFailed if a call that begins now could end after the deadline."""
    if deadline.left() < TRY_SECONDS:
        raise AwsCallFailed("NoTimeLeft", retryable=False)


def call_with_retry[T](call: Callable[[], T], deadline: Deadline, clock: Clock, keep_seconds: float = 0) -> T:
    """Make a call if there is time for it, and once more if that can help. Raises AwsCallFailed.

    The second try helps if AWS throttles or fails for a moment, and if a kept connection died or a signature expired
    while the sandbox was frozen. It leaves `keep_seconds` of the deadline for later calls.
    """
    return retry(lambda: translate_errors(call), deadline, clock, keep_seconds)


def retry[T](action: Callable[[], T], deadline: Deadline, clock: Clock, keep_seconds: float = 0) -> T:
    """Like `call_with_retry`, for an action that makes several calls and raises AwsCallFailed itself."""
    expect_time_for_a_try(deadline)
    try:
        return action()
    except AwsCallFailed as error:
        if not error.retryable or deadline.left() < PAUSE_SECONDS + TRY_SECONDS + keep_seconds:
            raise
    clock.sleep(PAUSE_SECONDS)
    return action()


def expect_member[T: Mapping[str, Any]](name: str, answer: T) -> T:
    """Return the answer if it has this member, as every complete answer does. Raises AwsCallFailed.

    botocore treats a truncated 200 as an empty answer.
    """
    if name not in answer:
        raise AwsCallFailed("IncompleteAnswer", retryable=True)
    return answer


def error_code(text: str) -> str:
    """Return an error code of AWS as far as it looks like one. It could be anything, and it is logged."""
    return re.match("[A-Za-z0-9.]{0,64}", text)[0] or "Unknown"  # type: ignore[index]  # it always matches


def translate_errors[T](call: Callable[[], T]) -> T:
    """Make one call. Raises AwsCallFailed, also for a bug in `call`, so keep our own logic out of it."""
    try:
        return call()
    except AwsCallFailed:
        raise
    except ClientError as error:
        code = error.response["Error"]["Code"]
        status_code = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        retryable = code in RETRYABLE_CODES or status_code >= 500  # noqa: PLR2004 - server errors
        raise AwsCallFailed(error_code(code), retryable=retryable) from None
    except BotoCoreError as error:
        # Missing credentials, for example. Nothing was sent, and a second try would fail in the same way.
        raise AwsCallFailed(type(error).__name__, retryable=False) from None
    except Exception as error:  # noqa: BLE001 - urllib3's errors, and whatever botocore's parser raises on a bad answer
        raise AwsCallFailed(failure_name(error), retryable=True) from None
