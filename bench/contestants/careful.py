"""What a careful author writes: urllib3's pool, Powertools without patching, and no resolver. For both triggers."""

import json
import os
from http import HTTPStatus
from typing import Any

import urllib3
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

TAVUS_API_URL = os.environ["TAVUS_API_URL"]
EVENT_BUS_NAME = os.environ.get("EVENT_BUS_NAME")

logger = Logger()
tracer = Tracer(auto_patch=False)
metrics = Metrics()
pool = urllib3.PoolManager()
if EVENT_BUS_NAME:
    import boto3

    events = boto3.client("events")


@tracer.capture_method(capture_response=False)
def end_conversation(deployment_id: str, conversation_id: str) -> dict[str, Any]:
    """End a conversation at Tavus. Raises RuntimeError where Tavus refuses."""
    url = f"{TAVUS_API_URL}/v2/deployments/{deployment_id}/conversations/{conversation_id}/end"
    response = pool.request("POST", url, timeout=10)
    if response.status != HTTPStatus.OK:
        raise RuntimeError(response.status)
    result: dict[str, Any] = response.json()
    logger.info("conversation ended", extra={"conversation_id": conversation_id, "status": result["status"]})
    metrics.add_metric(name="ConversationEnded", unit=MetricUnit.Count, value=1)
    return result


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any] | None:  # noqa: ARG001 - for Powertools
    """Take either kind of event."""
    if "requestContext" in event:
        result = end_conversation(**event["pathParameters"])
        return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps(result)}
    result = end_conversation(**event["detail"])
    events.put_events(
        Entries=[
            {
                "EventBusName": str(EVENT_BUS_NAME),
                "Source": "careful",
                "DetailType": "Conversation Ended",
                "Detail": json.dumps(result),
            }
        ]
    )
    return None
