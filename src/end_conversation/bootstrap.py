"""The composition root: builds the parts from the settings, and routes each event to its door."""

from __future__ import annotations

import random
import ssl
from typing import TYPE_CHECKING, Any

from end_conversation.deadline import Clock
from end_conversation.ending import EndAllowed, EndRecorded
from end_conversation.errors import InvalidSetting, UnsupportedEvent
from end_conversation.http import HttpDoor, is_http_request
from end_conversation.settings import Settings
from end_conversation.tavus import TavusClient, TavusConnection
from end_conversation.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from end_conversation.ending import End
    from end_conversation.events import EventDoor


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
    http_door = HttpDoor(EndAllowed(end, settings.allowed_deployment_ids, clock), telemetry, clock)
    event_door = _event_door(end, settings, telemetry, tls, clock)

    def handler(event: Any, context: Any) -> Any:
        problem = "the event is no HTTP request from API Gateway, no EventBridge event and no single SQS message"
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


def _event_door(
    end: End, settings: Settings, telemetry: Telemetry, tls: ssl.SSLContext, clock: Clock
) -> EventDoor | None:
    if settings.event_bus_name is None:
        return None
    # boto3 doubles the cold start, so only the deployments that need it import it.
    from end_conversation.aws.bus import EventBus
    from end_conversation.aws.client import create_client
    from end_conversation.events import EventDoor

    if settings.aws_ca_bundle not in (None, settings.ssl_cert_file):
        tls = create_tls_context("AWS_CA_BUNDLE", settings.aws_ca_bundle)
    if settings.ended_table_name is not None:
        from end_conversation.aws.table import EndedTable

        client = create_client("dynamodb", tls)
        end = EndRecorded(end, EndedTable(client, settings.ended_table_name, telemetry.record_failed, clock))
    end = EndAllowed(end, settings.allowed_deployment_ids, clock)
    bus = EventBus(
        create_client("events", tls), settings.event_bus_name, settings.result_source, telemetry.trace_header, clock
    )
    return EventDoor(end, bus.publish, telemetry, clock)
