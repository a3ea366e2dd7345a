"""The settings of a deployment, read from environment variables once, at the cold start."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from end_conversation.conversation import is_id
from end_conversation.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_ORIGIN = re.compile(rf"(https?)://(?:({_LABEL}(?:\.{_LABEL})*)|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{{1,5}}))?")
# Not compiled here, because most functions do not need them.
_BUS = r"(arn:aws[a-z-]*:events:[a-z0-9-]+:[0-9]{12}:event-bus/)?[A-Za-z0-9._/-]{1,256}"
_SOURCE = r"(?!aws\.)[A-Za-z0-9._/-]{1,256}"
_QUEUE = r"https?://[!-~]{1,1000}"
_GROUP = r"[A-Za-z0-9._-]{1,64}"
_TABLE = r"(arn:aws[a-z-]*:dynamodb:[a-z0-9-]+:[0-9]{12}:table/)?[A-Za-z0-9._-]{3,255}"

_SESSION_SECONDS = range(60, 86_401)


class Origin(NamedTuple):
    """An HTTP origin (RFC 6454): scheme, host and port, and nothing else."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an origin. Raises ValueError."""
        found = _ORIGIN.fullmatch(text)
        if found is None:
            raise ValueError(text)
        scheme, name, address, port = found.groups()
        host = name or str(IPv6Address(address))
        origin = cls(scheme, host, int(port or (443 if scheme == "https" else 80)))
        if not 0 < origin.port < 2**16:
            raise ValueError(text)
        return origin

    def is_loopback(self) -> bool:
        """Whether the host is this machine."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class _Everyone:
    def __contains__(self, deployment_id: object) -> bool:
        return True


class Settings(NamedTuple):
    """The settings. An optional setting without a value is None, and `timer_target` is empty."""

    tavus_api_url: Origin
    tavus_origin: str | None
    allowed_deployment_ids: Container[str]
    event_bus_name: str | None
    result_source: str
    ended_table_name: str | None
    timeout_queue_url: str | None
    failed_queue_url: str | None
    timer_group_name: str | None
    timer_target: dict[str, Any]
    max_session_seconds: int
    ssl_cert_file: str | None
    aws_ca_bundle: str | None

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read and validate the settings. Raises InvalidSetting, which names the variable and what it must be.

        An empty variable counts as unset, because that is how CloudFormation passes an empty parameter. An empty CA
        bundle is an error, as it is for OpenSSL and for botocore.
        """
        timer_group_name = _optional(environ, "TIMER_GROUP_NAME", _GROUP, "the name of a schedule group")
        return cls(
            tavus_api_url=_api_url(environ.get("TAVUS_API_URL") or "https://tavusapi.com"),
            tavus_origin=_sent_origin(environ.get("TAVUS_ORIGIN") or None),
            allowed_deployment_ids=_allowed(environ.get("ALLOWED_DEPLOYMENT_IDS", "")),
            event_bus_name=_optional(environ, "EVENT_BUS_NAME", _BUS, "the name or ARN of an event bus"),
            result_source=_optional(environ, "RESULT_SOURCE", _SOURCE, "an event source not starting with 'aws.'")
            or "tavus.conversations",
            ended_table_name=_optional(environ, "ENDED_TABLE_NAME", _TABLE, "the name or ARN of a DynamoDB table"),
            timeout_queue_url=_optional(environ, "TIMEOUT_QUEUE_URL", _QUEUE, "the URL of an SQS queue"),
            failed_queue_url=_optional(environ, "FAILED_QUEUE_URL", _QUEUE, "the URL of an SQS queue"),
            timer_group_name=timer_group_name,
            timer_target=_timer_target(environ.get("TIMER_TARGET") or None, needed=timer_group_name is not None),
            max_session_seconds=_max_session_seconds(environ.get("MAX_SESSION_SECONDS") or "1800"),
            ssl_cert_file=environ.get("SSL_CERT_FILE"),
            aws_ca_bundle=environ.get("AWS_CA_BUNDLE"),
        )


def _api_url(text: str) -> Origin:
    try:
        origin = Origin.parse(text)
    except ValueError:
        raise InvalidSetting("TAVUS_API_URL must be an origin only, such as https://tavusapi.com") from None
    if origin.scheme == "http" and not origin.is_loopback():
        raise InvalidSetting("TAVUS_API_URL must be https; plain http is allowed for loopback hosts only")
    return origin


def _sent_origin(text: str | None) -> str | None:
    try:
        if text is not None:
            Origin.parse(text)
    except ValueError:
        raise InvalidSetting("TAVUS_ORIGIN must be an origin only, such as https://www.example.com") from None
    return text


def _allowed(text: str) -> Container[str]:
    if text.strip(" ") == "*":
        return _Everyone()
    ids = {part.strip(" ") for part in text.split(",")}
    if not all(map(is_id, ids)):
        raise InvalidSetting("ALLOWED_DEPLOYMENT_IDS must be Tavus deployment ids, separated by commas, or * for any")
    return frozenset(ids)


def _timer_target(text: str | None, *, needed: bool) -> dict[str, Any]:
    if text is None and not needed:
        return {}
    with suppress(ValueError, RecursionError):
        target: Any = json.loads(text or "null")
        match target:
            case {"Arn": str(arn), "RoleArn": str(role_arn)} if arn and role_arn and "Input" not in target:
                return dict(target)
    raise InvalidSetting("TIMER_TARGET must be a schedule's Target in JSON: with Arn and RoleArn, and without Input")


def _max_session_seconds(text: str) -> int:
    if re.fullmatch("[1-9][0-9]{1,4}", text) and int(text) in _SESSION_SECONDS:
        return int(text)
    raise InvalidSetting("MAX_SESSION_SECONDS must be a whole number from 60 to 86400")


def _optional(environ: Mapping[str, str], variable: str, pattern: str, expected: str) -> str | None:
    text = environ.get(variable) or None
    if text is not None and not re.fullmatch(pattern, text):
        raise InvalidSetting(f"{variable} must be {expected}")
    return text
