"""Deploys the unchanged template with `sam deploy` to a local AWS that enforces each function's role."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from local.build import SAM, build
from local.console import step
from local.process import AWS_CLIENT, ROOT, clean_environment, free_port, run, serving


@dataclass(frozen=True)
class Stack:
    """A deployed stack: where its AWS answers, where its HTTP API answers, and the outputs of its template."""

    endpoint_url: str
    api_url: str
    outputs: Mapping[str, str]

    def client(self, service: str) -> Any:
        """A boto3 client of one of its services."""
        return _client(self.endpoint_url, service)


@contextmanager
def deployed(tavus_api_url: str, allowed_deployment_ids: str, **parameters: str) -> Iterator[Stack]:
    """Deploy the stack to a new local AWS. It calls the Tavus at `tavus_api_url`. Raises ProcessFailed."""
    build()
    parameters |= {"AllowedDeploymentIds": allowed_deployment_ids, "HttpAuth": "NONE", "TavusApiUrl": tavus_api_url}
    with _aws() as endpoint_url:
        with step("Deploying the template with sam deploy"):
            stack = deploy(endpoint_url, "end-conversation", parameters)
        yield stack


def deploy(endpoint_url: str, name: str, parameters: Mapping[str, str], template: Path | None = None) -> Stack:
    """Create a stack of this name at a local AWS, or update it, with `sam deploy`. Raises ProcessFailed.

    `template` names its own code. Without it, the functions are built.
    """
    overrides = [f"{key}={value}" for key, value in parameters.items()]
    options = ["--stack-name", name, "--resolve-s3", "--capabilities", "CAPABILITY_IAM"]
    options += ["--no-confirm-changeset", "--no-fail-on-empty-changeset"]
    _sam("deploy", endpoint_url, "--template-file", template or build(), *options, "--parameter-overrides", *overrides)
    return _read(endpoint_url, name)


def update(endpoint_url: str, name: str, parameters: dict[str, str]) -> Stack:
    """Change parameters of a stack at a local AWS, and nothing else."""
    cloudformation = _client(endpoint_url, "cloudformation")
    found = cloudformation.describe_stacks(StackName=name)["Stacks"][0]["Parameters"]
    known = {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in found}
    if (wanted := known | parameters) != known:
        cloudformation.update_stack(
            StackName=name,
            UsePreviousTemplate=True,
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in wanted.items()],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        cloudformation.get_waiter("stack_update_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    return _read(endpoint_url, name)


def delete(endpoint_url: str, name: str) -> None:
    """Delete the stack of this name from a local AWS. Raises ProcessFailed."""
    _sam("delete", endpoint_url, "--stack-name", name, "--no-prompts", "--region", AWS_CLIENT["AWS_DEFAULT_REGION"])


@contextmanager
def _aws() -> Iterator[str]:
    port = free_port()
    environment = clean_environment(AUTH="true", BIND_HOST="127.0.0.1", GATEWAY_PORT=str(port), IOT_MTLS_ENABLED="0")
    with serving([ROOT / ".venv-ministack/bin/python", "-m", "ministack"], environment, port):
        yield f"http://127.0.0.1:{port}"


def _sam(command: str, endpoint_url: str, *options: object) -> None:
    settings = {"AWS_ENDPOINT_URL": endpoint_url, "SAM_CLI_POLL_DELAY": "0.5", "SAM_CLI_TELEMETRY": "0"}
    run([SAM, command, *options], clean_environment(**AWS_CLIENT, **settings))


def _read(endpoint_url: str, name: str) -> Stack:
    found = _client(endpoint_url, "cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}
    # Its own address is a subdomain of localhost, which many resolvers don't know.
    api_id = str(urlsplit(outputs["ApiUrl"]).hostname).partition(".")[0]
    stack = Stack(endpoint_url, f"{endpoint_url}/_aws/execute-api/{api_id}/$default", outputs)
    _fill_gaps_of_ministack(stack)
    return stack


def _fill_gaps_of_ministack(stack: Stack) -> None:
    # Its Scheduler checks the function's permissions as if every schedule were in the group `default`.
    iam, functions, group = stack.client("iam"), stack.client("lambda"), stack.outputs["TimerGroupName"]
    role = functions.get_function_configuration(FunctionName=stack.outputs["TimerFunctionName"])["Role"]
    policy = {"RoleName": role.rpartition("/")[2], "PolicyName": "set-limits"}
    document = json.dumps(iam.get_role_policy(**policy)["PolicyDocument"])
    iam.put_role_policy(**policy, PolicyDocument=document.replace(f":schedule/{group}/", ":schedule/default/"))
    # Its CloudFormation passes a number of a parameter on as text, which stops every event source mapping.
    mapping = {"UUID": stack.outputs["TimeoutQueueMappingId"]}
    concurrency = functions.get_event_source_mapping(**mapping)["ScalingConfig"]["MaximumConcurrency"]
    functions.update_event_source_mapping(**mapping, ScalingConfig={"MaximumConcurrency": int(concurrency)})


@cache
def _client(endpoint_url: str, service: str) -> Any:
    new_client: Any = boto3.client  # its overloads require a literal service name
    return new_client(
        service,
        endpoint_url=endpoint_url,
        region_name=AWS_CLIENT["AWS_DEFAULT_REGION"],
        aws_access_key_id=AWS_CLIENT["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=AWS_CLIENT["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}),  # this machine itself needs no proxy
    )
