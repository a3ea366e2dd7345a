"""The floor: the packages that we must use and a TLS context without CAs, all of them unused."""

import ssl

import urllib3
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger(service="floor")
metrics = Metrics(namespace="Floor", service="floor")
tracer = Tracer(service="floor", auto_patch=False)
pool = urllib3.PoolManager(ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


@logger.inject_lambda_context
@metrics.log_metrics(raise_on_empty_metrics=False)
def handler(event: dict[str, object], context: LambdaContext) -> dict[str, object]:  # noqa: ARG001 - it does nothing
    """Answer without calling anything."""
    logger.info("nothing done")
    return {"statusCode": 200}
