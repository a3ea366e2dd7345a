"""What people usually write for HTTP alone: requests and Powertools, each as its own quick start has it."""

import os
from typing import Any

import requests
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

TAVUS_API_URL = os.environ["TAVUS_API_URL"]

logger = Logger()
tracer = Tracer()
metrics = Metrics()
app = APIGatewayHttpResolver()
session = requests.Session()


@app.post("/v2/deployments/<deployment_id>/conversations/<conversation_id>/end")
@tracer.capture_method
def end_conversation(deployment_id: str, conversation_id: str) -> dict[str, Any]:
    """Answer a request. Raises requests' HTTPError where Tavus refuses."""
    url = f"{TAVUS_API_URL}/v2/deployments/{deployment_id}/conversations/{conversation_id}/end"
    response = session.post(url, timeout=10)
    response.raise_for_status()
    result: dict[str, Any] = response.json()
    logger.info("conversation ended", extra={"conversation_id": conversation_id, "status": result["status"]})
    metrics.add_metric(name="ConversationEnded", unit=MetricUnit.Count, value=1)
    return result


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
@tracer.capture_lambda_handler
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Take a request."""
    return app.resolve(event, context)
