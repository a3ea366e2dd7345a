"""Rules that the template follows, checked against the code, the sample events and the documentation."""

import io
import json
import re
from collections import Counter
from contextlib import redirect_stdout
from typing import Any

import pytest
from moto.events.models import EventPattern

from end_conversation.conversation import Conversation, Result, Status
from end_conversation.deadline import Deadline
from end_conversation.events import invocation_deadline
from end_conversation.settings import Settings
from end_conversation.telemetry import Telemetry
from local.process import ROOT
from operations.template import read_template, variable
from tests.unit.fakes import Context, FakeClock

TEMPLATE = read_template()
PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]
NOTHING = {"Ref": "AWS::NoValue"}


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    """The properties of every resource of a type, by logical id."""
    return {name: found.get("Properties", {}) for name, found in TEMPLATE["Resources"].items() if found["Type"] == kind}


FUNCTIONS = of_type("AWS::Serverless::Function")
QUEUES = of_type("AWS::SQS::Queue")
ALARMS = of_type("AWS::CloudWatch::Alarm")


# Parameters


def test_only_the_allow_list_has_no_default() -> None:
    """A first deployment must set only one parameter."""
    assert [name for name, parameter in PARAMETERS.items() if "Default" not in parameter] == ["AllowedDeploymentIds"]


def test_parameters() -> None:
    """Each has a description, limits that its default keeps, and one group in the console."""
    for name, parameter in PARAMETERS.items():
        assert parameter["Description"].endswith("."), name
        assert parameter.keys() & {"AllowedPattern", "AllowedValues", "MinValue"}, name
        default = parameter.get("Default")
        assert default is None or re.fullmatch(parameter.get("AllowedPattern", ".*"), str(default)), name
        assert default is None or default in parameter.get("AllowedValues", [default]), name
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(PARAMETERS)


SOURCES = (["myapp.sessions", "a/b_c-1"], ["", "aws.events", "my app", "a" * 257])
# Values that each parameter accepts, and values that it rejects.
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
        ["*", "www.example.com", "https://a.example/", "https://a.example, https://b.example", "https://*.a.example"],
    ),
    "EventBusName": (["default", "my.bus-1"], ["", "my bus", "arn:aws:events:us-east-1:111122223333:event-bus/b"]),
    "SessionEventSource": SOURCES,
    "SessionEventDetailType": (
        ["Session Timeout", "Conversation End Results", "myapp:timeout/1"],
        ["", "Conversation End Result", 'Say "now"', "a" * 129],
    ),
    "ResultSource": SOURCES,
    "TavusApiUrl": (
        ["https://tavusapi.com", "https://a.b:8443", "http://127.0.0.1:8080", "http://localhost", "http://[::1]:1"],
        ["", "http://tavusapi.com", "https://tavusapi.com/", "https://a@tavusapi.com", "http://127.0.0.1.example"],
    ),
    "TavusOrigin": (["", "https://a.example", "http://localhost:3000"], ["www.example.com", "https://a.example/b"]),
    "HttpReservedConcurrency": (["", "0", "1", "99999"], ["-1", "01", "1.5", "100000", "ten"]),
    "AlarmEmail": (
        ["", "ops@example.com", "on.call+tavus@mail.example.com"],
        ["ops", "ops@", "ops@example", "a b@c.example"],
    ),
    "AlarmTopicArn": (
        ["", "arn:aws:sns:eu-west-1:111122223333:on-call", "arn:aws-us-gov:sns:us-gov-west-1:111122223333:a"],
        ["on-call", "arn:aws:sns:eu-west-1:111122223333:", "arn:aws:sqs:eu-west-1:111122223333:on-call"],
    ),
}


def test_every_pattern_is_tested() -> None:
    assert VALUES.keys() == {name for name, parameter in PARAMETERS.items() if "AllowedPattern" in parameter}


@pytest.mark.parametrize("name", VALUES)
def test_pattern(name: str) -> None:
    pattern, (accepted, rejected) = PARAMETERS[name]["AllowedPattern"], VALUES[name]
    assert [value for value in accepted + rejected if re.fullmatch(pattern, value)] == accepted


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_code_reads_every_variable_that_is_set(function: str) -> None:
    """No environment variable is misspelt or unused."""
    read: set[str] = set()

    class Environment(dict[str, str]):
        def get(self, name: str, *default: Any) -> Any:
            read.add(name)
            return super().get(name, *default)

    Settings.read(Environment(ALLOWED_DEPLOYMENT_IDS="*"))
    Telemetry(Environment())
    own = FUNCTIONS[function].get("Environment", {"Variables": {}})["Variables"]
    # Read by Powertools' Tracer.
    read.add("POWERTOOLS_TRACE_DISABLED")
    assert TEMPLATE["Globals"]["Function"]["Environment"]["Variables"].keys() | own.keys() <= read


# Events


@pytest.fixture(scope="module")
def matches() -> Any:
    """Return a function that says whether the rule matches an event, with moto and the default parameters."""
    [rule] = of_type("AWS::Events::Rule").values()
    pattern = {
        member: [PARAMETERS[value["Ref"]]["Default"] for value in values]
        for member, values in rule["EventPattern"].items()
    }
    return EventPattern.load(json.dumps(pattern)).matches_event


# Without the entry of PutEvents, which is a list and no event.
SAMPLES = {path.name for path in (ROOT / "events").glob("*.json") if ".schema." not in path.name}
SAMPLES -= {"session-timeout-entry.json"}


def sample(name: str) -> Any:
    return json.loads((ROOT / "events" / name).read_text())


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_the_rule_matches_only_the_session_timeout(matches: Any, name: str) -> None:
    """No other sample payload starts the function."""
    assert matches(sample(name)) is (name == "session-timeout.json")


def test_the_rule_matches_no_result_of_ours(matches: Any) -> None:
    """Not even if results are published under the source of the session timeouts."""
    source = PARAMETERS["SessionEventSource"]["Default"]
    assert not matches(sample("conversation-end-result.json") | {"source": source})


# Permissions


def statements() -> list[tuple[str, dict[str, Any]]]:
    """Every statement of every role, with the role. Conditions count as true."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name, role in of_type("AWS::IAM::Role").items():
        assert role.keys() == {"AssumeRolePolicyDocument", "Policies"}, name  # and no managed policy
        documents = [policy["PolicyDocument"] for policy in role["Policies"]]
        found += [(name, statement) for document in documents for statement in document["Statement"]]
    return [(name, statement["Fn::If"][1] if "Fn::If" in statement else statement) for name, statement in found]


def wildcards(value: Any, path: str) -> set[str]:
    match value:
        case dict():
            return {found for key, part in value.items() for found in wildcards(part, f"{path}/{key}")}
        case list():
            return {found for part in value for found in wildcards(part, path)}
        case str() if "*" in value:
            return {path}
    return set()


def test_wildcards_are_used_only_if_no_name_is_possible() -> None:
    """X-Ray has no resources to name. The ids in a route are the caller's, and so are the names of schedules.

    In particular, no action contains one.
    """
    statement = "Properties/Policies/PolicyDocument/Statement"
    assert wildcards(TEMPLATE["Resources"], "") == {
        *(f"/{name}Role/{statement}/Fn::If/Resource" for name in FUNCTIONS),
        "/HttpApiMayInvoke/Properties/SourceArn/Fn::Sub",
        "/HttpApiMayInvokeTimer/Properties/SourceArn/Fn::Sub",
        f"/TimerFunctionRole/{statement}/Resource/Fn::Sub",
    }


def test_every_function_has_a_role_of_its_own() -> None:
    """SAM would otherwise create one that no rule here sees."""
    roles = [function["Role"]["Fn::GetAtt"] for function in FUNCTIONS.values()]
    assert roles == [f"{name}Role.Arn" for name in FUNCTIONS]


def test_permissions_to_invoke_name_their_source() -> None:
    """API Gateway may invoke for its route only."""
    for name, permission in of_type("AWS::Lambda::Permission").items():
        route = r":\$\{HttpApi\}/\$default/(POST/.+/end|PUT/.+/timeout)$"
        assert re.search(route, permission["SourceArn"]["Fn::Sub"]), name


def test_only_the_timer_function_uses_the_scheduler() -> None:
    """It can use only the schedules of its group, and pass only one role, only to Scheduler."""
    using = [(name, statement) for name, statement in statements() if "scheduler:" in str(statement["Action"])]
    [(_, passing)] = [(name, statement) for name, statement in statements() if "iam:" in str(statement["Action"])]
    assert [(name, statement["Resource"]["Fn::Sub"].split(":")[-1]) for name, statement in using] == [
        ("TimerFunctionRole", "schedule/${TimerGroup}/*")
    ]
    assert passing["Resource"] == {"Fn::GetAtt": "SchedulerRole.Arn"}
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}}


# Limits


def test_max_session_seconds_has_the_range_of_the_code() -> None:
    parameter = PARAMETERS["MaxSessionSeconds"]
    for seconds in (parameter["MinValue"], parameter["MaxValue"]):
        environ = {"ALLOWED_DEPLOYMENT_IDS": "*", "MAX_SESSION_SECONDS": str(seconds)}
        assert Settings.read(environ).max_session_seconds == seconds
    assert Settings.read({"ALLOWED_DEPLOYMENT_IDS": "*"}).max_session_seconds == parameter["Default"]


# Queues and logs


def test_what_sends_to_the_queue_tries_for_an_hour_and_keeps_failures() -> None:
    """The rule may send by the policy of both queues, which no local test shows, and a schedule by its role."""
    [rule] = of_type("AWS::Events::Rule").values()
    [target] = rule["Targets"]
    assert target["DeadLetterConfig"]["Arn"] == {"Fn::GetAtt": "FailedQueue.Arn"}
    limit_target = json.loads(FUNCTIONS["TimerFunction"]["Environment"]["Variables"]["TIMER_TARGET"]["Fn::Sub"])
    assert limit_target["DeadLetterConfig"]["Arn"] == "${FailedQueue.Arn}"
    for policy in (target["RetryPolicy"], limit_target["RetryPolicy"]):
        assert policy["MaximumEventAgeInSeconds"] == 3600


def test_only_the_rule_may_send_to_a_queue() -> None:
    """The functions and Scheduler use their own roles, and SQS itself moves messages to the failed queue."""
    [policy] = of_type("AWS::SQS::QueuePolicy").values()
    [statement] = policy["PolicyDocument"]["Statement"]
    assert policy["Queues"] == [{"Ref": queue} for queue in QUEUES]
    assert (statement["Action"], statement["Resource"]) == (
        "sqs:SendMessage",
        [{"Fn::GetAtt": f"{queue}.Arn"} for queue in QUEUES],
    )
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": "SessionTimeoutRule.Arn"}}}


def test_the_event_function_gets_messages_one_by_one_and_says_which_stay() -> None:
    [mapping] = of_type("AWS::Lambda::EventSourceMapping").values()
    assert (mapping["BatchSize"], mapping["FunctionResponseTypes"]) == (1, ["ReportBatchItemFailures"])
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": {"Ref": "EventConcurrency"}}
    limits = PARAMETERS["EventConcurrency"]
    assert (limits["MinValue"], limits["Default"], limits["MaxValue"]) == (2, 10, 1000)  # 2 and 1,000 are Lambda's
    # Lambda would throttle deliveries above it, and each throttled one counts as a receive.
    assert "ReservedConcurrentExecutions" not in FUNCTIONS["EventFunction"]


def test_a_message_is_hidden_and_kept_for_long_enough() -> None:
    """It is hidden for longer than any invocation takes, and kept for two weeks like a failed one."""
    queue = QUEUES["TimeoutQueue"]
    assert queue["VisibilityTimeout"] == 6 * FUNCTIONS["EventFunction"]["Timeout"]  # AWS' advice
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": "FailedQueue.Arn"}
    assert {found["MessageRetentionPeriod"] for found in QUEUES.values()} == {14 * 86_400}


def test_no_resource_is_retained() -> None:
    """Nor logs: everything logs into groups of the stack."""
    for name, resource in TEMPLATE["Resources"].items():
        assert not resource.keys() & {"DeletionPolicy", "UpdateReplacePolicy"}, name


def test_the_event_function_gives_tavus_ten_of_thirty_seconds() -> None:
    assert FUNCTIONS["EventFunction"]["Timeout"] == 30
    deadline = invocation_deadline(Context(30_000), FakeClock())
    assert 9 < deadline.left_for_tavus() < 11


def test_everything_logs_into_log_groups_with_a_retention() -> None:
    """A log group that Lambda creates itself keeps its lines forever."""
    logging = {function["LoggingConfig"]["LogGroup"]["Ref"] for function in FUNCTIONS.values()}
    [stage] = of_type("AWS::ApiGatewayV2::Stage").values()
    logging.add(stage["AccessLogSettings"]["DestinationArn"]["Fn::GetAtt"].removesuffix(".Arn"))
    groups = of_type("AWS::Logs::LogGroup")
    assert logging == groups.keys()
    assert all(group["RetentionInDays"] == {"Ref": "LogRetentionDays"} for group in groups.values())


def test_the_access_log_is_json_without_ids() -> None:
    """A line has the route and not the path, because the ids in the path are not validated yet."""
    [stage] = of_type("AWS::ApiGatewayV2::Stage").values()
    line = json.loads(stage["AccessLogSettings"]["Format"]["Fn::Sub"])
    assert line["request_id"] == "$context.requestId"  # required by API Gateway
    assert not {"$context.path", "$context.customDomain.basePathMatched"} & set(line.values())


# HTTP


AUTHORIZATIONS = ["IAM", "JWT", "NONE"]


def condition(name: str, parameters: dict[str, str]) -> bool:
    """Evaluate a condition of the template."""

    def evaluate(value: Any) -> Any:
        match value:
            case {"Fn::Equals": [left, right]}:
                return evaluate(left) == evaluate(right)
            case {"Fn::Or": parts}:
                return any(map(evaluate, parts))
            case {"Fn::And": parts}:
                return all(map(evaluate, parts))
            case {"Condition": other} | {"Fn::Condition": other}:
                return condition(other, parameters)
            case {"Ref": parameter}:
                return parameters[parameter]
        return value

    return bool(evaluate(TEMPLATE["Conditions"][name]))


@pytest.mark.parametrize("http_auth", AUTHORIZATIONS)
@pytest.mark.parametrize("limit_auth", ["SAME", *AUTHORIZATIONS])
def test_each_route_is_authorized_as_its_parameter_says(http_auth: str, limit_auth: str) -> None:
    """A page may end without a key while only a server sets limits, for example."""
    parameters = {"HttpAuth": http_auth, "LimitAuth": limit_auth}
    types = {"IAM": "AWS_IAM", "JWT": "JWT", "NONE": "NONE"}

    def resolve(value: Any) -> Any:
        match value:
            case {"Fn::If": [name, then, otherwise]}:
                return resolve(then if condition(name, parameters) else otherwise)
            case {"Fn::FindInMap": [mapping, first, second]}:
                return TEMPLATE["Mappings"][mapping][resolve(first)][resolve(second)]
            case {"Ref": str(name)} if name in parameters:
                return parameters[name]
        return value

    expected = {"EndRoute": http_auth, "TimeoutRoute": http_auth if limit_auth == "SAME" else limit_auth}
    for name, route in of_type("AWS::ApiGatewayV2::Route").items():
        assert resolve(route["AuthorizationType"]) == types[expected[name]]
        authorizer = {"Ref": "JwtAuthorizer"} if expected[name] == "JWT" else NOTHING
        assert resolve(route["AuthorizerId"]) == authorizer
    assert resolve(TEMPLATE["Outputs"]["LimitAuth"]["Value"]) == expected["TimeoutRoute"]
    created = TEMPLATE["Resources"]["JwtAuthorizer"]["Condition"]
    assert condition(created, parameters) is ("JWT" in expected.values())


def test_callers_sign_by_default() -> None:
    """And whoever may end conversations may set limits."""
    assert (PARAMETERS["HttpAuth"]["Default"], PARAMETERS["LimitAuth"]["Default"]) == ("IAM", "SAME")


def test_cors_allows_the_methods_of_the_routes() -> None:
    """And no cookies. It is off until an origin is listed."""
    [api] = of_type("AWS::ApiGatewayV2::Api").values()
    [_, cors, otherwise] = api["CorsConfiguration"]["Fn::If"]
    routes = of_type("AWS::ApiGatewayV2::Route").values()
    assert cors["AllowMethods"] == [route["RouteKey"].split()[0] for route in routes]
    monitoring = {"traceparent", "tracestate", "baggage", "sentry-trace", "x-amzn-trace-id"}
    assert {"authorization", "content-type"} | monitoring <= set(cors["AllowHeaders"])
    assert (otherwise, "AllowCredentials" in cors) == (NOTHING, False)


# Alarms and the dashboard


type Metric = tuple[str, str, frozenset[tuple[str, str]]]
"""A namespace, a name and the dimensions, each with its value or the name of the resource that gives it."""


def watched(alarm: dict[str, Any]) -> Metric:
    """The metric that an alarm watches."""
    dimensions = {dimension["Name"]: dimension["Value"] for dimension in alarm["Dimensions"]}
    named = {
        (name, next(iter(value.values())) if isinstance(value, dict) else value) for name, value in dimensions.items()
    }
    return alarm["Namespace"], alarm["MetricName"], frozenset(named)


WATCHED = {name: watched(alarm) for name, alarm in ALARMS.items()}


def report(telemetry: Telemetry, trigger: Any) -> None:
    """Report all that an invocation with this trigger can report."""
    clock = FakeClock()
    conversation, deadline = Conversation("d1", "c1"), Deadline(clock, 10, 5)
    results = [Result(status, None, clock.now(), 1) for status in Status]
    telemetry.invalid(trigger, "invalid_id")
    if trigger == "timer":
        telemetry.armed(conversation, "2026-11-25T08:37:41Z", deadline)
        telemetry.timer_failed(conversation, "timeout", deadline)
        telemetry.count_result(trigger, Result(Status.REJECTED, None, clock.now(), 1))
        return
    telemetry.observe(lambda *_: results[0])(conversation, deadline)
    for result in results:
        telemetry.count_result(trigger, result)
        if trigger == "event":
            telemetry.limit_reached(result)
    if trigger == "event":
        telemetry.record_failed("timeout")
        telemetry.publish_failed("timeout")
        telemetry.queue_failed("the message was not postponed", "timeout")
        telemetry.late(1)


def emitted() -> set[tuple[str, str, str]]:
    """Every metric that the code and the access log emit: its namespace, its name and its trigger."""
    every = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    variables = {name: value for name, value in every.items() if isinstance(value, str)}
    with redirect_stdout(io.StringIO()) as output:
        telemetry = Telemetry(variables | {"POWERTOOLS_SERVICE_NAME": "template"})
        for trigger in ("http", "event", "timer"):
            telemetry.instrument(lambda trigger, _: report(telemetry, trigger))(trigger, Context())
    lines = [line for line in map(json.loads, output.getvalue().splitlines()) if "_aws" in line]
    found: set[tuple[str, str, str]] = set()
    for line in lines:
        [directive] = line["_aws"]["CloudWatchMetrics"]
        assert [set(names) for names in directive["Dimensions"]] == [{"service", "trigger"}]
        found |= {(directive["Namespace"], metric["Name"], line["trigger"]) for metric in directive["Metrics"]}
    for filter_ in of_type("AWS::Logs::MetricFilter").values():
        [metric] = filter_["MetricTransformations"]
        found.add((metric["MetricNamespace"], metric["MetricName"], "http"))
    return found


EMITTED = emitted()


@pytest.mark.parametrize("name", ALARMS)
def test_every_alarm_notifies_the_mail_address_and_the_topic(name: str) -> None:
    """Missing data raises no alarm, because nothing runs while there are no conversations."""
    assert ALARMS[name]["AlarmActions"] == [
        {"Fn::If": ["HasAlarmEmail", {"Ref": "AlarmTopic"}, NOTHING]},
        {"Fn::If": ["HasAlarmTopic", {"Ref": "AlarmTopicArn"}, NOTHING]},
    ]
    assert ALARMS[name]["TreatMissingData"] == "notBreaching"


def own(metric: str, trigger: str) -> Metric:
    """A metric of this stack. The metrics of other stacks have another `service`."""
    service = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]["Ref"]
    return "EndConversation", metric, frozenset({("service", service), ("trigger", trigger)})


def of_aws(namespace: str, metric: str, dimension: str, value: str) -> Metric:
    return namespace, metric, frozenset({(dimension, value)})


# By symptom: the metric that one alarm watches.
SYMPTOMS = {
    "callers get errors": of_aws("AWS/ApiGateway", "5xx", "ApiId", "HttpApi"),
    "callers are turned away": own("turned_away", "http"),
    "session timeouts are not taken": of_aws(
        "AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", "TimeoutQueue.QueueName"
    ),
    "session timeouts are late": own("late", "event"),
    "session timeouts failed": of_aws(
        "AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", "FailedQueue.QueueName"
    ),
    "Tavus or the allow-list refuses": own("rejected", "event"),
    "Tavus confirms no end": own("confirmed", "event"),
    "the event function raised": of_aws("AWS/Lambda", "Errors", "FunctionName", "EventFunction"),
    "the record failed": own("record_failed", "event"),
}


def test_every_symptom_has_one_alarm() -> None:
    """The code or the access log emits what is not AWS' own, under exactly these dimensions."""
    assert Counter(WATCHED.values()) == Counter(SYMPTOMS.values())
    for namespace, metric, dimensions in SYMPTOMS.values():
        assert namespace.startswith("AWS/") or (namespace, metric, dict(dimensions)["trigger"]) in EMITTED


@pytest.mark.parametrize(
    ("status", "confirmed"),
    [("ended", [1]), ("unconfirmed", [0]), ("not_found", []), ("rejected", []), ("unavailable", [])],
)
def test_unconfirmed_ends_set_off_an_alarm_only_if_none_is_confirmed(
    status: str, confirmed: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """By the maximum of what the code emits."""
    alarm = ALARMS["UnconfirmedAlarm"]
    assert (alarm["Statistic"], alarm["ComparisonOperator"]) == ("Maximum", "LessThanThreshold")
    telemetry = Telemetry({"POWERTOOLS_SERVICE_NAME": f"count-{status}"})
    result = Result(Status(status), None, FakeClock().now(), 1)

    telemetry.instrument(lambda *_: telemetry.count_result("event", result))({}, Context())

    assert json.loads(capsys.readouterr().out).get("confirmed", []) == confirmed


def test_every_alarm_names_its_row_in_the_documentation() -> None:
    """And the documentation names no alarm that does not exist."""
    for name, alarm in ALARMS.items():
        assert alarm["AlarmDescription"].endswith(f" See {name} in docs/operating.md.")
        [row] = re.findall(rf"^\| `{name}` .* \|$", (ROOT / "docs/operating.md").read_text(), re.MULTILINE)
        assert re.search("`(aws|make) ", row), name  # a command
    assert set(re.findall(r"`(\w+Alarm)`", documentation())) == ALARMS.keys()


def test_the_access_log_counts_what_api_gateway_turns_away() -> None:
    """The filter matches the line of a 429 as API Gateway writes it."""
    [found] = of_type("AWS::Logs::MetricFilter").values()
    [stage] = of_type("AWS::ApiGatewayV2::Stage").values()
    line = json.loads(stage["AccessLogSettings"]["Format"]["Fn::Sub"])
    [transformation] = found["MetricTransformations"]

    assert found["FilterPattern"] == '{ $.status = "429" }'
    assert line["status"] == "$context.status"
    dimensions = {found["Key"]: line[found["Value"].removeprefix("$.")] for found in transformation["Dimensions"]}
    assert dimensions == {"service": "${AWS::StackName}", "trigger": "http"}


def test_the_dashboard_shows_metrics_that_exist_and_every_metric_of_the_code() -> None:
    [dashboard] = of_type("AWS::CloudWatch::Dashboard").values()
    widgets = json.loads(re.sub(r"\$\{([^}]+)\}", r"\1", dashboard["DashboardBody"]["Fn::Sub"]))["widgets"]
    lines = [line for widget in widgets for line in widget["properties"]["metrics"]]
    shown = {line[1] for line in lines if isinstance(line[0], str) and line[0] != "..."}
    of_code = {metric for _, metric, _ in EMITTED}
    of_aws = {metric for namespace, metric, _ in SYMPTOMS.values() if namespace.startswith("AWS/")}
    assert shown <= of_code | of_aws | {"Throttles", "ApproximateNumberOfMessagesNotVisible"}
    assert of_code <= shown


# Documentation


def documentation() -> str:
    return "".join(path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))


def test_every_output_is_used() -> None:
    """A command of the documentation or one of our programs uses it."""
    programs = "".join(path.read_text() for folder in ("operations", "local") for path in (ROOT / folder).rglob("*.py"))
    for name in TEMPLATE["Outputs"]:
        assert re.search(rf"\b{variable(name)}\b", documentation()) or f'"{name}"' in programs, name
