"""What a deployed stack says of itself, read where boto3's own settings point."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient


class NotOurs(Exception):
    """A stack lacks an output: it was not made from our template."""


def outputs(cloudformation: CloudFormationClient, stack: str, needed: set[str]) -> dict[str, str]:
    """The outputs of a stack, all those needed among them. Raises NotOurs, and ClientError where there is no stack."""
    found = cloudformation.describe_stacks(StackName=stack)["Stacks"][0].get("Outputs", [])
    said = {output["OutputKey"]: output["OutputValue"] for output in found}
    if missing := needed - said.keys():
        raise NotOurs(f"Stack {stack} has no output {min(missing)}: name one made from template.yaml.")
    return said
