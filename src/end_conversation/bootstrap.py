"""The composition root: builds the parts from the settings, and routes each event to its door."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

from end_conversation import USER_AGENT
from end_conversation.deadline import Clock
from end_conversation.ending import EndRecorded, NoRecord
from end_conversation.errors import UnsupportedEvent
from end_conversation.http import EndNow, HttpDoor, is_http_request
from end_conversation.settings import Settings
from end_conversation.tavus import TavusClient, TavusConnection
from end_conversation.telemetry import Telemetry
from end_conversation.trust import create_trust

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mypy_boto3_sqs import SQSClient

    from end_conversation.ending import EndConversation, Record
    from end_conversation.events import EventDoor
    from end_conversation.http import Operation
    from end_conversation.limits import SetLimit
    from end_conversation.messages import MessageDoor
    from end_conversation.telemetry import Trigger
    from end_conversation.trust import Trust


def bootstrap(environ: Mapping[str, str]) -> Callable[[Any, Any], Any]:
    """Build the Lambda handler for these environment variables. Raises InvalidSetting."""
    settings = Settings.read(environ)
    clock = Clock()
    telemetry = Telemetry(environ)
    trust = create_trust("SSL_CERT_FILE", settings.ssl_cert_file)
    headers = {"User-Agent": USER_AGENT}
    if settings.tavus_origin is not None:
        headers["Origin"] = settings.tavus_origin
    connection = TavusConnection(settings.tavus_api_url, headers, trust, clock)
    client = TavusClient(connection.post, clock, random.uniform)
    end_conversation = telemetry.observe(client.end_conversation)
    operations: dict[str, Operation] = {"end": EndNow(end_conversation, telemetry)}
    if (set_limit := _set_limit(settings, telemetry, trust, clock)) is not None:
        operations["timeout"] = set_limit
    # The function that counts what no door handles.
    own: Trigger = "event" if settings.event_bus_name else "timer" if set_limit else "http"
    http_door = HttpDoor(operations, settings.allowed_deployment_ids, own, telemetry, clock)
    event_door = _event_door(end_conversation, settings, telemetry, trust, clock)
    message_door = _message_door(event_door, settings, telemetry, trust, clock)

    def handler(event: Any, context: Any) -> Any:
        problem = "the event must be an HTTP request from API Gateway, an EventBridge event, or SQS messages"
        match event:
            case {"requestContext": _}:
                if is_http_request(event):
                    return http_door(event, context)
            case {"detail-type": _}:
                if event_door is not None:
                    return event_door(event, context)
                problem = "set EVENT_BUS_NAME to handle EventBridge events"
            case {"Records": [{"eventSource": "aws:sqs"}, *_]}:
                if message_door is not None:
                    return message_door(event, context)
                problem = "set EVENT_BUS_NAME, TIMEOUT_QUEUE_URL and FAILED_QUEUE_URL to handle SQS messages"
        telemetry.invalid(own, "unsupported_event")
        raise UnsupportedEvent(problem)

    return telemetry.instrument(handler)


def _set_limit(settings: Settings, telemetry: Telemetry, trust: Trust, clock: Clock) -> SetLimit | None:
    if settings.timer_group_name is None:
        return None
    from end_conversation.aws.client import create_client
    from end_conversation.aws.schedules import Schedules
    from end_conversation.limits import SetLimit

    client = create_client("scheduler", _aws_trust(settings, trust))
    schedules = Schedules(client, settings.timer_group_name, settings.timer_target, clock)
    return SetLimit(schedules.put, settings.max_session_seconds, telemetry, clock)


def _aws_trust(settings: Settings, trust: Trust) -> Trust:
    if settings.aws_ca_bundle in (None, settings.ssl_cert_file):
        return trust
    return create_trust("AWS_CA_BUNDLE", settings.aws_ca_bundle)


def _event_door(
    end_conversation: EndConversation, settings: Settings, telemetry: Telemetry, trust: Trust, clock: Clock
) -> EventDoor | None:
    if settings.event_bus_name is None:
        return None
    # boto3 doubles the cold start, so only the deployments that need it import it.
    from end_conversation.aws.bus import EventBus
    from end_conversation.aws.client import create_client
    from end_conversation.events import EventDoor

    trust = _aws_trust(settings, trust)
    record: Record = NoRecord()
    if settings.ended_table_name is not None:
        from end_conversation.aws.table import EndedTable

        record = EndedTable(create_client("dynamodb", trust), settings.ended_table_name, telemetry.record_failed, clock)
    end_recorded = EndRecorded(end_conversation, record, partial(telemetry.log_result, "event"))
    bus = EventBus(
        create_client("events", trust), settings.event_bus_name, settings.result_source, telemetry.trace_header, clock
    )
    return EventDoor(end_recorded, settings.allowed_deployment_ids, bus.publish, telemetry, clock)


def _message_door(
    event_door: EventDoor | None, settings: Settings, telemetry: Telemetry, trust: Trust, clock: Clock
) -> MessageDoor | None:
    if event_door is None or settings.timeout_queue_url is None or settings.failed_queue_url is None:
        return None
    from end_conversation.aws.client import create_client
    from end_conversation.aws.queue import TimeoutQueue
    from end_conversation.messages import MessageDoor

    def make_client() -> SQSClient:
        return create_client("sqs", _aws_trust(settings, trust))

    queue = TimeoutQueue(make_client, settings.timeout_queue_url, settings.failed_queue_url, clock)
    return MessageDoor(event_door, queue, telemetry, clock, random.uniform)
