"""The template, read as CloudFormation reads it, held against the code, the sample events and what it promises."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout
from typing import Any

import pytest
import yaml
from moto.events.models import EventPattern

from end_conversation.conversation import Conversation, Reason, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.errors import RecordUnavailable, ResultNotPublished, TavusUnavailable
from end_conversation.http import MAX_SECONDS
from end_conversation.settings import Settings
from end_conversation.telemetry import Telemetry
from local.process import ROOT
from tests.fakes import Context, FakeClock


class _Loader(yaml.SafeLoader):
    """Reads `!GetAtt Queue.Arn` as CloudFormation does: `{"Fn::GetAtt": "Queue.Arn"}`."""


def _intrinsic(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    match node:
        case yaml.ScalarNode():
            value = loader.construct_scalar(node)
        case yaml.SequenceNode():
            value = loader.construct_sequence(node, deep=True)
        case yaml.MappingNode():
            value = loader.construct_mapping(node, deep=True)
    return {"Ref" if name == "Ref" else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _intrinsic)

TEMPLATE: dict[str, Any] = yaml.load((ROOT / "template.yaml").read_text(), _Loader)  # noqa: S506 - a SafeLoader
PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]
NOTHING = {"Ref": "AWS::NoValue"}


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    """The properties of every resource of a type, by logical id."""
    return {name: found["Properties"] for name, found in TEMPLATE["Resources"].items() if found["Type"] == kind}


FUNCTIONS = of_type("AWS::Serverless::Function")
QUEUES = of_type("AWS::SQS::Queue")
ALARMS = of_type("AWS::CloudWatch::Alarm")


# Parameters


def test_only_the_allowed_deployments_have_no_default() -> None:
    """Everything but what may be ended is answered already, so a first deployment asks for one thing."""
    assert [name for name, parameter in PARAMETERS.items() if "Default" not in parameter] == ["AllowedDeploymentIds"]


def test_every_parameter_is_described_and_bounded() -> None:
    """Each says what it is for, and refuses what it can't mean."""
    for name, parameter in PARAMETERS.items():
        assert parameter["Description"].endswith("."), name
        assert parameter.keys() & {"AllowedPattern", "AllowedValues", "MinValue"}, name


def test_every_parameter_stands_in_one_group() -> None:
    """The console shows no parameter outside its group."""
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_default_is_a_value_that_the_parameter_accepts(name: str) -> None:
    """CloudFormation checks defaults like any other value."""
    parameter = PARAMETERS[name]
    default = parameter.get("Default")
    assert default is None or re.fullmatch(parameter.get("AllowedPattern", ".*"), str(default))
    assert default is None or default in parameter.get("AllowedValues", [default])


CONCURRENCIES = (["", "0", "1", "99999"], ["-1", "01", "1.5", "100000", "ten"])
SOURCES = (["myapp.sessions", "a/b_c-1"], ["", "aws.events", "my app", "a" * 257])
# What each parameter accepts, and what it refuses.
VALUES: dict[str, tuple[list[str], list[str]]] = {
    "AllowedDeploymentIds": (
        ["*", "d1", "d1,d2", "d1, d-2 , d_3", "d" * 128],
        ["", ",", "d1,", "d1,,d2", "-d", "d/1", "d1 d2", "*,d1", "d" * 129],
    ),
    "JwtIssuer": (
        ["", "https://id.example.com", "https://id.example.com/", "https://cognito-idp.eu-west-1.amazonaws.com/eu_1"],
        ["http://id.example.com", "id.example.com", "https://id.example.com/?a=b", "https://user@id.example.com"],
    ),
    "JwtAudience": (["", "web", "web,https://api.example.com/"], ["web, app", ",web", "web,", " "]),
    "CorsAllowedOrigins": (
        ["", "https://www.example.com", "https://a.example,http://localhost:8080"],
        [
            "*",
            "www.example.com",
            "https://www.example.com/",
            "https://a.example, https://b.example",
            "https://*.a.example",
        ],
    ),
    "EventBusName": (["default", "my.bus-1"], ["", "my bus", "arn:aws:events:us-east-1:111122223333:event-bus/b"]),
    "SessionEventSource": SOURCES,
    "SessionEventDetailType": (
        ["Session Timeout", "Conversation End Results", "myapp:timeout/1"],
        ["", "Conversation End Result", 'Say "now"', "a" * 129],
    ),
    "ResultSource": SOURCES,
    "TavusApiUrl": (
        [
            "https://tavusapi.com",
            "https://tavusapi.com:8443",
            "http://127.0.0.1:8080",
            "http://localhost",
            "http://[::1]:1",
        ],
        ["", "http://tavusapi.com", "https://tavusapi.com/", "https://a@tavusapi.com", "http://127.0.0.1.example"],
    ),
    "TavusOrigin": (
        ["", "https://www.example.com", "http://localhost:3000"],
        ["www.example.com", "https://a.example/b"],
    ),
    "HttpReservedConcurrency": CONCURRENCIES,
    "EventReservedConcurrency": CONCURRENCIES,
    "AlarmEmail": (
        ["", "ops@example.com", "on.call+tavus@mail.example.com"],
        ["ops", "ops@", "ops@example", "a b@c.example"],
    ),
    "AlarmTopicArn": (
        ["", "arn:aws:sns:eu-west-1:111122223333:on-call", "arn:aws-us-gov:sns:us-gov-west-1:111122223333:a"],
        ["on-call", "arn:aws:sns:eu-west-1:111122223333:", "arn:aws:sqs:eu-west-1:111122223333:on-call"],
    ),
}


def test_every_pattern_is_tried() -> None:
    """No parameter's pattern is missing from the table of values."""
    assert VALUES.keys() == {name for name, parameter in PARAMETERS.items() if "AllowedPattern" in parameter}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (good, _) in VALUES.items() for value in good])
def test_parameter_accepts(name: str, value: str) -> None:
    """A value that means something is let through."""
    assert re.fullmatch(PARAMETERS[name]["AllowedPattern"], value)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (_, bad) in VALUES.items() for value in bad])
def test_parameter_refuses(name: str, value: str) -> None:
    """A value that can't work is refused before anything is deployed."""
    assert not re.fullmatch(PARAMETERS[name]["AllowedPattern"], value)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_variables_are_those_that_the_code_reads(function: str) -> None:
    """No environment variable is misspelt, or set for nobody."""
    read: set[str] = set()

    class Environment(dict[str, str]):
        def get(self, name: str, *default: Any) -> Any:
            read.add(name)
            return super().get(name, *default)

    Settings.read(Environment(ALLOWED_DEPLOYMENT_IDS="*"))
    Telemetry(Environment())
    own = FUNCTIONS[function].get("Environment", {"Variables": {}})["Variables"]
    # The Tracer looks for this one itself.
    read.add("POWERTOOLS_TRACE_DISABLED")
    assert TEMPLATE["Globals"]["Function"]["Environment"]["Variables"].keys() | own.keys() <= read


# Events


@pytest.fixture(scope="module")
def matches() -> Any:
    """Whether the rule's pattern, at the parameters' defaults, matches an event; moto decides."""
    [rule] = of_type("AWS::Events::Rule").values()
    pattern = {
        member: [PARAMETERS[value["Ref"]]["Default"] for value in values]
        for member, values in rule["EventPattern"].items()
    }
    return EventPattern.load(json.dumps(pattern)).matches_event


SAMPLES = sorted(path.name for path in (ROOT / "events").glob("*.json") if ".schema." not in path.name)


def sample(name: str) -> Any:
    return json.loads((ROOT / "events" / name).read_text())


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "session-timeout-entry.json"])
def test_rule_matches_the_session_timeout_alone(matches: Any, name: str) -> None:
    """Of all sample payloads the rule takes the session timeout."""
    assert matches(sample(name)) is (name == "session-timeout.json")


def test_rule_matches_the_sample_entry(matches: Any) -> None:
    """What the README puts on the bus reaches the function."""
    [entry] = sample("session-timeout-entry.json")
    event = sample("session-timeout.json")
    members = {"source": entry["Source"], "detail-type": entry["DetailType"], "detail": json.loads(entry["Detail"])}
    assert matches(event | members)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("source", [PARAMETERS["ResultSource"]["Default"], PARAMETERS["SessionEventSource"]["Default"]])
def test_rule_never_matches_a_result(matches: Any, status: str, source: str) -> None:
    """No result of ours, not even under the source of the session timeouts, makes the function run again."""
    result = sample("conversation-end-result.json")
    assert not matches(result | {"source": source, "detail": result["detail"] | {"status": status}})


# Who may do what

WRITE_TRACE = (["xray:PutTraceSegments", "xray:PutTelemetryRecords"], "*", None)
BUS = {"Fn::Sub": "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/${EventBusName}"}
WRITE = ["logs:CreateLogStream", "logs:PutLogEvents"]
# Every statement of every role: its actions, its resource and its condition.
STATEMENTS: dict[str, dict[str, tuple[Any, Any, Any]]] = {
    "HttpFunctionRole": {
        "WriteLog": (WRITE, {"Fn::GetAtt": "HttpLogGroup.Arn"}, None),
        "WriteTrace": WRITE_TRACE,
    },
    "EventFunctionRole": {
        "WriteLog": (WRITE, {"Fn::GetAtt": "EventLogGroup.Arn"}, None),
        "WriteTrace": WRITE_TRACE,
        "PublishResults": (
            "events:PutEvents",
            BUS,
            {"ForAllValues:StringEquals": {"events:source": {"Ref": "ResultSource"}}},
        ),
        "RememberEnded": (["dynamodb:GetItem", "dynamodb:PutItem"], {"Fn::GetAtt": "EndedTable.Arn"}, None),
        "HandOnFailed": ("sqs:SendMessage", {"Fn::GetAtt": "FailedQueue.Arn"}, None),
    },
    "SchedulerRole": {
        "PutSessionTimeouts": (
            "events:PutEvents",
            BUS,
            {
                "ForAllValues:StringEquals": {
                    "events:source": {"Ref": "SessionEventSource"},
                    "events:detail-type": {"Ref": "SessionEventDetailType"},
                }
            },
        ),
    },
}
ROLES = of_type("AWS::IAM::Role")
END_ROUTE = (
    "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:${HttpApi}"
    "/$default/POST/v2/deployments/*/conversations/*/end"
)


def statements(role: str) -> list[dict[str, Any]]:
    """What a role allows, traced or not."""
    [policy] = ROLES[role]["Policies"]
    found: list[dict[str, Any]] = []
    for statement in policy["PolicyDocument"]["Statement"]:
        match statement:
            case {"Fn::If": ["Traces", traced, otherwise]} if otherwise == NOTHING:
                found.append(traced)
            case _:
                found.append(statement)
    return found


@pytest.mark.parametrize("role", ROLES)
def test_role_allows_exactly(role: str) -> None:
    """Each role has the statements spelled out above, and no managed policy."""
    assert ROLES[role].keys() == {"AssumeRolePolicyDocument", "Policies"}
    found = statements(role)
    assert all(statement["Effect"] == "Allow" for statement in found)
    assert {
        statement["Sid"]: (statement["Action"], statement["Resource"], statement.get("Condition"))
        for statement in found
    } == STATEMENTS[role]


def test_no_role_is_made_for_a_function_unseen() -> None:
    """Each function names its role, as SAM would otherwise make one."""
    assert {name: function["Role"] for name, function in FUNCTIONS.items()} == {
        "HttpFunction": {"Fn::GetAtt": "HttpFunctionRole.Arn"},
        "EventFunction": {"Fn::GetAtt": "EventFunctionRole.Arn"},
    }


@pytest.mark.parametrize(
    ("role", "service"),
    [
        ("HttpFunctionRole", "lambda.amazonaws.com"),
        ("EventFunctionRole", "lambda.amazonaws.com"),
        ("SchedulerRole", "scheduler.amazonaws.com"),
    ],
)
def test_role_is_taken_by_one_service(role: str, service: str) -> None:
    """Nobody but the service that it is for can take a role on."""
    [statement] = ROLES[role]["AssumeRolePolicyDocument"]["Statement"]
    assert (statement["Principal"], statement["Action"]) == ({"Service": service}, "sts:AssumeRole")


def test_functions_are_invoked_by_one_route_and_one_rule() -> None:
    """API Gateway may invoke for the one route, EventBridge for the one rule."""
    assert {
        (permission["FunctionName"]["Ref"], permission["Principal"], *permission["SourceArn"].values())
        for permission in of_type("AWS::Lambda::Permission").values()
    } == {
        (
            "HttpFunction",
            "apigateway.amazonaws.com",
            END_ROUTE,
        ),
        ("EventFunction", "events.amazonaws.com", "SessionTimeoutRule.Arn"),
    }


def test_star_stands_only_where_no_name_can() -> None:
    """X-Ray knows no resources, and the two ids of the route are the caller's; everything else is named."""

    def stars(value: Any, path: str) -> set[str]:
        match value:
            case dict():
                return {star for key, part in value.items() for star in stars(part, f"{path}/{key}")}
            case list():
                return {star for part in value for star in stars(part, path)}
            case str() if "*" in value:
                return {path}
        return set()

    statement = "Properties/Policies/PolicyDocument/Statement/Fn::If/Resource"
    assert stars(TEMPLATE["Resources"], "") == {
        f"/HttpFunctionRole/{statement}",
        f"/EventFunctionRole/{statement}",
        "/HttpApiMayInvoke/Properties/SourceArn/Fn::Sub",
    }


# Queues, tables, logs


@pytest.mark.parametrize("queue", QUEUES)
def test_queue_is_encrypted_and_keeps_what_failed_for_14_days(queue: str) -> None:
    """Nothing that failed is readable at rest, or lost over a holiday."""
    assert QUEUES[queue] == {"MessageRetentionPeriod": 14 * 24 * 3600, "SqsManagedSseEnabled": True}


# Who may send to each queue.
SENDERS: dict[str, tuple[Any, Any]] = {
    "UndeliveredQueue": (
        {"Service": "events.amazonaws.com"},
        {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": "SessionTimeoutRule.Arn"}}},
    ),
    "FailedQueue": ({"AWS": {"Fn::GetAtt": "EventFunctionRole.Arn"}}, None),
}


@pytest.mark.parametrize("queue", QUEUES)
def test_queue_takes_from_one_sender(queue: str) -> None:
    """The policy of each queue lets in the one part that puts failures there."""
    policies = of_type("AWS::SQS::QueuePolicy").values()
    [policy] = [policy for policy in policies if policy["Queues"] == [{"Ref": queue}]]
    [statement] = policy["PolicyDocument"]["Statement"]
    assert (statement["Principal"], statement.get("Condition")) == SENDERS[queue]
    assert (statement["Action"], statement["Resource"]) == ("sqs:SendMessage", {"Fn::GetAtt": f"{queue}.Arn"})


def test_failures_go_to_their_queues() -> None:
    """What can't be delivered and what can't be done each has retries stated, and its queue."""
    [rule] = of_type("AWS::Events::Rule").values()
    [target] = rule["Targets"]
    assert target["RetryPolicy"] == {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": 3600}
    assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": "UndeliveredQueue.Arn"}}
    asynchronous = FUNCTIONS["EventFunction"]["EventInvokeConfig"]
    assert (asynchronous["MaximumRetryAttempts"], asynchronous["MaximumEventAgeInSeconds"]) == (2, 3600)
    assert asynchronous["DestinationConfig"] == {
        "OnFailure": {"Type": "SQS", "Destination": {"Fn::GetAtt": "FailedQueue.Arn"}}
    }


def test_every_log_group_is_cleared() -> None:
    """Each keeps its lines for the days that the parameter says."""
    for name, group in of_type("AWS::Logs::LogGroup").items():
        assert group["RetentionInDays"] == {"Ref": "LogRetentionDays"}, name


def test_everything_that_logs_has_a_log_group_of_the_template() -> None:
    """Nothing logs into a group that Lambda or API Gateway would make, and keep forever."""
    logging = {function["LoggingConfig"]["LogGroup"]["Ref"] for function in FUNCTIONS.values()}
    [stage] = of_type("AWS::ApiGatewayV2::Stage").values()
    logging.add(stage["AccessLogSettings"]["DestinationArn"]["Fn::GetAtt"].removesuffix(".Arn"))
    assert logging == of_type("AWS::Logs::LogGroup").keys()


def test_access_log_is_json_without_ids() -> None:
    """A line names the route and not the path, as nobody has checked the ids in it yet."""
    [stage] = of_type("AWS::ApiGatewayV2::Stage").values()
    line = json.loads(stage["AccessLogSettings"]["Format"])
    assert line["request_id"] == "$context.requestId"  # API Gateway demands it
    assert not {"$context.path", "$context.customDomain.basePathMatched"} & set(line.values())


# HTTP


def test_throttling_is_the_same_in_every_mode() -> None:
    """The stage limits rate and burst for whoever calls."""
    [stage] = of_type("AWS::ApiGatewayV2::Stage").values()
    assert stage["DefaultRouteSettings"] == {
        "ThrottlingRateLimit": {"Ref": "ThrottleRate"},
        "ThrottlingBurstLimit": {"Ref": "ThrottleBurst"},
    }


def test_the_only_route_is_authorized_as_the_parameter_says() -> None:
    """No second route, such as one that catches all, lies outside the authorization."""
    [route] = of_type("AWS::ApiGatewayV2::Route").values()
    assert route["AuthorizationType"] == {"Fn::FindInMap": ["HttpAuth", {"Ref": "HttpAuth"}, "AuthorizationType"]}
    assert {mode: to["AuthorizationType"] for mode, to in TEMPLATE["Mappings"]["HttpAuth"].items()} == {
        "IAM": "AWS_IAM",
        "JWT": "JWT",
        "NONE": "NONE",
    }
    assert PARAMETERS["HttpAuth"]["AllowedValues"] == list(TEMPLATE["Mappings"]["HttpAuth"])
    assert PARAMETERS["HttpAuth"]["Default"] == "IAM"


def test_cors_is_off_until_an_origin_is_listed() -> None:
    """Only listed origins, only POST, and no cookies."""
    [api] = of_type("AWS::ApiGatewayV2::Api").values()
    [condition, cors, otherwise] = api["CorsConfiguration"]["Fn::If"]
    assert (condition, otherwise) == ("AllowsOrigins", NOTHING)
    assert cors["AllowOrigins"] == {"Fn::Split": [",", {"Ref": "CorsAllowedOrigins"}]}
    assert cors["AllowMethods"] == ["POST"]
    assert "AllowCredentials" not in cors


# Alarms and the dashboard


def emitted() -> set[tuple[str, str, str]]:
    """Each metric that the code emits in the template's environment: its namespace, its name and its trigger."""
    variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    clock = FakeClock()
    conversation, deadline = Conversation("d1", "c1"), Deadline(clock, 10, 5)
    outcomes: list[Result | TavusUnavailable] = [Result(status, None, clock.now(), 1, 200) for status in Status]
    outcomes.append(TavusUnavailable(Reason.TAVUS_ERROR, "HTTP 503", 1))
    output = io.StringIO()
    with redirect_stdout(output):
        telemetry = Telemetry(
            {
                "POWERTOOLS_METRICS_NAMESPACE": variables["POWERTOOLS_METRICS_NAMESPACE"],
                "POWERTOOLS_SERVICE_NAME": "template",
            }
        )

        def work(trigger: Any, _: object) -> None:
            telemetry.observe(lambda *_: Result(Status.ENDED, None, clock.now(), 1, 200))(conversation, deadline)
            for outcome in outcomes:
                telemetry.outcome(trigger, conversation, outcome, deadline)
            telemetry.invalid(trigger, "invalid_id")
            telemetry.record_failed(RecordUnavailable("timeout"))
            telemetry.publish_failed(ResultNotPublished("timeout"))

        for trigger in ("http", "event"):
            telemetry.instrument(work)(trigger, Context())
    found: set[tuple[str, str, str]] = set()
    for line in map(json.loads, output.getvalue().splitlines()):
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
            assert [set(names) for names in directive["Dimensions"]] == [{"service", "trigger"}]
            assert line["service"] == "template"
            found |= {(directive["Namespace"], metric["Name"], line["trigger"]) for metric in directive["Metrics"]}
    return found


EMITTED = emitted()
# What AWS itself measures: by namespace, the one dimension and its metrics.
MEASURED = {
    "AWS/Lambda": ("FunctionName", {"Errors", "Throttles", "Duration", "DestinationDeliveryFailures"}),
    "AWS/SQS": ("QueueName", {"ApproximateNumberOfMessagesVisible"}),
}


def exists(namespace: str, metric: str, dimensions: dict[str, str]) -> bool:
    """Whether somebody will ever measure this."""
    if namespace in MEASURED:
        dimension, metrics = MEASURED[namespace]
        [(name, value)] = dimensions.items()
        measured = FUNCTIONS if namespace == "AWS/Lambda" else {f"{queue}.QueueName" for queue in QUEUES}
        return metric in metrics and name == dimension and value in measured
    return (
        dimensions.keys() == {"service", "trigger"}
        and dimensions["service"] == "AWS::StackName"
        and (namespace, metric, dimensions["trigger"]) in EMITTED
    )


def dimensions(alarm: dict[str, Any]) -> dict[str, str]:
    """An alarm's dimensions, each with the value or the name of what gives it."""
    return {
        dimension["Name"]: next(iter(value.values())) if isinstance(value := dimension["Value"], dict) else value
        for dimension in alarm["Dimensions"]
    }


def test_the_service_that_the_alarms_go_by_is_set() -> None:
    """The code's metrics carry the stack's name, so that two stacks in an account are told apart."""
    variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}


@pytest.mark.parametrize("name", ALARMS)
def test_alarm_watches_a_metric_that_exists(name: str) -> None:
    """Each goes by a metric that AWS measures or the code emits, under exactly these dimensions."""
    alarm = ALARMS[name]
    assert exists(alarm["Namespace"], alarm["MetricName"], dimensions(alarm))


@pytest.mark.parametrize("name", ALARMS)
def test_alarm_tells_whoever_is_named(name: str) -> None:
    """Mail and topic are told where they are given; silence is no alarm, as nothing runs while nobody talks."""
    assert ALARMS[name]["AlarmActions"] == [
        {"Fn::If": ["MailsAlarms", {"Ref": "AlarmTopic"}, NOTHING]},
        {"Fn::If": ["TellsTopic", {"Ref": "AlarmTopicArn"}, NOTHING]},
    ]
    assert ALARMS[name]["TreatMissingData"] == "notBreaching"


def test_everything_that_can_fail_has_its_alarm() -> None:
    """Errors, throttles and duration of both functions, both queues, what reaches neither, Tavus and the table."""
    assert sorted((alarm["MetricName"], *dimensions(alarm).values()) for alarm in ALARMS.values()) == sorted(
        [(metric, function) for metric in ("Errors", "Throttles", "Duration") for function in FUNCTIONS]
        + [("ApproximateNumberOfMessagesVisible", f"{queue}.QueueName") for queue in QUEUES]
        + [("tavus_answered", "AWS::StackName", trigger) for trigger in ("http", "event")]
        + [("DestinationDeliveryFailures", "EventFunction"), ("record_failed", "AWS::StackName", "event")]
    )


def test_duration_alarms_lie_between_what_is_usual_and_the_timeout() -> None:
    """A function that keeps its own deadline sets off no alarm, one that overruns it does before Lambda kills it."""
    http, event = ALARMS["HttpDurationAlarm"]["Threshold"], ALARMS["EventDurationAlarm"]["Threshold"]
    assert MAX_SECONDS * 1000 < http < FUNCTIONS["HttpFunction"]["Timeout"] * 1000
    assert 0.9 * FUNCTIONS["EventFunction"]["Timeout"] * 1000 < event < FUNCTIONS["EventFunction"]["Timeout"] * 1000


def widgets() -> list[dict[str, Any]]:
    [dashboard] = of_type("AWS::CloudWatch::Dashboard").values()
    found: list[dict[str, Any]] = json.loads(re.sub(r"\$\{([^}]+)\}", r"\1", dashboard["DashboardBody"]["Fn::Sub"]))[
        "widgets"
    ]
    return found


def shown(widget: dict[str, Any]) -> list[list[str]]:
    """A widget's metrics, written out: `...` repeats the line before but for its end, `.` one word of it."""
    lines: list[list[str]] = []
    for line in widget["properties"]["metrics"]:
        words = [word for word in line if not isinstance(word, dict)]
        if words[0] == "...":
            words = lines[-1][: len(lines[-1]) - len(words) + 1] + words[1:]
        lines.append([lines[-1][place] if word == "." else word for place, word in enumerate(words)])
    return lines


def test_dashboard_fits_a_screen() -> None:
    """Six widgets at most."""
    assert 1 <= len(widgets()) <= 6


@pytest.mark.parametrize("widget", widgets(), ids=lambda widget: widget["properties"]["title"])
def test_dashboard_shows_metrics_that_exist(widget: dict[str, Any]) -> None:
    """Each line of the dashboard is one that somebody measures, under exactly these dimensions."""
    for namespace, metric, *pairs in shown(widget):
        assert exists(namespace, metric, dict(zip(pairs[::2], pairs[1::2], strict=True))), (namespace, metric, pairs)


def test_dashboard_shows_every_metric_of_the_code() -> None:
    """Nothing that the code counts is out of sight."""
    seen = {(line[0], line[1]) for widget in widgets() for line in shown(widget)}
    assert {(namespace, metric) for namespace, metric, _ in EMITTED} <= seen


# What people read


def documentation() -> str:
    return "".join((ROOT / name).read_text() for name in ("README.md", "docs/operating.md"))


def test_every_alarm_is_explained() -> None:
    """The page on operating says of each alarm what it means and what to do, and of none that there isn't."""
    assert set(re.findall(r"`(\w+Alarm)`", documentation())) == ALARMS.keys()


def test_every_output_is_of_use() -> None:
    """Each output is pasted into a command of the documentation, or read by one of the operations."""
    operations = "".join(path.read_text() for path in (ROOT / "operations").glob("*.py"))
    for name in TEMPLATE["Outputs"]:
        pasted = re.sub("(?<=[a-z])(?=[A-Z])", "_", name).upper()
        assert re.search(rf"\b{pasted}\b", documentation()) or f'"{name}"' in operations, name
