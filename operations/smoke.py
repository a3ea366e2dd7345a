"""Checks that requests reach the function of a deployed stack, by a request for a deployment that is not allowed.

boto3's own settings choose the account and the region: AWS_PROFILE, AWS_DEFAULT_REGION and so on. With HttpAuth IAM the
request is signed, and with JWT it carries the token in TOKEN. Nothing is ended. The check cannot work if
AllowedDeploymentIds is *.
Exits 0 if the function rejects the deployment, 1 at any other answer, 2 if there is no answer.
"""

from __future__ import annotations

import argparse
import os
from http import HTTPStatus
from typing import TYPE_CHECKING

import boto3
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from operations.samconfig import saved_region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mypy_boto3_cloudformation import CloudFormationClient

ROUTE = ("POST", "/v2/deployments/smoke-test/conversations/smoke-test/end")
TIMEOUT_SECONDS = 40

# The likely cause of any other answer.
HINTS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "API Gateway found no valid token: set TOKEN to a token of the stack's JwtIssuer.",
    HTTPStatus.FORBIDDEN: "API Gateway refused the caller: see the stack's output EndRouteArn.",
    HTTPStatus.TOO_MANY_REQUESTS: "API Gateway throttled the request: see ThrottleRate and ThrottleBurst.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "The function failed: see HttpLogGroupName, or else AccessLogGroupName.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Lambda is at its limit: see the function's concurrency.",
}
OTHER_HINT = "Is smoke-test, or *, among AllowedDeploymentIds?"


def main(arguments: Sequence[str] | None = None) -> None:
    """Send one request, and exit as the module docstring says."""
    parser = argparse.ArgumentParser(prog="smoke", description="Check that requests reach a deployed stack.")
    parser.add_argument("--stack", default="end-conversation", metavar="NAME", help="the stack (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or saved_region()
        aws = boto3.Session(region_name=region)
        api_url, http_auth = find_api(aws.client("cloudformation"), options.stack)
        answer = ask(api_url, http_auth, aws, os.environ.get("TOKEN"))
    except MissingOutput as error:
        parser.exit(2, f"{error}\n")
    except (BotoCoreError, ClientError, urllib3.exceptions.HTTPError) as error:
        parser.exit(2, f"{str(error).rstrip('.')}. Check --stack, AWS_PROFILE and AWS_DEFAULT_REGION.\n")
    print(f"{answer.status} {answer.data.decode(errors='replace')}")
    if refused(answer):
        print("Requests reach the function. Nothing was ended.")
        return
    parser.exit(1, f"{HINTS.get(answer.status, OTHER_HINT)}\n")


class MissingOutput(Exception):
    """The stack lacks an output, so it was not created from our template."""


def find_api(cloudformation: CloudFormationClient, stack: str) -> tuple[str, str]:
    """Return the ApiUrl and the HttpAuth of a stack. Raises MissingOutput, or ClientError if there is no stack."""
    found = cloudformation.describe_stacks(StackName=stack)["Stacks"][0].get("Outputs", [])
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found}
    try:
        return outputs["ApiUrl"], outputs["HttpAuth"]
    except KeyError as error:
        raise MissingOutput(
            f"Stack {stack} has no output {error.args[0]}. Name a stack that template.yaml created."
        ) from None


def ask(
    api_url: str,
    http_auth: str,
    session: boto3.Session,
    token: str | None = None,
    route: tuple[str, str] = ROUTE,
) -> urllib3.BaseHTTPResponse:
    """Send a request to this method and path, as HttpAuth demands. Raises HTTPError or NoCredentialsError."""
    method, url = route[0], api_url + route[1]
    request = AWSRequest(method, url)
    match http_auth:
        case "IAM":
            credentials = session.get_credentials()
            if credentials is None:
                raise NoCredentialsError
            SigV4Auth(credentials, "execute-api", session.region_name).add_auth(request)
        case "JWT" if token:
            request.headers["Authorization"] = f"Bearer {token}"
    headers = dict(request.headers.items())
    return urllib3.request(method, url, headers=headers, retries=False, timeout=TIMEOUT_SECONDS)


def refused(answer: urllib3.BaseHTTPResponse) -> bool:
    """Whether the function itself rejected the deployment, so the request has reached it."""
    if answer.headers.get("Content-Type") != "application/problem+json":
        return False
    reason: str = answer.json()["reason"]
    return reason == "deployment_not_allowed"


if __name__ == "__main__":
    main()
