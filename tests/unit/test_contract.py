"""The contract as files: the samples, the JSON Schemas and openapi.yaml, compared with what the handler does."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
import schemathesis
import yaml
from jsonschema import Draft202012Validator, ValidationError
from schemathesis.config import SchemathesisConfig
from werkzeug.test import Client

from end_conversation.bootstrap import bootstrap
from end_conversation.conversation import is_id
from end_conversation.deadline import Clock
from local.process import AWS_CLIENT
from tests.unit.fakes import TIMER_SETTINGS, Context, sample
from tests.unit.fault_server import FaultServer, Peer, Reply, answer, hang, reset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

ROOT = Path(__file__).parents[2]
OPENAPI = ROOT / "openapi.yaml"

PATH = "/v2/deployments/{deployment_id}/conversations/{conversation_id}"
SAMPLE_PATH = "/v2/deployments/d1234567890abcdef/conversations/c123456"
DOCUMENT = yaml.safe_load(OPENAPI.read_text())

ABSENT = "(absent)"
# What both schemas reject in the envelope, by member.
ENVELOPE: dict[str, list[Any]] = {
    "version": [7],
    "id": [7],
    "source": [ABSENT, "", 7],
    "detail-type": [ABSENT, "", 7],
    "region": [7],
    "account": [7, "myapp"],
    "time": [7, "yesterday"],
    "resources": [7, [7]],
    "detail": [ABSENT, 7, []],
}


def each(wrong: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Return the changes that make one member wrong, one by one."""
    return [{path: value} for path, values in wrong.items() for value in values]


def resolve(part: Any) -> Any:
    """Replace each reference in a part of openapi.yaml with what it refers to."""
    if isinstance(part, list):
        return [resolve(item) for item in part]
    if not isinstance(part, dict):
        return part
    target = DOCUMENT if "$ref" in part else {}
    for step in part.get("$ref", "#").split("/")[1:]:
        target = target[step]
    return {name: resolve(member) for name, member in (target | part).items() if name != "$ref"}


OPERATIONS = resolve(
    {"end": DOCUMENT["paths"][f"{PATH}/end"]["post"], "timeout": DOCUMENT["paths"][f"{PATH}/timeout"]["put"]}
)


def changed(name: str, changes: Mapping[str, Any]) -> Any:
    """Return a sample in which some members, named by their dotted paths, are replaced, or removed where ABSENT."""
    event = sample(name)
    for path, value in changes.items():
        *parents, member = path.split(".")
        parent = event
        for step in parents:
            parent = parent[step]
        parent[member] = value
        if value == ABSENT:
            del parent[member]
    return event


def check(event: Any, schema: str) -> None:
    """Validate an event against its JSON Schema. Raises ValidationError."""
    Draft202012Validator(sample(f"{schema}.schema"), format_checker=Draft202012Validator.FORMAT_CHECKER).validate(event)


@pytest.mark.parametrize("absent", [[], ["version", "id", "account", "time", "region", "resources"]])
def test_session_timeout_is_valid(absent: list[str]) -> None:
    """It needs only source, detail-type and detail."""
    check(changed("session-timeout", dict.fromkeys(absent, ABSENT)), "session-timeout")


def test_session_timeout_entry_is_the_sample() -> None:
    [entry] = sample("session-timeout-entry")
    event = sample("session-timeout")
    assert (entry["Source"], entry["DetailType"]) == (event["source"], event["detail-type"])
    assert json.loads(entry["Detail"]) == event["detail"]


NOT_IDS = [ABSENT, None, 7, ["c123456"], "", "..", "%2e%2e", "a/b", "a?b", "-a", "c\u0661", "c" * 129]
WRONG_TIMEOUT: dict[str, list[Any]] = {
    "detail-type": ["Conversation End Result"],
    "id": [""],
    "detail": ['{"deployment_id": "d1234567890abcdef", "conversation_id": "c123456"}'],
    "detail.deployment_id": NOT_IDS,
    "detail.conversation_id": NOT_IDS,
}


@pytest.mark.parametrize("changes", each(ENVELOPE) + each(WRONG_TIMEOUT), ids=str)
def test_wrong_session_timeout_is_invalid(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        check(changed("session-timeout", changes), "session-timeout")


REJECTED = {"detail.status": "rejected", "detail.reason": "tavus_rejected", "detail.tavus_status_code": 403}
NOT_ALLOWED = REJECTED | {
    "detail.reason": "deployment_not_allowed",
    "detail.attempts": 0,
    "detail.tavus_status_code": None,
}
NOT_FOUND = {"detail.status": "not_found", "detail.tavus_status_code": 404}
UNEXPECTED = {"detail.status": "unconfirmed", "detail.reason": "unexpected_answer"}
EARLIER = UNEXPECTED | {"detail.reason": "earlier_attempt", "detail.attempts": 2, "detail.tavus_status_code": 404}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        UNEXPECTED,
        *(EARLIER | {"detail.tavus_status_code": code} for code in (None, 302, 403, 404, 501, 505)),
        NOT_FOUND,
        NOT_FOUND | {"detail.tavus_status_code": 410, "detail.attempts": 3},
        *(REJECTED | {"detail.tavus_status_code": code} for code in (302, 403, 501, 505)),
        NOT_ALLOWED,
        {"detail.tavus_request_id": "0b9a6a4e-6c1f-4f57-8d0e-2b6f6f0f4d11"},
        {"detail.trigger.time": None},
        {"detail.trigger.source": None, "detail.trigger.detail_type": None},
        {"detail.added_later": True},
        dict.fromkeys(("version", "id", "account", "time", "region", "resources"), ABSENT),
    ],
    ids=str,
)
def test_result_is_valid(changes: dict[str, Any]) -> None:
    """So is a result with members that are added later."""
    check(changed("conversation-end-result", changes), "conversation-end-result")


CONTRADICTIONS: list[tuple[dict[str, Any], dict[str, list[Any]]]] = [
    (UNEXPECTED, {"reason": [None], "attempts": [0], "tavus_status_code": [None, 404]}),
    (EARLIER, {"attempts": [0], "tavus_status_code": [100, 600]}),
    (NOT_FOUND, {"reason": ["tavus_rejected"], "attempts": [0], "tavus_status_code": [200]}),
    (REJECTED, {"reason": [None], "attempts": [0], "tavus_status_code": [None, 200, 503]}),
    (NOT_ALLOWED, {"status": ["unconfirmed"], "attempts": [1], "tavus_status_code": [403]}),
    (NOT_ALLOWED, {"tavus_request_id": ["a"]}),
]


RESULT = sample("conversation-end-result")["detail"]
WRONG_RESULT: dict[str, list[Any]] = {
    **{f"detail.{member}": [ABSENT, ["c123456"], True] for member in RESULT},
    **{f"detail.trigger.{member}": [ABSENT, 7, ["c123456"]] for member in RESULT["trigger"]},
}
WRONG_VALUES: dict[str, list[Any]] = {
    "detail-type": ["Session Timeout"],
    "detail.version": ["2"],
    "detail.deployment_id": [".."],
    "detail.conversation_id": [None],
    "detail.status": ["over", "not_found"],
    "detail.reason": ["over", "unexpected_answer", "earlier_attempt", "tavus_rejected", "deployment_not_allowed"],
    "detail.decided_at": [f"2026-11-{x}" for x in ("22T20:14:01Z", "22T20:14:01.207+00:00", "31T20:14:01.207Z")],
    "detail.attempts": [0, 4, "1"],
    "detail.tavus_status_code": [None, 404],
    "detail.tavus_request_id": ["", "a" * 65, "<script>"],
    "detail.trigger.id": [None, ""],
}


@pytest.mark.parametrize(
    "changes",
    [
        *(each(ENVELOPE) + each(WRONG_RESULT) + each(WRONG_VALUES)),
        *(
            allowed | {f"detail.{member}": bad}
            for allowed, contradictions in CONTRADICTIONS
            for member, values in contradictions.items()
            for bad in values
        ),
    ],
    ids=str,
)
def test_wrong_result_is_invalid(changes: dict[str, Any]) -> None:
    """A member is wrong or missing, or two members contradict each other."""
    with pytest.raises(ValidationError):
        check(changed("conversation-end-result", changes), "conversation-end-result")


def end(upstream: Peer) -> None:
    """Answer as Tavus does when it ends a conversation, or as Scheduler when it creates a schedule."""
    path = upstream.request.path
    ended = {"conversation_id": path.split("/")[-2], "status": "ended"}
    body = {"ScheduleArn": "arn"} if path.startswith("/schedules/") else ended
    upstream.send(answer(200, json.dumps(body).encode()))


def our_handler(upstream: FaultServer, allowed: str = "*") -> Callable[[Any, Any], Any]:
    """The handler, with one server as Tavus and as Scheduler."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AWS_CLIENT.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL_SCHEDULER", upstream.url)
        return bootstrap({"TAVUS_API_URL": upstream.url, "ALLOWED_DEPLOYMENT_IDS": allowed, **TIMER_SETTINGS})


def our_api(upstream: FaultServer, allowed: str = "*", remaining_ms: int = 3000) -> WSGIApplication:
    """The handler behind an HTTP API of API Gateway (payload 2.0)."""
    handler = our_handler(upstream, allowed)
    context = Context(remaining_ms, request_id="8f507e5b-6d1c-4c5e-9a53-0f8d3c1b2a47")
    route = re.compile(PATH.replace("{", "(?P<").replace("}", ">[^/]+)") + "/(end|timeout)")

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
        event = sample("http-api")
        event["rawPath"] = event["requestContext"]["http"]["path"] = path
        event["requestContext"]["http"]["method"] = environ["REQUEST_METHOD"]
        event["body"] = environ["wsgi.input"].read().decode("latin-1")
        query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
        event["queryStringParameters"] = {name: ",".join(values) for name, values in query.items()}
        event["pathParameters"] = ids.groupdict() if (ids := route.fullmatch(path)) else None
        response = handler(event, context)
        status = HTTPStatus(response["statusCode"])
        start_response(f"{status.value} {status.phrase}", list(response["headers"].items()))
        return [response["body"].encode()]

    return respond


@pytest.fixture(scope="module")
def ending() -> Iterator[tuple[FaultServer, WSGIApplication]]:
    """A Tavus that ends every conversation, a Scheduler that creates every schedule, and our API in front of them."""
    with FaultServer(end) as upstream:
        yield upstream, our_api(upstream)


CONTRACT = schemathesis.openapi.from_path(
    OPENAPI,
    config=SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "generation": {"deterministic": True, "max-examples": 100, "database": "none"},
            # API Gateway asks for credentials. A request without them never reaches the handler.
            "checks": {"ignored_auth": {"enabled": False}},
        }
    ),
)


@CONTRACT.parametrize()
def test_every_answer_is_documented(case: schemathesis.Case[Any], ending: tuple[FaultServer, WSGIApplication]) -> None:
    """For any request, the answer is as openapi.yaml says. Tavus or Scheduler is called once for a 200, else never."""
    upstream, api = ending
    upstream.requests.clear()

    response = case.call_and_validate(app=api)

    *_, deployment_id, _, conversation_id, operation = case.formatted_path.split("/")
    schedule = hashlib.sha256(f"{deployment_id}/{conversation_id}".encode()).hexdigest()
    path = {"end": case.formatted_path, "timeout": f"/schedules/{schedule}"}[operation]
    calls = [(request.method, request.path) for request in upstream.requests]
    assert calls == ([("POST", path)] if response.status_code == HTTPStatus.OK else [])
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        content = OPERATIONS[operation]["responses"][str(response.status_code)]["content"]["application/problem+json"]
        problem = response.json()
        example = content["examples"][problem["reason"]]["value"]
        assert problem == example | {name: problem[name] for name in ("conversation_id", "detail") if name in example}


NOW = datetime(2026, 11, 25, 8, 27, 41, 207_000, UTC)
END = f"POST {SAMPLE_PATH}/end"
LIMIT = f"PUT {SAMPLE_PATH}/timeout?seconds=600"
ANSWERS: dict[tuple[str, str], tuple[str, Reply]] = {
    ("end", "ended"): (END, end),
    ("end", "unconfirmed"): (END, answer(200, b"{}")),
    ("end", "invalid_id"): ("POST /v2/deployments/d1234567890abcdef/conversations/../end", end),
    ("end", "deployment_not_allowed"): ("POST /v2/deployments/d2/conversations/c123456/end", end),
    ("end", "not_found"): (END, answer(404)),
    ("end", "unknown_path"): ("POST /", end),
    ("end", "method_not_allowed"): (f"GET {SAMPLE_PATH}/end", end),
    ("end", "tavus_rejected"): (END, answer(403)),
    ("end", "tavus_throttled"): (END, answer(429)),
    ("end", "tavus_error"): (END, answer(500)),
    ("end", "tavus_unreachable"): (END, reset),
    ("end", "tavus_timeout"): (END, hang),
    ("timeout", "limited"): (LIMIT, end),
    ("timeout", "invalid_id"): ("PUT /v2/deployments/d1234567890abcdef/conversations/../timeout", end),
    ("timeout", "invalid_seconds"): (f"PUT {SAMPLE_PATH}/timeout?seconds=59", end),
    ("timeout", "deployment_not_allowed"): ("PUT /v2/deployments/d2/conversations/c123456/timeout", end),
    ("timeout", "unknown_path"): ("PUT /", end),
    ("timeout", "method_not_allowed"): (f"GET {SAMPLE_PATH}/timeout", end),
    ("timeout", "timer_unavailable"): (LIMIT, answer(403)),
}
"""For each operation and name of an example in openapi.yaml: the request and the reply to us that lead to it."""


@pytest.mark.parametrize(("operation", "name"), ANSWERS)
def test_every_answer_is_its_example(operation: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer is its example in openapi.yaml, word for word, and has the documented headers."""
    monkeypatch.setattr("random.uniform", lambda low, high: low)  # no pause between two attempts
    monkeypatch.setattr(Clock, "now", lambda _: NOW)
    request_line, reply = ANSWERS[operation, name]
    method, path = request_line.split()

    with FaultServer(reply) as upstream:
        api = our_api(upstream, "d1234567890abcdef", remaining_ms=700 if reply is hang else 3000)
        response = Client(api).open(path, method=method)

    documented = OPERATIONS[operation]["responses"][str(response.status_code)]
    assert documented["content"][response.content_type]["examples"][name]["value"] == response.get_json(force=True)
    assert documented.get("headers", {}).keys() <= dict(response.headers).keys()


def test_every_documented_answer_is_given() -> None:
    """Every example in openapi.yaml is compared with an answer of the handler."""
    examples = [
        (name, example)
        for name, operation in OPERATIONS.items()
        for response in operation["responses"].values()
        for content in response["content"].values()
        for example in content.get("examples", {})
    ]
    assert sorted(examples) == sorted(ANSWERS)


def test_limit_schedules_the_session_timeout_of_its_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "now", lambda _: NOW)
    with FaultServer(end) as scheduler:
        our_handler(scheduler)(sample("limit"), Context())

    [request] = scheduler.requests
    schedule = json.loads(request.body)
    assert schedule["ScheduleExpression"] == "at(2026-11-25T08:36:41)"
    [message] = sample("session-limit-message")["Records"]
    assert schedule["Target"]["Input"] == message["body"]


@pytest.mark.parametrize(
    "schema",
    [
        CONTRACT.raw_schema["components"]["schemas"]["Id"],
        sample("session-timeout.schema")["$defs"]["id"],
        sample("conversation-end-result.schema")["$defs"]["id"],
    ],
)
def test_schemas_accept_the_ids_that_the_code_accepts(schema: dict[str, Any]) -> None:
    words = ["undefined", "NULL", "NaN", "nan", "None", "NONE", "null1", "d1", "a-_9", "-a", "", "a" * 128, "a" * 129]
    validator = Draft202012Validator(schema)

    assert [validator.is_valid(word) for word in words] == [is_id(word) for word in words]


def test_openapi_document_is_valid() -> None:
    CONTRACT.validate()


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        pytest.param(content["schema"], example["value"], id=f"{operation}-{status}-{name}")
        for operation, documented in OPERATIONS.items()
        for status, response in documented["responses"].items()
        for content in response["content"].values()
        for name, example in content.get("examples", {}).items()
    ],
)
def test_every_example_is_valid(schema: dict[str, Any], example: Any) -> None:
    Draft202012Validator(schema).validate(example)
