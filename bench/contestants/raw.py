"""The raw call: one POST over a TLS connection kept by urllib3, and nothing else."""

import os
from typing import Any

import urllib3

pool = urllib3.PoolManager()


def handler(event: dict[str, Any], _context: object) -> dict[str, object]:
    """Answer with what Tavus says."""
    answer = pool.request("POST", os.environ["TAVUS_API_URL"] + event["rawPath"])
    return {"statusCode": answer.status, "status": answer.json()["status"]}
