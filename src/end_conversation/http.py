"""The HTTP door: a request through API Gateway or a Function URL in, a result or a problem (RFC 9457) out."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from end_conversation.conversation import Conversation, InvalidId, Reason, Status
from end_conversation.deadline import Deadline
from end_conversation.errors import TavusUnavailable

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from end_conversation.conversation import End, Result
    from end_conversation.deadline import Clock
    from end_conversation.telemetry import Telemetry

# API Gateway's HTTP APIs give up after 30 s, REST APIs after 29.
MAX_SECONDS = 25
RESERVE_SECONDS = 0.5
DEFAULT_RETRY_AFTER = 5

_PATH = "/v2/deployments/{deployment_id}/conversations/{conversation_id}/end"

# What a caller reads of each outcome, by its status or else its reason: HTTP's status and a problem's detail.
_ANSWERS: dict[str | None, tuple[HTTPStatus, str]] = {
    Status.ENDED: (HTTPStatus.OK, ""),
    Status.UNCONFIRMED: (HTTPStatus.ACCEPTED, ""),
    Status.NOT_FOUND: (
        HTTPStatus.NOT_FOUND,
        "Tavus knows no such active conversation: an id is wrong, or it is already over.",
    ),
    Reason.DEPLOYMENT_NOT_ALLOWED: (
        HTTPStatus.FORBIDDEN,
        "This function does not end conversations of that deployment; its operator names those it does.",
    ),
    Reason.TAVUS_REJECTED: (HTTPStatus.BAD_GATEWAY, "Tavus refused; the same request will be refused again."),
    Reason.TAVUS_THROTTLED: (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Tavus takes no more requests now; try again later.",
    ),
    Reason.TAVUS_ERROR: (HTTPStatus.SERVICE_UNAVAILABLE, "Tavus failed; try again later."),
    Reason.TAVUS_UNREACHABLE: (HTTPStatus.SERVICE_UNAVAILABLE, "Tavus cannot be reached; try again later."),
    Reason.TAVUS_TIMEOUT: (HTTPStatus.GATEWAY_TIMEOUT, "Tavus gave no whole answer in time; try again."),
}


class HttpDoor:
    """Answers an HTTP request in API Gateway's proxy format. Bad input never raises; only a bug does."""

    def __init__(self, end: End, telemetry: Telemetry, clock: Clock) -> None:
        self._end = end
        self._telemetry = telemetry
        self._clock = clock

    def __call__(self, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        """Answer one request."""
        seconds = min(context.get_remaining_time_in_millis() / 1000, MAX_SECONDS)
        deadline = Deadline(self._clock, seconds, RESERVE_SECONDS)
        request_id = context.aws_request_id
        ids = _named(event)
        if ids is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "unknown_path", f"The path ends in {_PATH}.", request_id)
        if _method(event) != "POST":
            reason, detail = "method_not_allowed", "Only POST ends a conversation."
            return self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, reason, detail, request_id, {"Allow": "POST"})
        try:
            conversation = Conversation(*ids)
        except InvalidId as error:
            return self._refuse(HTTPStatus.BAD_REQUEST, "invalid_id", f"{error}.", request_id)

        outcome: Result | TavusUnavailable
        try:
            outcome = self._end(conversation, deadline)
        except TavusUnavailable as unavailable:
            outcome = unavailable
        self._telemetry.outcome("http", conversation, outcome, deadline)
        return _answer(conversation, outcome, request_id)

    def _refuse(
        self, status: HTTPStatus, reason: str, detail: str, request_id: str, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        self._telemetry.invalid("http", reason)
        return _problem(status, headers or {}, reason=reason, detail=detail, request_id=request_id)


def _named(event: dict[str, Any]) -> tuple[Any, Any] | None:
    """The two ids that a request names, unchecked; None where its path is none of ours."""
    match event:
        case {"pathParameters": {"deployment_id": deployment_id, "conversation_id": conversation_id}}:
            return deployment_id, conversation_id
        case {"rawPath": str(path)} | {"path": str(path)}:
            # From the end, as a stage or a base path may stand before.
            match path.split("/"):
                case [*_, "v2", "deployments", deployment_id, "conversations", conversation_id, "end"]:
                    return deployment_id, conversation_id
    return None


def _method(event: dict[str, Any]) -> object:
    match event:
        case {"requestContext": {"http": {"method": method}}} | {"httpMethod": method}:
            return method
    return None


def _answer(conversation: Conversation, outcome: Result | TavusUnavailable, request_id: str) -> dict[str, Any]:
    reason = outcome.status if outcome.status in _ANSWERS else outcome.reason
    status, detail = _ANSWERS[reason]
    names = {"conversation_id": conversation.conversation_id}
    if status.is_success:
        return _proxy(status, {"Content-Type": "application/json"}, {**names, "status": outcome.status})
    headers = {}
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = _retry_after(outcome)
    return _problem(status, headers, reason=reason, detail=detail, request_id=request_id, **names)


def _retry_after(outcome: Result | TavusUnavailable) -> str:
    """Tavus' own wish in whole seconds, held to an hour."""
    wish = outcome.retry_after if isinstance(outcome, TavusUnavailable) else None
    return str(DEFAULT_RETRY_AFTER if wish is None else math.ceil(min(max(wish, 1), 3600)))


def _problem(status: HTTPStatus, headers: dict[str, str], **members: str | None) -> dict[str, Any]:
    # RFC 9457, 4.2.1: the title of an about:blank problem is the status' own phrase.
    problem = {"type": "about:blank", "title": status.phrase, "status": status.value, **members}
    return _proxy(status, {"Content-Type": "application/problem+json", **headers}, problem)


def _proxy(status: HTTPStatus, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    return {
        "statusCode": status.value,
        "headers": {"Cache-Control": "no-store", **headers},
        "body": json.dumps(body),
        "isBase64Encoded": False,
    }
