"""`make serve`: keeps the deployed stack and the stand-in for Tavus running until Ctrl-C, and prints what to try."""

import json
import shlex
from contextlib import suppress

from local.process import AWS_CLIENT
from local.run import LIMIT_SECONDS, local_stack
from local.session import DEPLOYMENT_ID, end_path, session_timeout, timeout_path
from local.stack import Stack
from local.subscriber import Subscriber
from local.tavus import Tavus
from operations.template import variable


def main() -> None:
    """Serve until Ctrl-C, SIGTERM or the terminal's end, and print each result that is published."""
    tavus = Tavus()
    with local_stack(tavus) as stack, suppress(KeyboardInterrupt):
        subscriber = Subscriber(stack)
        show_lines_to_try(stack, tavus)
        while True:
            for result in subscriber.receive(1):
                print(f"\nPublished: {json.dumps(result, indent=2)}")
    print("Stopped.")


def show_lines_to_try(stack: Stack, tavus: Tavus) -> None:
    by_http, by_event, at_limit = (tavus.start(DEPLOYMENT_ID) for _ in range(3))
    entry = session_timeout(by_event) | {"EventBusName": stack.outputs["EventBusName"]}
    tavus.start(DEPLOYMENT_ID, "c123456")  # which the documentation ends
    names = {variable(name): value for name, value in stack.outputs.items()}
    exports = AWS_CLIENT | {"AWS_ENDPOINT_URL": stack.endpoint_url} | names | {"API_URL": stack.api_url}
    print(f"""
For the commands of README.md and docs/, with the AWS CLI 2.13 or newer, in another terminal that you close afterwards:

{chr(10).join(f"  export {name}={shlex.quote(value)}" for name, value in exports.items())}

This AWS has no alarms, access log or redrive. It ignores --filter-pattern '{{ … }}': pipe the log into grep instead.

Conversations are active at the stand-in for Tavus. These start one more, whose id fits into the commands below, and let
Tavus fail and recover:

  curl -X POST {tavus.url}/stand-in/start/{DEPLOYMENT_ID}
  curl -X POST {tavus.url}/stand-in/down
  curl -X POST {tavus.url}/stand-in/up

End one over HTTP:

  curl -i -X POST '{stack.api_url}{end_path(DEPLOYMENT_ID, by_http)}'

End another by a session timeout on the bus. Its result appears here, but not while Tavus is down:

  aws events put-events --entries '{json.dumps([entry])}'

Put an event without ids on the bus. It goes to the failed queue:

  aws events put-events --entries '{json.dumps([entry | {"Detail": "{}"}])}'

Give the third a limit of {LIMIT_SECONDS} seconds. Then it ends by itself on the second, and its result appears here:

  curl -i -X PUT '{stack.api_url}{timeout_path(DEPLOYMENT_ID, at_limit, LIMIT_SECONDS)}'

Ctrl-C stops everything, which may take half a minute.""")


if __name__ == "__main__":
    main()
