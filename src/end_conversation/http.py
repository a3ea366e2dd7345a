"""The HTTP door: passes a request to the operation that its path names. Problems follow RFC 9457."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from end_conversation.conversation import Conversation, Reason, Status
from end_conversation.deadline import Deadline
from end_conversation.ending import deployment_not_allowed
from end_conversation.errors import InvalidId

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from aws_lambda_powertools.utilities.typing import LambdaContext

    from end_conversation.conversation import Result
    from end_conversation.deadline import Clock
    from end_conversation.ending import EndConversation
    from end_conversation.telemetry import Telemetry, Trigger

RESERVE_SECONDS = 0.5
RETRY_AFTER_SECONDS = 5
MAX_RETRY_AFTER_SECONDS = 3600

_PATH = "/v2/deployments/{deployment_id}/conversations/{conversation_id}"

# The HTTP status and the detail of each result, by its reason or else by its status.
_ANSWERS: dict[str | None, tuple[HTTPStatus, str]] = {
    Status.ENDED: (HTTPStatus.OK, ""),
    Status.UNCONFIRMED: (HTTPStatus.ACCEPTED, ""),
    Status.NOT_FOUND: (
        HTTPStatus.NOT_FOUND,
        "Tavus has no active conversation with these ids: an id is wrong, or the conversation is already over.",
    ),
    Reason.DEPLOYMENT_NOT_ALLOWED: (HTTPStatus.FORBIDDEN, "This deployment is not on the allow-list."),
    Reason.TAVUS_REJECTED: (
        HTTPStatus.BAD_GATEWAY,
        "Tavus rejected the request, and will reject it again.",
    ),
    Reason.TAVUS_THROTTLED: (HTTPStatus.SERVICE_UNAVAILABLE, "Tavus is throttling requests. Try again later."),
    Reason.TAVUS_ERROR: (HTTPStatus.SERVICE_UNAVAILABLE, "Tavus failed. Try again later."),
    Reason.TAVUS_UNREACHABLE: (HTTPStatus.SERVICE_UNAVAILABLE, "Tavus cannot be reached. Try again later."),
    Reason.TAVUS_TIMEOUT: (HTTPStatus.GATEWAY_TIMEOUT, "Tavus did not answer in time. Try again."),
}


def is_http_request(event: dict[str, Any]) -> bool:
    """Whether an event with a `requestContext` is a request from an HTTP API, a REST API or a Function URL.

    Other services send a `requestContext` too: WebSocket APIs, VPC Lattice, Lambda's destinations, and API Gateway when
    it calls an authorizer.
    """
    is_authorizer_request = event.get("type") == "REQUEST" or "methodArn" in event or "routeArn" in event
    return _method(event) is not None and not is_authorizer_request


class Request(NamedTuple):
    """A request for a conversation: Lambda's event, the conversation, the time left for it, and Lambda's request id."""

    event: dict[str, Any]
    conversation: Conversation
    deadline: Deadline
    request_id: str

    def problem(
        self, status: HTTPStatus, reason: str | None, detail: str, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Build a problem that names this request and its conversation."""
        ids = {"request_id": self.request_id, "conversation_id": self.conversation.conversation_id}
        return problem(status, headers, reason=reason, detail=detail, **ids)


class Operation(Protocol):
    """Answers the requests whose path ends in its name, within `max_seconds`."""

    trigger: Trigger
    method: str
    max_seconds: float

    def __call__(self, request: Request) -> dict[str, Any]: ...


class HttpDoor:
    """Passes a request to the operation that its path names. Invalid input gets an error answer and never raises.

    An unknown path is counted under `own_trigger`.
    """

    def __init__(
        self,
        operations: Mapping[str, Operation],
        allowed_deployment_ids: Container[str],
        own_trigger: Trigger,
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        self._operations = operations
        self._allowed = allowed_deployment_ids
        self._own_trigger = own_trigger
        self._telemetry = telemetry
        self._clock = clock

    def __call__(self, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        """Answer one request, in the format of Lambda's proxy integration."""
        request_id = context.aws_request_id
        name, ids = _parse_path(event)
        operation = self._operations.get(name)
        if operation is None or ids is None:
            detail = f"The path must end in {' or '.join(f'{_PATH}/{known}' for known in self._operations)}."
            self._telemetry.invalid(self._own_trigger, "unknown_path")
            return problem(HTTPStatus.NOT_FOUND, reason="unknown_path", detail=detail, request_id=request_id)
        seconds = min(context.get_remaining_time_in_millis() / 1000, operation.max_seconds)
        deadline = Deadline(self._clock, seconds, RESERVE_SECONDS)
        if _method(event) != operation.method:
            self._telemetry.invalid(operation.trigger, "method_not_allowed")
            return problem(
                HTTPStatus.METHOD_NOT_ALLOWED,
                {"Allow": operation.method},
                reason="method_not_allowed",
                detail=f"Use {operation.method} on this path.",
                request_id=request_id,
            )
        try:
            conversation = Conversation(*ids)
        except InvalidId as error:
            self._telemetry.invalid(operation.trigger, "invalid_id")
            return problem(HTTPStatus.BAD_REQUEST, reason="invalid_id", detail=f"{error}.", request_id=request_id)
        request = Request(event, conversation, deadline, request_id)
        if conversation.deployment_id not in self._allowed:
            result = deployment_not_allowed(self._clock)
            self._telemetry.result(operation.trigger, conversation, result, deadline)
            return answer(request, result)
        return operation(request)


class EndNow:
    """Answers POST …/end with the result of ending the conversation."""

    trigger: Trigger = "http"
    method = "POST"
    max_seconds: float = 25  # API Gateway gives up on a function after 30 s (HTTP API) or 29 s (REST API)

    def __init__(self, end_conversation: EndConversation, telemetry: Telemetry) -> None:
        self._end_conversation = end_conversation
        self._telemetry = telemetry

    def __call__(self, request: Request) -> dict[str, Any]:
        result = self._end_conversation(request.conversation, request.deadline)
        self._telemetry.result(self.trigger, request.conversation, result, request.deadline)
        return answer(request, result)


def _method(event: dict[str, Any]) -> str | None:
    match event:
        case {"requestContext": {"http": {"method": str(method)}}} | {"httpMethod": str(method)}:
            return method
    return None


def _parse_path(event: dict[str, Any]) -> tuple[str, tuple[Any, Any] | None]:
    """Return the last segment of the path, and the deployment id and the conversation id, both unchecked."""
    match event:
        case {"rawPath": str(path)} | {"path": str(path)}:
            segments = path.split("/")
        case _:
            return "", None
    match event:
        case {"pathParameters": {"deployment_id": deployment_id, "conversation_id": conversation_id}}:
            return segments[-1], (deployment_id, conversation_id)
    match segments:
        # A stage or a base path may precede ours.
        case [*_, "v2", "deployments", deployment_id, "conversations", conversation_id, _]:
            return segments[-1], (deployment_id, conversation_id)
    return segments[-1], None


def answer(request: Request, result: Result) -> dict[str, Any]:
    """Build the answer for a result, as `_ANSWERS` says."""
    # Where the status alone decides the answer, it is also the reason of the problem.
    key = result.reason if result.reason in _ANSWERS else result.status
    status, detail = _ANSWERS[key]
    if status.is_success:
        return success(status, {"conversation_id": request.conversation.conversation_id, "status": result.status})
    headers = {"Retry-After": _retry_after(result)} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
    return request.problem(status, key, detail, headers)


def success(status: HTTPStatus, body: dict[str, str]) -> dict[str, Any]:
    """Build an answer with a JSON body."""
    return _proxy(status, {"Content-Type": "application/json"}, body)


def problem(status: HTTPStatus, headers: Mapping[str, str] | None = None, **members: str | None) -> dict[str, Any]:
    """Build an answer with a problem (RFC 9457): a reason, a detail, a request_id, and a conversation_id if valid."""
    # The title of an about:blank problem is the phrase of the status (RFC 9457, 4.2.1).
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, **members}
    return _proxy(status, {"Content-Type": "application/problem+json", **(headers or {})}, body)


def _retry_after(result: Result) -> str:
    if result.retry_after is None:
        return str(RETRY_AFTER_SECONDS)
    return str(math.ceil(min(max(result.retry_after, 1), MAX_RETRY_AFTER_SECONDS)))


def _proxy(status: HTTPStatus, headers: dict[str, str], body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "statusCode": status.value,
        "headers": {"Cache-Control": "no-store", **headers},
        "body": json.dumps(body),
        "isBase64Encoded": False,
    }
