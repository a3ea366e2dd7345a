"""The life of a stack: deploy, change who may call it, its options and its bus. And the end of a local run."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError

from local.build import build
from local.process import AWS_CLIENT, ROOT
from local.session import DEPLOYMENT_ID, put, session_timeout
from local.stack import Stack, delete, deploy, update
from local.subscriber import Subscriber
from local.tavus import Tavus
from operations import deploy as deploy_program
from operations import smoke
from tests.local.delivery import reach_limit, set_limit

NAME = "lifecycle"
PASSED = "passed to the function"
ORIGIN = "https://www.example.com"

type Deploy = Callable[..., Stack]


@dataclass(frozen=True)
class Pool:
    """A user pool. `token` creates an application, and returns its client id and a token for it."""

    issuer: str
    token: Callable[[str], tuple[str, str]]


@pytest.fixture(scope="module")
def deploy_with(stack: Stack, tavus: Tavus) -> Iterator[Deploy]:
    """Deploy a second stack, or change its parameters. Other tests use the first. The second is deleted at the end."""

    def run(**parameters: str) -> Stack:
        if exists(stack):
            return update(stack.endpoint_url, NAME, parameters)
        # Its own source, so that it does not match the other stack's session timeouts.
        always = {
            "AllowedDeploymentIds": DEPLOYMENT_ID,
            "SessionEventSource": "lifecycle.sessions",
            "TavusApiUrl": tavus.url,
        }
        return deploy(stack.endpoint_url, NAME, always | parameters)

    yield run
    if exists(stack):
        delete(stack.endpoint_url, NAME)


def exists(stack: Stack) -> bool:
    try:
        stack.client("cloudformation").describe_stacks(StackName=NAME)
    except ClientError:
        return False
    return True


@pytest.fixture(scope="module")
def pool(stack: Stack) -> Pool:
    """A user pool of the local Cognito, with one user."""
    cognito = stack.client("cognito-idp")
    pool = cognito.create_user_pool(PoolName=NAME)["UserPool"]["Id"]
    user, password = {"UserPoolId": pool, "Username": "somebody"}, f"A-{uuid4()}"
    cognito.admin_create_user(**user)
    cognito.admin_set_user_password(**user, Password=password, Permanent=True)

    def token(application: str) -> tuple[str, str]:
        flows = ["ALLOW_USER_PASSWORD_AUTH"]
        answer = cognito.create_user_pool_client(UserPoolId=pool, ClientName=application, ExplicitAuthFlows=flows)
        client = answer["UserPoolClient"]["ClientId"]
        signed_in = cognito.initiate_auth(
            ClientId=client,
            AuthFlow="USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": "somebody", "PASSWORD": password},
        )
        return client, signed_in["AuthenticationResult"]["IdToken"]

    return Pool(f"https://cognito-idp.{AWS_CLIENT['AWS_DEFAULT_REGION']}.amazonaws.com/{pool}", token)


def ask(stack: Stack, auth: str, token: str | None = None) -> list[str | int]:
    """Send a request to both routes as this kind of authorization demands, first to end, then to set a limit.

    Returns for each PASSED, or the status of API Gateway.
    """
    answers = [
        smoke.ask(method, stack.api_url + path, auth, boto3.Session(), token) for method, path, _ in smoke.ROUTES
    ]
    return [PASSED if smoke.refused(answer) else answer.status for answer in answers]


def test_iam_is_the_default(deploy_with: Deploy) -> None:
    """API Gateway refuses a request without a signature, and passes one with a signature to its function."""
    stack = deploy_with()
    assert stack.outputs["HttpAuth"] == stack.outputs["LimitAuth"] == "IAM"
    assert ask(stack, "NONE") == [403, 403]
    assert ask(stack, "IAM") == [PASSED, PASSED]


@pytest.fixture
def localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve every name under .localhost to this machine (RFC 6761), which many resolvers do not."""
    resolve = socket.getaddrinfo

    def resolve_localhost(host: str, *arguments: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host.endswith(".localhost") else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_localhost)


@pytest.mark.usefixtures("localhost")
def test_smoke_passes_on_a_stack_that_works(
    deploy_with: Deploy, stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make smoke` finds the API by the name of the stack, signs where a route demands it, and accepts rejections."""
    deploy_with(HttpAuth="NONE", LimitAuth="IAM")
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.endpoint_url)
    smoke.main(NAME)
    out = capsys.readouterr().out
    assert out.count("403 {") == out.count('"reason": "deployment_not_allowed"') == len(smoke.ROUTES)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stack: Stack) -> Iterator[list[str]]:
    """Answers questions from this list. The files of answers are in a temporary folder."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.endpoint_url)
    monkeypatch.setenv("SAM_CLI_TELEMETRY", "0")
    given: list[str] = []
    monkeypatch.setattr("builtins.input", lambda _: given.pop(0))
    (tmp_path / ".aws-sam").mkdir()
    (tmp_path / ".aws-sam/build").symlink_to(build().parent)
    monkeypatch.setattr(deploy_program, "ROOT", tmp_path)
    monkeypatch.setattr(deploy_program, "BUILD", ["true"])
    yield given
    delete(stack.endpoint_url, "first")


def test_a_first_deployment_asks_two_questions_and_shows_the_outputs(
    answers: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An invalid answer is asked for again. A second deployment asks nothing."""
    answers += ["-d", "d1, d2", "ops@example.com"]
    deploy_program.main("first")
    deploy_program.ask(tmp_path / "deploy-first.toml", "first", "us-east-1")

    assert answers == []
    kept = tomllib.loads((tmp_path / "deploy-first.toml").read_text())["default"]["deploy"]["parameters"]
    assert kept["parameter_overrides"] == ["AllowedDeploymentIds=d1,d2", "AlarmEmail=ops@example.com"]
    out = capfd.readouterr().out
    assert "AllowedDeploymentIds must be Tavus deployment ids" in out
    assert re.search(r"The stack first exists. Its outputs.+:\n\n  export [A-Z_]+=\S+", out)


@pytest.mark.parametrize("name", ["AWS_DEFAULT_REGION", "AWS_SECRET_ACCESS_KEY"])
def test_a_deployment_without_an_account_asks_nothing(
    answers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The answers would be lost. One sentence says what to check."""
    monkeypatch.delenv(name)
    for setting in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(setting, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    with pytest.raises(SystemExit, match=r"^Not deployed: .+\. Check AWS_PROFILE and AWS_REGION\.$"):
        deploy_program.main("first")

    assert (answers, list(tmp_path.glob("deploy-*"))) == ([], [])


def test_update_to_jwt(deploy_with: Deploy, pool: Pool) -> None:
    """Only a complete token of the issuer, for a listed audience, is accepted. Any other is answered 401."""
    (audience, good), (_, for_another) = pool.token("listed"), pool.token("another")
    stack = deploy_with(HttpAuth="JWT", LimitAuth="SAME", JwtIssuer=pool.issuer, JwtAudience=f"one-more,{audience}")
    assert stack.outputs["HttpAuth"] == stack.outputs["LimitAuth"] == "JWT"
    assert ask(stack, "JWT") == [401, 401]
    assert ask(stack, "JWT", good[:-8] + "AAAAAAAA") == [401, 401]
    assert ask(stack, "JWT", for_another) == [401, 401]
    assert ask(stack, "JWT", good) == [PASSED, PASSED]


@pytest.mark.parametrize(
    ("http_auth", "limit_auth"), [("NONE", "IAM"), ("NONE", "JWT"), ("JWT", "IAM"), ("IAM", "JWT")]
)
def test_limit_auth(deploy_with: Deploy, pool: Pool, http_auth: str, limit_auth: str) -> None:
    """Each route demands its own kind of authorization."""
    auths = [http_auth, limit_auth]
    audience, token = pool.token("-".join(auths))
    stack = deploy_with(HttpAuth=http_auth, LimitAuth=limit_auth, JwtIssuer=pool.issuer, JwtAudience=audience)
    assert [stack.outputs[output] for _, _, output in smoke.ROUTES] == auths
    assert [authorization(stack, end) for end in ("/end", "/timeout")] == auths
    refusals: dict[str, str | int] = {"NONE": PASSED, "IAM": 403, "JWT": 401}
    assert ask(stack, "NONE") == [refusals[auth] for auth in auths]
    assert ask(stack, "IAM") == [PASSED if auth == "IAM" else refusals[auth] for auth in auths]
    # ministack accepts any Authorization as a signature.
    if "JWT" in auths:
        assert ask(stack, "JWT", token)[auths.index("JWT")] == PASSED


def authorization(stack: Stack, end: str) -> str:
    """Return the kind of authorization of the route with this end, in the words of the template."""
    api_id = stack.api_url.split("/")[-2]
    routes = stack.client("apigatewayv2").get_routes(ApiId=api_id)["Items"]
    [route] = [route for route in routes if route["RouteKey"].endswith(end)]
    kind: str = route["AuthorizationType"].removeprefix("AWS_")
    assert bool(route.get("AuthorizerId")) == (kind == "JWT")
    return kind


def test_update_to_none_with_everything_optional(deploy_with: Deploy, stack: Stack) -> None:
    """Every caller is accepted, and the same update can switch on every option."""
    options = {
        "HttpAuth": "NONE",
        "LimitAuth": "SAME",
        "CorsAllowedOrigins": f"{ORIGIN},https://other.example.com",
        "HttpReservedConcurrency": "5",
        "EventConcurrency": "5",
        "Tracing": "PassThrough",
        "AlarmEmail": "ops@example.com",
        "AlarmTopicArn": "arn:aws:sns:us-east-1:111122223333:on-call",
    }
    if not exists(stack):
        deploy_with()
    stack = deploy(stack.endpoint_url, NAME, options)
    assert ask(stack, "NONE") == [PASSED, PASSED]
    own_topic = stack.client("sns").list_subscriptions()["Subscriptions"][0]
    assert (own_topic["Protocol"], own_topic["Endpoint"]) == ("email", "ops@example.com")
    for function in ("HttpFunctionName", "EventFunctionName", "TimerFunctionName"):
        configuration = stack.client("lambda").get_function_configuration(FunctionName=stack.outputs[function])
        assert configuration["TracingConfig"] == {"Mode": "PassThrough"}
        assert "xray" not in json.dumps(policies(stack, configuration["Role"].rpartition("/")[2]))


def policies(stack: Stack, role: str) -> list[Any]:
    iam = stack.client("iam")
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    return [iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names]


def test_change_of_the_bus(deploy_with: Deploy, tavus: Tavus) -> None:
    """A limit that was set before ends its conversation. The result is on the new bus, where the rule is too."""
    before = deploy_with(HttpAuth="NONE", LimitAuth="SAME")
    limited, timed_out = tavus.start(DEPLOYMENT_ID), tavus.start(DEPLOYMENT_ID)
    ends_at = set_limit(before, limited, 600)
    before.client("events").create_event_bus(Name="moved")

    after = deploy_with(EventBusName="moved")
    subscriber = Subscriber(after)
    reach_limit(after, limited, ends_at)
    put(after, session_timeout(timed_out) | {"Source": "lifecycle.sessions"})

    assert subscriber.result_of(timed_out)["detail"]["status"] == "ended"
    assert subscriber.result_of(limited)["detail"]["status"] == "ended"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"HttpAuth": "JWT"}, "JWT needs a JwtIssuer."),
        ({"HttpAuth": "JWT", "JwtIssuer": "https://id.example.com"}, "JWT needs a JwtAudience."),
        ({"HttpAuth": "JWT", "JwtAudience": "web"}, "JWT needs a JwtIssuer."),
        ({"LimitAuth": "JWT", "JwtAudience": "web"}, "JWT needs a JwtIssuer."),
    ],
)
def test_jwt_without_issuer_or_audience_is_not_deployed(stack: Stack, given: dict[str, str], missing: str) -> None:
    """CloudFormation rejects it with a clear message before it creates anything."""
    parameters = {"AllowedDeploymentIds": "d1", **given}
    with pytest.raises(ClientError, match=missing):
        stack.client("cloudformation").create_stack(
            StackName="refused",
            TemplateBody=(ROOT / "template.yaml").read_text().replace("CodeUri: src/", "CodeUri: s3://built/code"),
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )


# A server with a process of its own, such as ministack with its Lambda workers. It leaves a file.
SERVER = """
import socket, subprocess, sys, tempfile
tempfile.mkstemp()
subprocess.Popen(["sleep", "60"])
socket.create_server(("127.0.0.1", int(sys.argv[1]))).accept()
"""
LOCAL_RUN = f"""
import signal, sys
from local.process import clean_environment, free_port, serving, interrupt_once
interrupt_once()
port = free_port()
with serving([sys.executable, "-c", {SERVER!r}, port], clean_environment(), port):
    print("ready", flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name)
def test_a_local_run_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """However it ends, so do the programs that it started, and the temporary folder is empty."""
    with subprocess.Popen(  # noqa: S603 - our own text
        [sys.executable, "-c", LOCAL_RUN],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as run:
        assert run.stdout
        assert run.stdout.readline() == "ready\n"
        programs = psutil.Process(run.pid).children(recursive=True)
        assert len(programs) == 3  # the supervisor, the server and its own process
        assert list(tmp_path.iterdir())

        run.send_signal(number)

        assert ("Stopping" in run.stdout.read()) == (number != signal.SIGKILL)
    _, left = psutil.wait_procs(programs, timeout=10)
    # Without an init process, a container keeps zombies.
    assert all(program.status() == psutil.STATUS_ZOMBIE for program in left)
    assert not list(tmp_path.iterdir())
