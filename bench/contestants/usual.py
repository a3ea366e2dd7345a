"""What people usually write: requests, boto3 and Powertools, each as its own quick start has it.

Without EVENT_BUS_NAME, for HTTP only.
"""

import json
import os
from typing import Any

import requests
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

TAVUS_API_URL = os.environ["TAVUS_API_URL"]
EVENT_BUS_NAME = os.environ.get("EVENT_BUS_NAME")

logger = Logger()
tracer = Tracer()
metrics = Metrics()
app = APIGatewayHttpResolver()
session = requests.Session()
if EVENT_BUS_NAME:
    import boto3

    events = boto3.client("events")


@tracer.capture_method
def end_conversation(deployment_id: str, conversation_id: str) -> dict[str, Any]:
    """End a conversation at Tavus. Raises requests' HTTPError where Tavus refuses."""
    url = f"{TAVUS_API_URL}/v2/deployments/{deployment_id}/conversations/{conversation_id}/end"
    response = session.post(url, timeout=10)
    response.raise_for_status()
    result: dict[str, Any] = response.json()
    logger.info("conversation ended", extra={"conversation_id": conversation_id, "status": result["status"]})
    metrics.add_metric(name="ConversationEnded", unit=MetricUnit.Count, value=1)
    return result


@app.post("/v2/deployments/<deployment_id>/conversations/<conversation_id>/end")
@tracer.capture_method
def end_on_request(deployment_id: str, conversation_id: str) -> dict[str, Any]:
    """Answer a request."""
    return end_conversation(deployment_id, conversation_id)


@tracer.capture_method
def end_on_timeout(detail: dict[str, str]) -> None:
    """Publish the result of a session timeout."""
    result = end_conversation(detail["deployment_id"], detail["conversation_id"])
    events.put_events(
        Entries=[
            {
                "EventBusName": str(EVENT_BUS_NAME),
                "Source": "usual",
                "DetailType": "Conversation Ended",
                "Detail": json.dumps(result),
            }
        ]
    )


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
@tracer.capture_lambda_handler
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any] | None:
    """Take either kind of event."""
    if "requestContext" in event:
        return app.resolve(event, context)
    return end_on_timeout(event["detail"])
