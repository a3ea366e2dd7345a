"""Checks that requests reach the functions of a deployed stack, by asking for a deployment that is not allowed.

boto3's own settings choose the account and the region. Requests are signed, or carry the token in TOKEN, as their
routes demand. Nothing is ended and no limit is set. The check cannot work if AllowedDeploymentIds is *.
Exits 0 if each route's function rejects the deployment, and 1 with a sentence otherwise.
"""

import os
import sys
from http import HTTPStatus

import boto3
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

_CONVERSATION = "/v2/deployments/smoke-test/conversations/smoke-test"
# Each route, and the output that says who may call it.
ROUTES = (("POST", f"{_CONVERSATION}/end", "HttpAuth"), ("PUT", f"{_CONVERSATION}/timeout", "LimitAuth"))
TIMEOUT_SECONDS = 40

# The likely cause of any other answer.
HINTS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "API Gateway found no valid token: set TOKEN to a token of the stack's JwtIssuer.",
    HTTPStatus.FORBIDDEN: "API Gateway refused the caller: see the stack's outputs EndRouteArn and TimeoutRouteArn.",
    HTTPStatus.TOO_MANY_REQUESTS: "API Gateway throttled the request: see ThrottleRate and ThrottleBurst.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "The function failed: see its log group, or else AccessLogGroupName.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Lambda is at its limit: see the function's concurrency.",
}
OTHER_HINT = "Is smoke-test, or *, among AllowedDeploymentIds?"


def main(stack: str) -> None:
    """Send one request to each route, and exit as the module docstring says."""
    try:
        aws = boto3.Session(region_name=os.environ.get("AWS_REGION"))  # which boto3 itself does not read
        found = aws.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0].get("Outputs", [])
        outputs = {output["OutputKey"]: output["OutputValue"] for output in found}
        for method, path, auth in ROUTES:  # a stack that does not refuse an end is not asked for a limit
            answer = ask(method, outputs["ApiUrl"] + path, outputs[auth], aws, os.environ.get("TOKEN"))
            print(f"{method}: {answer.status} {answer.data.decode(errors='replace')}")
            if not refused(answer):
                sys.exit(HINTS.get(answer.status, OTHER_HINT))
    except KeyError as error:
        sys.exit(f"Stack {stack} has no output {error}. Name a stack that template.yaml created.")
    except (BotoCoreError, ClientError, urllib3.exceptions.HTTPError) as error:
        sys.exit(f"{str(error).rstrip('.')}. Check STACK, AWS_PROFILE and AWS_REGION.")
    print("Requests reach the functions. Nothing was ended, and no limit was set.")


def ask(method: str, url: str, auth: str, session: boto3.Session, token: str | None) -> urllib3.BaseHTTPResponse:
    """Send a request as IAM, JWT or NONE demands. Raises HTTPError or NoCredentialsError."""
    request = AWSRequest(method, url)
    match auth:
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
    main(*sys.argv[1:])
