"""The composition root: builds the parts from the settings, and routes each event to its door."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

from end_conversation import USER_AGENT
from end_conversation.deadline import Clock
from end_conversation.ending import EndRecorded
from end_conversation.errors import UnsupportedEvent
from end_conversation.http import EndNow, HttpDoor, is_http_request
from end_conversation.settings import Settings
from end_conversation.tavus import TavusClient, TavusConnection
from end_conversation.telemetry import Telemetry
from end_conversation.trust import create_trust

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from end_conversation.aws.client import ClientFactory
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
    # Which function this is. Input that no door handles is counted under it.
    own_trigger: Trigger = "event" if settings.event_bus_name else "timer" if settings.timer_group_name else "http"
    telemetry = Telemetry(environ, traces_tavus=own_trigger != "timer")
    trust = create_trust("SSL_CERT_FILE", settings.ssl_cert_file)
    headers = {"User-Agent": USER_AGENT}
    if settings.tavus_origin is not None:
        headers["Origin"] = settings.tavus_origin
    connection = TavusConnection(settings.tavus_api_url, headers, trust, clock)
    client = TavusClient(connection.post, clock, random.uniform)
    end_conversation = telemetry.observe(client.end_conversation)
    aws = _aws(settings, trust)
    operations: dict[str, Operation] = {"end": EndNow(end_conversation, telemetry)}
    if (set_limit := _set_limit(aws, settings, telemetry, clock)) is not None:
        operations["timeout"] = set_limit
    http_door = HttpDoor(operations, settings.allowed_deployment_ids, own_trigger, telemetry, clock)
    event_door = _event_door(aws, end_conversation, settings, telemetry, clock)
    message_door = _message_door(aws, event_door, settings, telemetry, clock)

    def handler(event: Any, context: Any) -> Any:
        problem = (
            "the event must be a request from API Gateway or a Function URL, an EventBridge event, or SQS messages"
        )
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
        telemetry.invalid(own_trigger, "unsupported_event")
        raise UnsupportedEvent(problem)

    return telemetry.instrument(handler)


def _aws(settings: Settings, trust: Trust) -> ClientFactory | None:
    if settings.event_bus_name is None and settings.timer_group_name is None:
        return None
    # boto3 nearly doubles the cold start, so only the deployments that need it import it.
    from end_conversation.aws.client import ClientFactory

    if settings.aws_ca_bundle not in (None, settings.ssl_cert_file):
        trust = create_trust("AWS_CA_BUNDLE", settings.aws_ca_bundle)
    return ClientFactory(trust)


def _set_limit(aws: ClientFactory | None, settings: Settings, telemetry: Telemetry, clock: Clock) -> SetLimit | None:
    if aws is None or settings.timer_group_name is None:
        return None
    from end_conversation.aws.schedules import Schedules
    from end_conversation.limits import SetLimit

    schedules = Schedules(aws.create("scheduler"), settings.timer_group_name, settings.timer_target, clock)
    return SetLimit(schedules.put, settings.max_session_seconds, telemetry, clock)


def _event_door(
    aws: ClientFactory | None,
    end_conversation: EndConversation,
    settings: Settings,
    telemetry: Telemetry,
    clock: Clock,
) -> EventDoor | None:
    if aws is None or settings.event_bus_name is None:
        return None
    from end_conversation.aws.bus import EventBus
    from end_conversation.events import EventDoor

    record: Record | None = None
    if settings.ended_table_name is not None:
        from end_conversation.aws.table import EndedTable

        record = EndedTable(aws.create("dynamodb"), settings.ended_table_name, telemetry.record_failed, clock)
    log_result = partial(telemetry.log_result, "event")
    end_recorded = EndRecorded(end_conversation, record, telemetry.log_answer, log_result)
    bus = EventBus(aws.create("events"), settings.event_bus_name, settings.result_source, telemetry.trace_header, clock)
    return EventDoor(end_recorded, settings.allowed_deployment_ids, bus.publish, telemetry, clock)


def _message_door(
    aws: ClientFactory | None,
    event_door: EventDoor | None,
    settings: Settings,
    telemetry: Telemetry,
    clock: Clock,
) -> MessageDoor | None:
    timeout_queue_url, failed_queue_url = settings.timeout_queue_url, settings.failed_queue_url
    if aws is None or event_door is None or timeout_queue_url is None or failed_queue_url is None:
        return None
    from end_conversation.aws.queue import Queues
    from end_conversation.messages import MessageDoor

    queues = Queues(lambda: aws.create("sqs"), timeout_queue_url, failed_queue_url, clock)
    return MessageDoor(event_door, queues, telemetry, clock, random.uniform)
