"""The composed handler: which door an event goes to, and what stops a cold start."""

import json
import ssl
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import pytest
import trustme

from end_conversation.bootstrap import bootstrap
from end_conversation.errors import InvalidSetting, ResultNotPublished, UnsupportedEvent
from local.process import AWS_CLIENT
from tests.unit.cold_start import cold_start
from tests.unit.fakes import TIMER_SETTINGS, Context, sample
from tests.unit.fault_server import FaultServer, answer, serving_tls

EVENTS = Path(__file__).parents[2] / "events"
PATH = "/v2/deployments/d1/conversations/c1/end"
HTTP_ONLY = {"ALLOWED_DEPLOYMENT_IDS": "d1"}
WITH_EVENTS = HTTP_ONLY | {"EVENT_BUS_NAME": "bus", "ENDED_TABLE_NAME": "ended"}
QUEUES = {"TIMEOUT_QUEUE_URL": "https://sqs.test/timeouts", "FAILED_QUEUE_URL": "https://sqs.test/failed"}
WITH_QUEUES = WITH_EVENTS | QUEUES
ENDED = answer(200, b'{"conversation_id": "c123456", "status": "ended"}')
UNSUPPORTED_TEXT = (
    "the event must be a request from API Gateway or a Function URL, an EventBridge event, or SQS messages"
)
SENT = answer(200, b'{"MessageId": "m2", "MD5OfMessageBody": "1f0e3dad99908345f7439f8ffabdffc4"}')
PUBLISHED = answer(200, b'{"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}')

type Handler = Callable[[Any, Any], Any]


@pytest.fixture(scope="module")
def handlers() -> Iterator[tuple[dict[str, Handler], FaultServer]]:
    """A handler for HTTP only and one for events too, both of which allow every deployment, and their Tavus."""
    with FaultServer() as tavus, pytest.MonkeyPatch.context() as patch:
        for name, value in AWS_CLIENT.items():
            patch.setenv(name, value)
        settings = {"ALLOWED_DEPLOYMENT_IDS": "*", "TAVUS_API_URL": tavus.url}
        yield {"http": bootstrap(settings), "events": bootstrap(WITH_QUEUES | settings)}, tavus


def test_deployment_not_allowed_calls_neither_tavus_nor_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer() as tavus, FaultServer(PUBLISHED) as table_and_bus:
        monkeypatch.setenv("AWS_ENDPOINT_URL", table_and_bus.url)
        bootstrap(WITH_EVENTS | {"TAVUS_API_URL": tavus.url})(sample("session-timeout"), Context(60_000))

    assert tavus.connections == 0
    [published] = table_and_bus.requests
    [entry] = json.loads(published.body)["Entries"]
    assert json.loads(entry["Detail"])["reason"] == "deployment_not_allowed"


NEEDED_FOR_MESSAGES = "EVENT_BUS_NAME, TIMEOUT_QUEUE_URL and FAILED_QUEUE_URL to handle SQS messages"


@pytest.mark.parametrize(
    ("name", "missing", "needed"),
    [
        ("session-timeout", "EVENT_BUS_NAME", "EVENT_BUS_NAME to handle EventBridge events"),
        ("session-timeout-message", "EVENT_BUS_NAME", NEEDED_FOR_MESSAGES),
        ("session-timeout-message", "TIMEOUT_QUEUE_URL", NEEDED_FOR_MESSAGES),
        ("session-timeout-message", "FAILED_QUEUE_URL", NEEDED_FOR_MESSAGES),
    ],
)
def test_an_event_without_its_settings_is_unsupported(
    name: str, missing: str, needed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the settings that are needed. The event is logged and counted as invalid."""
    settings = {variable: value for variable, value in WITH_QUEUES.items() if variable != missing}
    handler = bootstrap(settings | {"POWERTOOLS_SERVICE_NAME": str(uuid4())})

    with pytest.raises(UnsupportedEvent, match=f"^set {needed}$"):
        handler(sample(name), Context())

    line, metrics = map(json.loads, capsys.readouterr().out.splitlines())
    own = "event" if "EVENT_BUS_NAME" in settings else "http"
    assert (line["trigger"], line["status"], line["reason"]) == (own, "invalid", "unsupported_event")
    assert (metrics["trigger"], metrics["invalid"]) == (own, [1.0])


def test_the_ca_bundle_of_tavus_is_trusted_for_aws_too(
    authority: trustme.CA, ca_bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with FaultServer(ENDED) as tavus, FaultServer(PUBLISHED, PUBLISHED, tls=serving_tls(authority)) as table_and_bus:
        monkeypatch.setenv("AWS_ENDPOINT_URL", table_and_bus.url)
        settings = {"ALLOWED_DEPLOYMENT_IDS": "*", "TAVUS_API_URL": tavus.url, "SSL_CERT_FILE": ca_bundle}
        bootstrap(WITH_EVENTS | settings)(sample("session-timeout"), Context(60_000))

    assert len(table_and_bus.requests) == 2


@pytest.mark.parametrize(
    ("settings", "origin"), [({}, None), ({"TAVUS_ORIGIN": "https://www.example.com"}, "https://www.example.com")]
)
def test_tavus_receives_our_user_agent_and_an_origin_only_if_it_is_set(
    settings: dict[str, str], origin: str | None
) -> None:
    with FaultServer(ENDED) as tavus:
        environ = {"ALLOWED_DEPLOYMENT_IDS": "*", "TAVUS_API_URL": tavus.url}
        bootstrap(environ | settings)(sample("http-api"), Context())

    [request] = tavus.requests
    assert request.headers["user-agent"] == "end-conversation/1"
    assert request.headers.get("origin") == origin


def test_result_is_published_if_the_table_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is tried twice, and the failure of the table is counted."""
    failed = answer(500)
    with FaultServer(ENDED) as tavus, FaultServer(failed, failed, failed, PUBLISHED) as table_and_bus:
        monkeypatch.setenv("AWS_ENDPOINT_URL", table_and_bus.url)
        settings = {"TAVUS_API_URL": tavus.url, "POWERTOOLS_SERVICE_NAME": str(uuid4())}
        bootstrap(WITH_EVENTS | settings | {"ALLOWED_DEPLOYMENT_IDS": "*"})(sample("session-timeout"), Context(60_000))

    targets = [request.headers["x-amz-target"] for request in table_and_bus.requests]
    assert targets == ["DynamoDB_20120810.PutItem"] * 2 + ["AWSEvents.PutEvents"] * 2
    *_, metrics = map(json.loads, capsys.readouterr().out.splitlines())
    assert (metrics["record_failed"], metrics["ended"]) == ([1.0], [1.0])


@pytest.mark.parametrize(
    ("settings", "own"),
    [
        (HTTP_ONLY, "http"),
        (HTTP_ONLY | TIMER_SETTINGS, "timer"),
        (WITH_QUEUES, "event"),
        (WITH_QUEUES | TIMER_SETTINGS, "event"),
    ],
)
def test_unhandled_input_is_counted_under_the_functions_trigger(
    settings: dict[str, str], own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = bootstrap(settings | {"POWERTOOLS_SERVICE_NAME": str(uuid4())})

    handler(sample("http-api") | {"rawPath": "/"}, Context())
    with pytest.raises(UnsupportedEvent):
        handler({"detail": {}}, Context())

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["trigger"], line["invalid"]) for line in lines if "invalid" in line] == [(own, [1.0])] * 2


def test_unpublished_result_is_logged_but_not_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next try publishes and counts it."""
    with FaultServer(ENDED) as tavus, FaultServer(answer(200, b"{}"), answer(400)) as table_and_bus:
        monkeypatch.setenv("AWS_ENDPOINT_URL", table_and_bus.url)
        settings = {"ALLOWED_DEPLOYMENT_IDS": "*", "TAVUS_API_URL": tavus.url}
        handler = bootstrap(WITH_EVENTS | settings | {"POWERTOOLS_SERVICE_NAME": str(uuid4())})
        with pytest.raises(ResultNotPublished, match="^400$"):
            handler(sample("session-timeout"), Context(60_000))

    ended, failed, metrics = map(json.loads, capsys.readouterr().out.splitlines())
    assert (ended["trigger"], ended["status"], ended["tavus_status_code"]) == ("event", "ended", 200)
    assert failed["message"] == "the result was not published"
    assert (metrics["trigger"], metrics["publish_failed"]) == ("event", [1.0])
    assert "ended" not in metrics


REST = {"resourcePath": PATH, "httpMethod": "POST", "path": f"/prod{PATH}"}
# What other services send, as far as it looks like a request. Where a payload has a path, it is the path of an end.
OTHER_SERVICES: dict[str, Any] = {
    "WebSocket $connect": {"requestContext": {"eventType": "CONNECT", "routeKey": "$connect"}, "headers": {}},
    "WebSocket message": {
        "requestContext": {"eventType": "MESSAGE", "routeKey": "$default"},
        "body": '{"action": "end"}',
    },
    "VPC Lattice": {"path": PATH, "method": "POST", "requestContext": {"serviceArn": "arn:aws:vpc-lattice"}},
    "destination record": {
        "requestContext": {"condition": "RetriesExhausted", "approximateInvokeCount": 3},
        "requestPayload": sample("session-timeout"),
        "responsePayload": {"errorType": "TavusUnavailable"},
    },
    "authorizer, payload 1.0": {"type": "REQUEST", "methodArn": "arn:aws:execute-api", **REST, "requestContext": REST},
    "authorizer, payload 2.0": {
        "type": "REQUEST",
        "routeArn": "arn:aws:execute-api",
        "rawPath": PATH,
        "requestContext": {"http": {"method": "POST", "path": PATH}},
    },
    "TOKEN authorizer": {"type": "TOKEN", "authorizationToken": "token", "methodArn": "arn:aws:execute-api"},
    "AppSync authorizer": {"authorizationToken": "token", "requestContext": {"queryString": "mutation End {end}"}},
}
NOT_AN_EVENT: list[Any] = [None, [], "", 5, True, {}, {"Records": []}, {"detail": {}}]
NOT_A_METHOD: list[Any] = [None, 5, True, ["POST"], {"POST": 1}]
UNSUPPORTED: dict[str, Any] = {
    **OTHER_SERVICES,
    **{repr(event): event for event in NOT_AN_EVENT},
    "list of events": [sample("session-timeout")],
    "message of another service": {
        "Records": [sample("session-timeout-message")["Records"][0] | {"eventSource": "aws:kinesis"}]
    },
    **{
        f"authorizer with only {member}": {**REST, "requestContext": REST, member: "REQUEST"}
        for member in ("type", "methodArn", "routeArn")
    },
    "SNS notification": {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": "{}"}}]},
    "no method": {"requestContext": {"http": {}}, "rawPath": PATH},
    "null context": {"requestContext": None, "rawPath": PATH},
    **{f"HTTP API method {m!r}": {"requestContext": {"http": {"method": m}}, "rawPath": PATH} for m in NOT_A_METHOD},
    **{f"REST API method {m!r}": {"requestContext": {}, "httpMethod": m, "path": PATH} for m in NOT_A_METHOD},
}


@pytest.mark.parametrize("deployment", ["http", "events"])
@pytest.mark.parametrize("event", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_an_event_of_another_kind_is_unsupported(
    handlers: tuple[dict[str, Handler], FaultServer], deployment: str, event: Any
) -> None:
    by_deployment, tavus = handlers

    with pytest.raises(UnsupportedEvent, match=f"^{UNSUPPORTED_TEXT}$"):
        by_deployment[deployment](event, Context())

    assert tavus.connections == 0


def test_a_message_ends_its_conversation_and_leaves_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(ENDED) as tavus, FaultServer(PUBLISHED, PUBLISHED) as table_and_bus:
        monkeypatch.setenv("AWS_ENDPOINT_URL", table_and_bus.url)
        environ = WITH_QUEUES | {"ALLOWED_DEPLOYMENT_IDS": "*", "TAVUS_API_URL": tavus.url}
        answered = bootstrap(environ)(sample("session-timeout-message"), Context(30_000))

    assert answered == {"batchItemFailures": []}
    [entry] = json.loads(table_and_bus.requests[-1].body)["Entries"]
    detail = json.loads(entry["Detail"])
    assert (detail["status"], detail["trigger"]["id"]) == ("ended", sample("session-timeout")["id"])


def test_a_message_is_postponed_while_tavus_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the second try, here. A message that names no conversation goes to the queue of failed ones."""
    [record] = (message := sample("session-timeout-message"))["Records"]
    throttled = answer(429, b"", "Retry-After: 600")
    with FaultServer(throttled) as tavus, FaultServer(answer(200, b"{}"), answer(500), SENT, SENT) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        handler = bootstrap(WITH_QUEUES | {"ALLOWED_DEPLOYMENT_IDS": "*", "TAVUS_API_URL": tavus.url})
        postponed = handler(message, Context(30_000))
        refused = handler({"Records": [record | {"body": "junk"}]}, Context(30_000))

    failed = {"batchItemFailures": [{"itemIdentifier": record["messageId"]}]}
    assert (postponed, refused) == (failed, {"batchItemFailures": []})
    _, _, change, send = (json.loads(request.body) for request in aws.requests)
    assert change == {
        "QueueUrl": QUEUES["TIMEOUT_QUEUE_URL"],
        "ReceiptHandle": record["receiptHandle"],
        "VisibilityTimeout": 600,
    }
    assert send == {"QueueUrl": QUEUES["FAILED_QUEUE_URL"], "MessageBody": "junk"}


@pytest.mark.parametrize("named", [set(), {"SSL_CERT_FILE"}, {"SSL_CERT_FILE", "AWS_CA_BUNDLE"}])
def test_a_cold_start_loads_one_ca_bundle(ca_bundle: str, monkeypatch: pytest.MonkeyPatch, named: set[str]) -> None:
    """It serves both Tavus and AWS, unless two different ones are named."""
    loaded = Mock(wraps=ssl.create_default_context)
    monkeypatch.setattr(ssl, "create_default_context", loaded)

    bootstrap(WITH_EVENTS | dict.fromkeys(named, ca_bundle))

    assert loaded.call_count == 1


def test_a_session_timeout_goes_to_tavus_the_table_and_the_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tavus and AWS are each trusted by their own CA bundle. Tavus is offered HTTP/1.1. The event has a trace."""
    authorities = {"SSL_CERT_FILE": trustme.CA(), "AWS_CA_BUNDLE": trustme.CA()}
    for name, authority in authorities.items():
        authority.cert_pem.write_to_path(str(tmp_path / name))
    tls, aws_tls = map(serving_tls, authorities.values())
    offered: list[str | None] = []
    with (
        FaultServer((lambda peer: offered.append(peer.protocol), ENDED), tls=tls) as tavus,
        FaultServer(answer(200, b"{}"), PUBLISHED, tls=aws_tls) as table_and_bus,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL", table_and_bus.url)
        settings = WITH_EVENTS | {"ALLOWED_DEPLOYMENT_IDS": "*", "TAVUS_API_URL": tavus.url}
        settings |= {name: str(tmp_path / name) for name in authorities} | {"_X_AMZN_TRACE_ID": "Root=1-2-3"}
        bootstrap(settings)(sample("session-timeout"), Context(60_000))

    written, published = table_and_bus.requests
    record = json.loads(written.body)
    assert (record["TableName"], record["Item"]["status"]) == (WITH_EVENTS["ENDED_TABLE_NAME"], {"S": "ended"})
    [entry] = json.loads(published.body)["Entries"]
    assert (entry["EventBusName"], entry["Source"]) == (WITH_EVENTS["EVENT_BUS_NAME"], "tavus.conversations")
    assert json.loads(entry["Detail"])["status"] == "ended"
    assert entry["TraceHeader"] == "Root=1-2-3"
    assert offered == ["http/1.1"]


PUT = {"requestContext": {"http": {"method": "PUT"}}, "rawPath": PATH.replace("/end", "/timeout")}


def test_a_limit_is_set_by_a_deployment_with_a_timer_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tavus is not called. The same deployment still ends conversations."""
    target = {"Arn": "arn:aws:sqs:eu-west-1:111122223333:timeouts", "RoleArn": "arn:aws:iam::1:role/r"}
    environ = HTTP_ONLY | {
        "TIMER_GROUP_NAME": "limits",
        "TIMER_TARGET": json.dumps(target),
        "MAX_SESSION_SECONDS": "600",
    }
    with FaultServer(answer(404)) as tavus, FaultServer(answer(200, b'{"ScheduleArn": "arn"}')) as scheduler:
        monkeypatch.setenv("AWS_ENDPOINT_URL", scheduler.url)
        handler = bootstrap(environ | {"TAVUS_API_URL": tavus.url})
        before = datetime.now(UTC).replace(microsecond=0)
        response = handler(PUT, Context())
        asked_before = tavus.connections
        end = handler({"requestContext": {"http": {"method": "POST"}}, "rawPath": PATH}, Context())

    ends_at = datetime.fromisoformat(json.loads(response["body"])["ends_at"])
    assert timedelta(0) <= ends_at - before - timedelta(seconds=600) < timedelta(seconds=30)
    [request] = scheduler.requests
    schedule = json.loads(request.body)
    assert schedule["GroupName"] == "limits"
    assert schedule["Target"] == target | {"Input": schedule["Target"]["Input"]}
    assert json.loads(schedule["Target"]["Input"])["detail"]["ends_at"] == f"{ends_at:%Y-%m-%dT%H:%M:%SZ}"
    assert (asked_before, end["statusCode"]) == (0, 404)


@pytest.mark.parametrize(
    ("environ", "traced"), [(HTTP_ONLY, True), (WITH_EVENTS, True), (HTTP_ONLY | TIMER_SETTINGS, False)]
)
def test_only_functions_that_call_tavus_are_traced(
    environ: dict[str, str], traced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_xray = Mock()
    monkeypatch.setattr("end_conversation.telemetry._create_xray", create_xray)

    bootstrap(environ)

    assert create_xray.called == traced


def test_a_session_timeout_ends_without_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(ENDED) as tavus, FaultServer(PUBLISHED) as bus:
        monkeypatch.setenv("AWS_ENDPOINT_URL", bus.url)
        environ = {"EVENT_BUS_NAME": "bus", "ALLOWED_DEPLOYMENT_IDS": "*", "TAVUS_API_URL": tavus.url}
        bootstrap(environ)(sample("session-timeout"), Context(60_000))

    [request] = bus.requests
    assert json.loads(json.loads(request.body)["Entries"][0]["Detail"])["status"] == "ended"


@pytest.mark.parametrize("name", ["session-timeout", "session-timeout-message"])
def test_a_function_for_limits_handles_no_events(name: str) -> None:
    handler = bootstrap(HTTP_ONLY | TIMER_SETTINGS | QUEUES)

    with pytest.raises(UnsupportedEvent, match="^set EVENT_BUS_NAME"):
        handler(sample(name), Context())


@pytest.mark.parametrize("environ", [HTTP_ONLY, WITH_EVENTS])
def test_without_a_timer_group_the_path_of_a_limit_is_unknown(environ: dict[str, str]) -> None:
    response = bootstrap(environ)(PUT, Context())

    assert (response["statusCode"], json.loads(response["body"])["reason"]) == (404, "unknown_path")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALLOWED_DEPLOYMENT_IDS", ""),
        ("SSL_CERT_FILE", "/nowhere"),
        ("SSL_CERT_FILE", ""),
        ("SSL_CERT_FILE", __file__),
        ("SSL_CERT_FILE", str(EVENTS)),
        ("AWS_CA_BUNDLE", "/nowhere"),
        ("AWS_CA_BUNDLE", ""),
        ("SSLKEYLOGFILE", "/nowhere/keys"),
        ("SSLKEYLOGFILE", str(EVENTS)),
    ],
)
def test_a_wrong_setting_is_named(ca_bundle: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(InvalidSetting, match=f"^{variable} must be "):
        bootstrap(WITH_EVENTS | {"SSL_CERT_FILE": ca_bundle, variable: value})


def test_a_wrong_setting_stops_the_cold_start_with_one_sentence() -> None:
    """It is the last line that Lambda reports."""
    with pytest.raises(subprocess.CalledProcessError) as stopped:
        cold_start(WITH_EVENTS | {"SSL_CERT_FILE": "/nowhere"})

    last = stopped.value.stderr.splitlines()[-1]
    expected = "SSL_CERT_FILE must be unset, or name a file of CA certificates"
    assert last == f"end_conversation.errors.InvalidSetting: {expected}"
