"""What an application does with a deployed stack: it sends requests, and reports session timeouts."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import urllib3

from local.process import ROOT
from local.stack import Stack

_SESSION_TIMEOUT: dict[str, Any] = json.loads((ROOT / "events/session-timeout.json").read_text())
DEPLOYMENT_ID: str = _SESSION_TIMEOUT["detail"]["deployment_id"]


def end_path(deployment_id: str, conversation_id: str) -> str:
    """Return the path of the end endpoint, which is the same at Tavus and here."""
    return f"/v2/deployments/{deployment_id}/conversations/{conversation_id}/end"


def timeout_path(deployment_id: str, conversation_id: str, seconds: int) -> str:
    """Return the path and query that set a limit."""
    return f"/v2/deployments/{deployment_id}/conversations/{conversation_id}/timeout?seconds={seconds}"


def send(stack: Stack, method: str, path: str) -> urllib3.BaseHTTPResponse:
    """Send one request to the HTTP API, without normalizing the path."""
    api = urlsplit(stack.api_url)
    with urllib3.HTTPConnectionPool(str(api.hostname), api.port, timeout=40) as pool:
        return pool.urlopen(method, api.path + path, retries=False)


def request_for(conversation_id: str) -> dict[str, Any]:
    """Return the sample request of an HTTP API, for this conversation."""
    event: dict[str, Any] = json.loads((ROOT / "events/http-api.json").read_text())
    event["rawPath"] = event["requestContext"]["http"]["path"] = end_path(DEPLOYMENT_ID, conversation_id)
    event["pathParameters"] = {"deployment_id": DEPLOYMENT_ID, "conversation_id": conversation_id}
    return event


def timeout_of(conversation_id: str) -> dict[str, Any]:
    """Return the sample session timeout for this conversation. Its id depends only on the conversation."""
    detail = _SESSION_TIMEOUT["detail"] | {"conversation_id": conversation_id}
    return _SESSION_TIMEOUT | {"id": f"timeout-of-{conversation_id}", "detail": detail}


def session_timeout(conversation_id: str, **more: str) -> dict[str, str]:
    """Return the sample session timeout for this conversation, with more in its detail, as an entry of PutEvents."""
    event = timeout_of(conversation_id)
    detail = json.dumps(event["detail"] | more)
    return {"Source": event["source"], "DetailType": event["detail-type"], "Detail": detail}


def seconds_ahead(seconds: float) -> str:
    """Return the time this many seconds from now, in the format of `ends_at`."""
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def put(stack: Stack, entry: dict[str, str]) -> str:
    """Put one event on the bus. Returns its id."""
    bus = stack.outputs["EventBusName"]
    answer: dict[str, Any] = stack.client("events").put_events(Entries=[{**entry, "EventBusName": bus}])
    event_id: str = answer["Entries"][0]["EventId"]
    return event_id


def schedules(stack: Stack) -> list[dict[str, Any]]:
    """Return the schedules of the stack, one for each conversation with a limit."""
    scheduler, group = stack.client("scheduler"), {"GroupName": stack.outputs["TimerGroupName"]}
    found = scheduler.list_schedules(**group)["Schedules"]
    return [scheduler.get_schedule(**group, Name=schedule["Name"]) for schedule in found]


def seconds_late(result: dict[str, Any], ends_at: str) -> float:
    """Return how many seconds after `ends_at` the conversation of this result ended. Less than zero is too early."""
    decided_at = datetime.fromisoformat(result["detail"]["decided_at"])
    return (decided_at - datetime.fromisoformat(ends_at)).total_seconds()


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait until a condition is true. Raises TimeoutError, which says for what, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.1)


def log(stack: Stack, log_group: str) -> list[str]:
    """Return the lines of a log group, oldest first. `log_group` is the name of an output of the template."""
    asked = stack.client("logs").filter_log_events(logGroupName=stack.outputs[log_group])
    return [event["message"] for event in asked["events"]]


def logged(lines: list[str]) -> list[dict[str, Any]]:
    """Return the lines that the function's logger wrote. Metrics are JSON too, but have no level."""
    return [line for text in lines if text.startswith("{") and "level" in (line := json.loads(text))]
