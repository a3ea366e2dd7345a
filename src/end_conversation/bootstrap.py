"""The composition root: builds the parts from the settings, and routes each event to its door."""

from __future__ import annotations

import random
import ssl
from typing import TYPE_CHECKING, Any

from end_conversation.deadline import Clock
from end_conversation.ending import EndAllowed, EndRecorded
from end_conversation.errors import InvalidSetting, UnsupportedEvent
from end_conversation.http import EndNow, HttpDoor, is_http_request
from end_conversation.settings import Settings
from end_conversation.tavus import TavusClient, TavusConnection
from end_conversation.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from end_conversation.ending import End
    from end_conversation.events import EventDoor
    from end_conversation.http import Operation
    from end_conversation.timers import TimerDoor


def bootstrap(environ: Mapping[str, str]) -> Callable[[Any, Any], Any]:
    """Build the Lambda handler for these environment variables. Raises InvalidSetting."""
    settings = Settings.read(environ)
    clock = Clock()
    telemetry = Telemetry(environ)
    # Loading a CA bundle is a third of the cold start. Done once, it serves every connection to Tavus and to AWS.
    tls = create_tls_context("SSL_CERT_FILE", settings.ssl_cert_file)
    headers = {"User-Agent": "end-conversation/1"}
    if settings.tavus_origin is not None:
        headers["Origin"] = settings.tavus_origin
    connection = TavusConnection(settings.tavus_api_url, headers, tls, clock)
    client = TavusClient(connection.post, clock, random.uniform)
    end = telemetry.observe(client.end)
    operations: dict[str, Operation] = {
        "end": EndNow(EndAllowed(end, settings.allowed_deployment_ids, clock), telemetry)
    }
    if (timer_door := _timer_door(settings, telemetry, tls, clock)) is not None:
        operations["timeout"] = timer_door
    http_door = HttpDoor(operations, telemetry, clock)
    event_door = _event_door(end, settings, telemetry, tls, clock)

    def handler(event: Any, context: Any) -> Any:
        problem = "the event must be an HTTP request from API Gateway, an EventBridge event, or one SQS message"
        match event:
            case {"requestContext": _}:
                if is_http_request(event):
                    return http_door(event, context)
            case {"detail-type": _} | {"Records": [{"eventSource": "aws:sqs"}]}:
                if event_door is not None:
                    return event_door(event, context)
                problem = "set EVENT_BUS_NAME to handle EventBridge events"
        telemetry.invalid("event", "unsupported_event")
        raise UnsupportedEvent(problem)

    return telemetry.instrument(handler)


def create_tls_context(variable: str, ca_bundle: str | None) -> ssl.SSLContext:
    """Trust the CA bundle that the environment variable names, or else the system's. Raises InvalidSetting."""
    try:
        tls = ssl.create_default_context(cafile=ca_bundle)
    except OSError as error:
        if error.filename is not None:  # ssl names the file only where it opens SSLKEYLOGFILE
            raise InvalidSetting("SSLKEYLOGFILE must be unset, or name a file that can be written") from None
        tls = None
    # For an empty name, ssl loads its defaults instead, and OpenSSL loads nothing.
    if tls is None or (ca_bundle is not None and (not ca_bundle or tls.cert_store_stats()["x509"] == 0)):
        raise InvalidSetting(f"{variable} must be unset, or name a file of CA certificates")
    return tls


def _timer_door(settings: Settings, telemetry: Telemetry, tls: ssl.SSLContext, clock: Clock) -> TimerDoor | None:
    if settings.timer_group_name is None:
        return None
    from end_conversation.aws.client import create_client
    from end_conversation.aws.schedules import Schedules
    from end_conversation.timers import TimerDoor

    client = create_client("scheduler", _aws_tls(settings, tls))
    schedules = Schedules(client, settings.timer_group_name, settings.timer_target, clock)
    return TimerDoor(schedules.set_end, settings.max_session_seconds, settings.allowed_deployment_ids, telemetry, clock)


def _aws_tls(settings: Settings, tls: ssl.SSLContext) -> ssl.SSLContext:
    if settings.aws_ca_bundle in (None, settings.ssl_cert_file):
        return tls
    return create_tls_context("AWS_CA_BUNDLE", settings.aws_ca_bundle)


def _event_door(
    end: End, settings: Settings, telemetry: Telemetry, tls: ssl.SSLContext, clock: Clock
) -> EventDoor | None:
    if settings.event_bus_name is None:
        return None
    # boto3 doubles the cold start, so only the deployments that need it import it.
    from end_conversation.aws.bus import EventBus
    from end_conversation.aws.client import create_client
    from end_conversation.events import EventDoor

    tls = _aws_tls(settings, tls)
    if settings.ended_table_name is not None:
        from end_conversation.aws.table import EndedTable

        client = create_client("dynamodb", tls)
        end = EndRecorded(end, EndedTable(client, settings.ended_table_name, telemetry.record_failed, clock))
    end = EndAllowed(end, settings.allowed_deployment_ids, clock)
    bus = EventBus(
        create_client("events", tls), settings.event_bus_name, settings.result_source, telemetry.trace_header, clock
    )
    return EventDoor(end, bus.publish, telemetry, clock)
