"""Sees that requests get through a deployed stack: asks it to end a conversation of a deployment that isn't allowed.

Account and region are boto3's own settings: AWS_PROFILE, AWS_DEFAULT_REGION and so on. The request is signed where the
stack asks for IAM, and bears the token in TOKEN where it asks for JWT. Nothing is ended. Where AllowedDeploymentIds
is * it can't tell, and says so.
Exits 0 where the function refused as it should, 1 where something else was answered, 2 where nobody could be asked.
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

from operations.outputs import NotOurs, outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

PATH = "/v2/deployments/smoke-test/conversations/smoke-test/end"
TIMEOUT_SECONDS = 40

# Who most likely answered, where it was not the function refusing the deployment.
HINTS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "API Gateway found no valid token: set TOKEN to one of the stack's JwtIssuer.",
    HTTPStatus.FORBIDDEN: "API Gateway refused the caller: see EndRouteArn among the stack's outputs.",
    HTTPStatus.TOO_MANY_REQUESTS: "API Gateway throttled the request: see ThrottleRate and ThrottleBurst.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "The function failed: see HttpLogGroupName or, if silent, AccessLogGroupName.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Lambda had no room: see the function's concurrency.",
}
OTHER_HINT = "Is smoke-test, or *, among AllowedDeploymentIds?"


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask once, and exit as the module says."""
    parser = argparse.ArgumentParser(prog="smoke", description="See that requests get through a deployed stack.")
    parser.add_argument("--stack", default="end-conversation", metavar="NAME", help="the stack (%(default)s)")
    options = parser.parse_args(arguments)
    session = boto3.Session()
    try:
        stack = outputs(session.client("cloudformation"), options.stack, {"ApiUrl", "HttpAuth"})
        answer = ask(stack["ApiUrl"], stack["HttpAuth"], session, os.environ.get("TOKEN"))
    except NotOurs as error:
        parser.exit(2, f"{error}\n")
    except (BotoCoreError, ClientError, urllib3.exceptions.HTTPError) as error:
        parser.exit(2, f"{str(error).rstrip('.')}. Check --stack, AWS_PROFILE and AWS_DEFAULT_REGION.\n")
    print(f"{answer.status} {answer.data.decode(errors='replace')}")
    if refused(answer):
        print("Requests get through to the function. Nothing was ended.")
        return
    parser.exit(1, f"{HINTS.get(answer.status, OTHER_HINT)}\n")


def ask(api_url: str, http_auth: str, session: boto3.Session, token: str | None = None) -> urllib3.BaseHTTPResponse:
    """Send the request as the stack's HttpAuth wants it. Raises HTTPError or NoCredentialsError."""
    url = api_url + PATH
    request = AWSRequest("POST", url)
    match http_auth:
        case "IAM":
            credentials = session.get_credentials()
            if credentials is None:
                raise NoCredentialsError
            SigV4Auth(credentials, "execute-api", session.region_name).add_auth(request)
        case "JWT" if token:
            request.headers["Authorization"] = f"Bearer {token}"
    headers = dict(request.headers.items())
    return urllib3.request("POST", url, headers=headers, retries=False, timeout=TIMEOUT_SECONDS)


def refused(answer: urllib3.BaseHTTPResponse) -> bool:
    """Whether the function itself refused the deployment, which only a request that got through can show."""
    if answer.headers.get("Content-Type") != "application/problem+json":
        return False
    reason: str = answer.json()["reason"]
    return reason == "deployment_not_allowed"


if __name__ == "__main__":
    main()
