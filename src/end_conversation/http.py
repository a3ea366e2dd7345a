"""The HTTP door: answers a request with a result, or with a problem (RFC 9457)."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from end_conversation.conversation import Conversation, Reason, Status
from end_conversation.deadline import Deadline
from end_conversation.errors import InvalidId

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from end_conversation.conversation import Result
    from end_conversation.deadline import Clock
    from end_conversation.ending import End
    from end_conversation.telemetry import Telemetry

# API Gateway gives up on a function after 30 s (HTTP API) or 29 s (REST API).
MAX_SECONDS = 25
RESERVE_SECONDS = 0.5
DEFAULT_RETRY_AFTER_SECONDS = 5
MAX_RETRY_AFTER_SECONDS = 3600

_PATH = "/v2/deployments/{deployment_id}/conversations/{conversation_id}/end"

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
    it asks an authorizer.
    """
    is_authorizer_request = event.get("type") == "REQUEST" or "methodArn" in event or "routeArn" in event
    return _method(event) is not None and not is_authorizer_request


class HttpDoor:
    """Ends the conversation that a request names. Bad input is answered and never raises."""

    def __init__(self, end: End, telemetry: Telemetry, clock: Clock) -> None:
        self._end = end
        self._telemetry = telemetry
        self._clock = clock

    def __call__(self, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        """Answer one request, in the format of Lambda's proxy integration."""
        seconds = min(context.get_remaining_time_in_millis() / 1000, MAX_SECONDS)
        deadline = Deadline(self._clock, seconds, RESERVE_SECONDS)
        request_id = context.aws_request_id
        ids = _ids(event)
        if ids is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "unknown_path", f"The path must end in {_PATH}.", request_id)
        if _method(event) != "POST":
            reason, detail = "method_not_allowed", "Use POST to end a conversation."
            return self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, reason, detail, request_id, {"Allow": "POST"})
        try:
            conversation = Conversation(*ids)
        except InvalidId as error:
            return self._refuse(HTTPStatus.BAD_REQUEST, "invalid_id", f"{error}.", request_id)
        result = self._end(conversation, deadline)
        self._telemetry.result("http", conversation, result, deadline)
        return _answer(conversation, result, request_id)

    def _refuse(
        self, status: HTTPStatus, reason: str, detail: str, request_id: str, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        self._telemetry.invalid("http", reason)
        return _problem(status, headers or {}, reason=reason, detail=detail, request_id=request_id)


def _method(event: dict[str, Any]) -> str | None:
    match event:
        case {"requestContext": {"http": {"method": str(method)}}} | {"httpMethod": str(method)}:
            return method
    return None


def _ids(event: dict[str, Any]) -> tuple[Any, Any] | None:
    """Return the deployment id and the conversation id, both unchecked. None if the path is not ours."""
    match event:
        case {"rawPath": str(path)} | {"path": str(path)}:
            segments = path.split("/")
        case _:
            return None
    match event:
        case {"pathParameters": {"deployment_id": deployment_id, "conversation_id": conversation_id}}:
            return (deployment_id, conversation_id) if segments[-1] == "end" else None
    match segments:
        # A stage or a base path may stand before ours.
        case [*_, "v2", "deployments", deployment_id, "conversations", conversation_id, "end"]:
            return deployment_id, conversation_id
    return None


def _answer(conversation: Conversation, result: Result, request_id: str) -> dict[str, Any]:
    key = result.reason if result.reason in _ANSWERS else result.status
    status, detail = _ANSWERS[key]
    conversation_id = conversation.conversation_id
    if status.is_success:
        body = {"conversation_id": conversation_id, "status": result.status}
        return _proxy(status, {"Content-Type": "application/json"}, body)
    headers = {"Retry-After": _retry_after(result)} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
    return _problem(status, headers, reason=key, detail=detail, request_id=request_id, conversation_id=conversation_id)


def _retry_after(result: Result) -> str:
    if result.retry_after is None:
        return str(DEFAULT_RETRY_AFTER_SECONDS)
    return str(math.ceil(min(max(result.retry_after, 1), MAX_RETRY_AFTER_SECONDS)))


def _problem(status: HTTPStatus, headers: dict[str, str], **members: str | None) -> dict[str, Any]:
    # The title of an about:blank problem is the phrase of the status (RFC 9457, 4.2.1).
    problem = {"type": "about:blank", "title": status.phrase, "status": status.value, **members}
    return _proxy(status, {"Content-Type": "application/problem+json", **headers}, problem)


def _proxy(status: HTTPStatus, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    return {
        "statusCode": status.value,
        "headers": {"Cache-Control": "no-store", **headers},
        "body": json.dumps(body),
        "isBase64Encoded": False,
    }
