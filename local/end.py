"""`make end`: ends one conversation at Tavus, with the Lambda handler in this process and without AWS."""

import json
import os
import sys
import time
from contextlib import redirect_stdout
from http import HTTPStatus
from types import SimpleNamespace
from uuid import uuid4

from end_conversation.conversation import Conversation
from end_conversation.errors import InvalidId, InvalidSetting
from local.session import end_path

TIMEOUT_SECONDS = 29
# This shell may have variables of a deployed stack, which are not meant for this process.
UNSET = (
    "ENDED_TABLE_NAME",
    "EVENT_BUS_NAME",
    "TIMER_GROUP_NAME",
    "TIMER_TARGET",
    "TIMEOUT_QUEUE_URL",
    "FAILED_QUEUE_URL",
)
SETTINGS = dict.fromkeys(UNSET, "") | {"ALLOWED_DEPLOYMENT_IDS": "*", "POWERTOOLS_METRICS_DISABLED": "true"}


def main() -> None:
    """End the conversation that DEPLOYMENT_ID and CONVERSATION_ID name. Exits 0 only if it is `ended`."""
    deployment_id, conversation_id = os.environ.get("DEPLOYMENT_ID"), os.environ.get("CONVERSATION_ID")
    if not deployment_id or not conversation_id:
        sys.exit("Name the conversation: make end DEPLOYMENT_ID=d… CONVERSATION_ID=c…")
    try:
        Conversation(deployment_id, conversation_id)
    except InvalidId as error:
        sys.exit(f"Not sent: {error}.")
    path = end_path(deployment_id, conversation_id)
    print(f"POST {os.environ.get('TAVUS_API_URL') or 'https://tavusapi.com'}{path}", flush=True)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    context = SimpleNamespace(  # the part of Lambda's context that the handler uses
        function_name="end-conversation",
        memory_limit_in_mb=512,
        invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:end-conversation",
        aws_request_id=str(uuid4()),
        get_remaining_time_in_millis=lambda: round(max(0.0, deadline - time.monotonic()) * 1000),
    )
    os.environ |= SETTINGS
    try:
        with redirect_stdout(sys.stderr):  # separates the log from the answer
            from end_conversation.handler import handler  # noqa: PLC0415 - reads the settings

            answer = handler({"rawPath": path, "requestContext": {"http": {"method": "POST"}}}, context)
    except InvalidSetting as error:
        sys.exit(f"{error}.")
    status, body = HTTPStatus(answer["statusCode"]), json.loads(answer["body"])
    print(f"{status.value} {status.phrase}")
    print(json.dumps(body, indent=2))
    sys.exit(body.get("status") != "ended")


if __name__ == "__main__":
    main()
