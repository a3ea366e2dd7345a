"""The region and the outputs of a deployed stack."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import boto3

from operations.samconfig import saved_region

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient


class MissingOutput(Exception):
    """A stack lacks an output, so it was not created from our template."""


def session() -> boto3.Session:
    """Return a session for the shell's AWS account, in its region or else in the region of the last deployment."""
    return boto3.Session(
        region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or saved_region()
    )


def outputs(cloudformation: CloudFormationClient, stack: str, needed: set[str]) -> dict[str, str]:
    """Return the outputs of a stack. Raises MissingOutput if one of `needed` is absent, ClientError without a stack."""
    found = cloudformation.describe_stacks(StackName=stack)["Stacks"][0].get("Outputs", [])
    values = {output["OutputKey"]: output["OutputValue"] for output in found}
    if missing := needed - values.keys():
        raise MissingOutput(f"Stack {stack} has no output {min(missing)}. Name a stack that template.yaml created.")
    return values
