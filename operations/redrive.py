"""Shows the events that a stack failed on and, when told, has its function try each again.

Account, region and endpoint are boto3's own settings: AWS_PROFILE, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL and so on.
Without a region in the environment, the one in samconfig.toml counts.
A message is deleted only after Lambda accepted its event, and an event that fails again comes back by itself. So a run
may be interrupted, scheduled, or made twice at once: at worst an event is tried twice, and its conversation ends once.
Exits 0 where all went well, 1 where an event could not be invoked, 2 where AWS could not be asked, 130 interrupted.
"""

from __future__ import annotations

import argparse
import signal
from http import HTTPStatus
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from operations.failures import count, taken
from operations.outputs import MissingOutput, outputs, session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_sqs import SQSClient

FUNCTION = "EventFunctionName"
QUEUES = {"UndeliveredQueueUrl": "Never reached the function", "FailedQueueUrl": "Failed in the function"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command, and exit as the module says."""
    parser = argparse.ArgumentParser(prog="redrive", description="Show the events that a stack failed on.")
    parser.add_argument("--stack", default="end-conversation", metavar="NAME", help="the stack (%(default)s)")
    parser.add_argument("--invoke", action="store_true", help="have the function try each event again")
    options = parser.parse_args(arguments)
    try:
        aws = session()
        stack_outputs = outputs(aws.client("cloudformation"), options.stack, {FUNCTION, *QUEUES})
        went_well = redrive(aws.client("sqs"), aws.client("lambda"), stack_outputs, invoke=options.invoke)
    except MissingOutput as error:
        parser.exit(2, f"{error}\n")
    except (BotoCoreError, ClientError) as error:
        parser.exit(
            2, f"{str(error).rstrip('.')}. Check --stack, AWS_PROFILE, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL.\n"
        )
    except KeyboardInterrupt:
        parser.exit(130, "\nInterrupted: each event was either accepted and deleted, or is still in its queue.\n")
    parser.exit(0 if went_well else 1)


def redrive(sqs: SQSClient, functions: LambdaClient, stack: Mapping[str, str], *, invoke: bool) -> bool:
    """Show each failure and, where told, invoke the function with its event. False where one could not be."""
    shown = accepted = 0
    for output, what in QUEUES.items():
        # No more than there are now: what fails again comes back while this runs.
        found, hidden = count(sqs, stack[output])
        print(f"{what}: {found}{f', and {hidden} that another run is at' if hidden else ''}")
        with taken(sqs, stack[output], found) as failures:
            for number, failure in enumerate(failures, 1):
                print(f"  {number}/{found}  {failure.line}", end="", flush=True)
                shown += 1
                if not invoke or failure.event is None:
                    print()
                elif refusal := _refusal(functions, stack[FUNCTION], failure.event):
                    print(f"  -> not accepted: {refusal}")
                else:
                    sqs.delete_message(QueueUrl=stack[output], ReceiptHandle=failure.receipt)
                    accepted += 1
                    print("  -> accepted")
    if invoke:
        print(f"{accepted} accepted by {stack[FUNCTION]}, {shown - accepted} left in their queues.")
    elif shown:
        print("Nothing was changed. To have the function try these again: --invoke, or make redrive INVOKE=yes.")
    return not invoke or accepted == shown


def _refusal(functions: LambdaClient, name: str, event: str) -> str | None:
    """Ask Lambda to run a function later. Why it doesn't accept that; None where it does."""
    try:
        status = functions.invoke(FunctionName=name, InvocationType="Event", Payload=event)["StatusCode"]
    except ClientError as error:
        return error.response["Error"]["Code"]
    except BotoCoreError as error:
        return type(error).__name__
    return None if status == HTTPStatus.ACCEPTED else f"HTTP {status}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
