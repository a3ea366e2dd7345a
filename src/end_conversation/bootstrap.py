"""The composition root: the one place that knows the concrete parts, and which door an event goes to."""

from __future__ import annotations

import random
import ssl
from typing import TYPE_CHECKING, Any

from end_conversation.attempt import Endpoint
from end_conversation.conversation import EndAllowed
from end_conversation.deadline import Clock
from end_conversation.errors import InvalidSetting, UnsupportedEvent
from end_conversation.http import HttpDoor
from end_conversation.settings import Settings
from end_conversation.tavus import Tavus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from end_conversation.conversation import End
    from end_conversation.events import EventDoor
    from end_conversation.telemetry import Telemetry


def bootstrap(environ: Mapping[str, str]) -> Callable[[Any, Any], Any]:
    """Build the Lambda handler that an environment asks for. Raises InvalidSetting."""
    settings = Settings.read(environ)
    # Only now, as Powertools reads a setting of its own when it is imported.
    from end_conversation.telemetry import Telemetry

    clock = Clock()
    telemetry = Telemetry(environ)
    headers = {"User-Agent": "end-conversation/1"}
    if settings.tavus_origin is not None:
        headers["Origin"] = settings.tavus_origin
    # Loading a CA bundle is a third of a lean cold start: once, for Tavus and AWS alike, and not at each connection.
    tls = trust("SSL_CERT_FILE", settings.ssl_cert_file)
    tavus = Tavus(Endpoint(settings.tavus_api_url, headers, tls, clock).post, clock, random.uniform)
    end = EndAllowed(telemetry.observe(tavus.end), settings.allowed_deployment_ids, clock)
    http_door = HttpDoor(end, telemetry, clock)
    event_door = _event_door(end, settings, telemetry, tls, clock)

    def handler(event: Any, context: Any) -> Any:
        match event:
            case {"requestContext": _}:
                return http_door(event, context)
            case {"detail-type": _} if event_door is not None:
                return event_door(event, context)
        telemetry.invalid("event", "unsupported_event")
        if event_door is None:
            raise UnsupportedEvent("only HTTP requests are taken here: set EVENT_BUS_NAME to take events")
        raise UnsupportedEvent("this is neither an HTTP request through API Gateway nor an EventBridge event")

    return telemetry.instrument(handler)


def trust(variable: str, ca_bundle: str | None) -> ssl.SSLContext:
    """Trust the CA certificates in a file that a variable names, else the system's. Raises InvalidSetting."""
    try:
        tls = ssl.create_default_context(cafile=ca_bundle)
        # Given an empty name ssl loads its defaults, and OpenSSL, where it is in the environment, none of them.
        useless = ca_bundle is not None and (not ca_bundle or tls.cert_store_stats()["x509"] == 0)
    except OSError:
        useless = True
    if useless:
        raise InvalidSetting(f"{variable} must be unset, or name a file of CA certificates")
    # urllib3 sets it when it connects to AWS: so Tavus sees one kind of handshake, before that and after.
    tls.set_alpn_protocols(["http/1.1"])
    return tls


def _event_door(
    end: End, settings: Settings, telemetry: Telemetry, tls: ssl.SSLContext, clock: Clock
) -> EventDoor | None:
    if settings.event_bus_name is None:
        return None

    from end_conversation.aws import client
    from end_conversation.eventbridge import EventBus
    from end_conversation.events import EventDoor

    if settings.aws_ca_bundle not in (None, settings.ssl_cert_file):
        tls = trust("AWS_CA_BUNDLE", settings.aws_ca_bundle)
    if settings.ended_table_name is not None:
        from end_conversation.dynamodb import EndedTable
        from end_conversation.record import EndRecorded

        # Around the allow-list too: what is known of a conversation is true, whoever may no longer be ended.
        table = EndedTable(client("dynamodb", tls), settings.ended_table_name, clock)
        end = EndRecorded(end, table, telemetry.record_failed, clock)
    bus = EventBus(
        client("events", tls), settings.event_bus_name, settings.result_source, telemetry.trace_header, clock
    )
    return EventDoor(end, bus.publish, telemetry, clock)
