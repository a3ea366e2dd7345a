"""Builds the contestants: each is a folder of code with byte code, as Lambda would get it."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import certifi

from local.process import ROOT, run
from local.runtime import LAMBDA_RUNTIME
from local.session import request_for, timeout_of
from operations.package import UV, add_byte_code, install, packaged
from operations.roots import add_roots

CODE = ROOT / ".aws-sam/bench"
OURS, FLOOR, USUAL = CODE / "ours", CODE / "floor", CODE / "usual"
PROGRAMS = {
    FLOOR: ("empty.py", "raw.py", "floor.py", "floor_events.py"),
    USUAL: ("careful.py", "usual.py"),
}
BUNDLE = CODE / "authorities.pem"
_TRUST = {"SSL_CERT_FILE": str(BUNDLE), "REQUESTS_CA_BUNDLE": str(BUNDLE)}
_BUS = {"EVENT_BUS_NAME": "default"}
_TABLE = {"ENDED_TABLE_NAME": "ended"}
_QUEUES = {"TIMEOUT_QUEUE_URL": "https://sqs/timeouts", "FAILED_QUEUE_URL": "https://sqs/failed"}
_UNTRACED = {"POWERTOOLS_TRACE_DISABLED": "true"}
_QUIET = _UNTRACED | {"POWERTOOLS_METRICS_DISABLED": "true", "POWERTOOLS_LOG_LEVEL": "CRITICAL"}
_LIMITS = {"TIMER_GROUP_NAME": "default", "TIMER_TARGET": '{"Arn": "arn:queue", "RoleArn": "arn:role"}'}


@dataclass(frozen=True)
class Contestant:
    """A handler, the folder of its code, and its settings. `event` makes an event, whose answer contains `answer`."""

    name: str
    code: Path
    handler: str
    settings: Mapping[str, str] = field(default_factory=dict)
    event: Callable[[str], dict[str, Any]] = request_for
    answer: bytes = b'"statusCode": 200'


def _limit_for(conversation_id: str) -> dict[str, Any]:
    event = request_for(conversation_id)
    event["requestContext"]["http"]["method"] = "PUT"
    return event | {"rawPath": event["rawPath"].replace("/end", "/timeout")}


def _message_for(conversation_id: str) -> dict[str, Any]:
    message: dict[str, Any] = json.loads((ROOT / "events/session-timeout-message.json").read_text())
    message["Records"][0]["body"] = json.dumps(timeout_of(conversation_id))
    return message


_HANDLER = "end_conversation.handler.handler"
CONTESTANTS = [
    Contestant("empty", FLOOR, "empty.handler"),
    Contestant("raw urllib3", FLOOR, "raw.handler", _TRUST),
    Contestant("floor", FLOOR, "floor.handler"),
    Contestant("ours", OURS, _HANDLER),
    Contestant("ours, untraced", OURS, _HANDLER, _UNTRACED),
    Contestant("ours, quiet", OURS, _HANDLER, _QUIET),
    Contestant("careful", USUAL, "careful.handler", _TRUST),
    Contestant("usual, HTTP only", USUAL, "usual.handler", _TRUST),
    Contestant("usual", USUAL, "usual.handler", _TRUST | _BUS),
    Contestant("floor, events", FLOOR, "floor_events.handler"),
    Contestant("ours, events", OURS, _HANDLER, _BUS | _TABLE | _QUEUES, _message_for, b'"batchItemFailures": []'),
    Contestant("careful, events", USUAL, "careful.handler", _TRUST | _BUS, timeout_of, b"null"),
    Contestant("usual, events", USUAL, "usual.handler", _TRUST | _BUS, timeout_of, b"null"),
    Contestant("ours, limits", OURS, _HANDLER, _LIMITS, _limit_for),
]


def build_contestants(authority: str) -> None:
    """Build the code of every contestant. All of them trust this CA certificate (PEM) like any public one.

    Raises ProcessFailed or CalledProcessError.
    """
    shutil.rmtree(CODE, ignore_errors=True)
    CODE.mkdir(parents=True)
    # Lambda's own runtime has byte code, and the measured processes write none.
    run([LAMBDA_RUNTIME[0], "-m", "compileall", "-q", ROOT / ".venv-runtime/lib"], os.environ)
    with packaged() as code:
        shutil.copytree(code, OURS)
    shutil.copytree(OURS, FLOOR, ignore=shutil.ignore_patterns("end_conversation"))
    pins = CODE / "usual.txt"
    run([UV, "export", "--frozen", "--quiet", "--only-group", "usual", "--output-file", pins], os.environ)
    install(USUAL, pins)
    for code, programs in PROGRAMS.items():
        for program in programs:
            shutil.copy(Path(__file__).parent / "contestants" / program, code)
        add_byte_code(code)
    # Ours brings its roots. The others load a bundle, of the usual size because that decides how long it takes.
    add_roots(OURS / "end_conversation/roots", authority)
    BUNDLE.write_text(certifi.contents() + authority)
