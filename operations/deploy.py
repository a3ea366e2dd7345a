"""`make deploy`: checks the account, asks for what has no default, and makes sure that the stack was deployed.

The answers are kept in `deploy-STACK.toml`, a configuration file of sam that git ignores. Every other parameter has a
default, and can be added there. Exits 1 with one sentence if something is wrong.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from operations.template import read_template, variable

ROOT = Path(__file__).parent.parent
SAM = ROOT / ".venv-sam/bin/sam"
BUILD = ("make", "--no-print-directory", "build")
QUESTIONS = {
    "AllowedDeploymentIds": "Ids of the Tavus deployments whose conversations may be ended, separated by commas",
    "AlarmEmail": "E-mail address for alarms (empty: alarms reach nobody)",
}


def main(stack: str) -> None:
    """Ask, build and deploy a stack of this name."""
    config = ROOT / f"deploy-{stack}.toml"
    try:
        # boto3 itself does not read AWS_REGION.
        session = boto3.Session(region_name=saved_region(config) or os.environ.get("AWS_REGION"))
        account = session.client("sts").get_caller_identity()["Account"]
        print(f"Account {account}, region {session.region_name}, stack {stack}")
        ask(config, stack, str(session.region_name))
        subprocess.run(BUILD, cwd=ROOT, check=True)
        deploy(config, stack, session.client("cloudformation"))
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"Not deployed: {str(error).rstrip('.')}. Check AWS_PROFILE and AWS_REGION.")
    except subprocess.CalledProcessError as error:
        sys.exit(f"Not deployed: {Path(error.cmd[0]).name} failed. See its output above.")
    except (EOFError, KeyboardInterrupt):
        sys.exit("\nNot deployed: stopped.")


def saved_region(config: Path) -> str | None:
    """The region of a stack whose answers are kept. None for a new one."""
    if not config.exists():
        return None
    region: str = tomllib.loads(config.read_text())["default"]["deploy"]["parameters"]["region"]
    return region


def ask(config: Path, stack: str, region: str) -> None:
    """Ask the questions if there are no answers yet, each until the answer is valid."""
    if config.exists():
        print(f"Parameters: {config.name}. Delete it to be asked again.")
        return
    parameters = read_template()["Parameters"]
    overrides = []
    for name, question in QUESTIONS.items():
        # sam would split a value at its spaces. Neither of these needs any.
        while not re.fullmatch(parameters[name]["AllowedPattern"], given := input(f"{question}: ").replace(" ", "")):
            print(f"  {name} {parameters[name]['ConstraintDescription']}")
        overrides.append(f"{name}={given}")
    values = {"stack_name": stack, "region": region, "parameter_overrides": overrides}
    lines = ["version = 0.1", "[default.deploy.parameters]", *(f"{key} = {json.dumps(values[key])}" for key in values)]
    config.write_text("\n".join(lines) + "\n")
    print(f"Kept in {config.name}. Other parameters of template.yaml can be added there, such as HttpAuth=JWT.")


def deploy(config: Path, stack: str, cloudformation: Any) -> None:
    """Deploy what was built, and show the outputs. Raises CalledProcessError if sam fails."""
    # There is nothing yet that a first deployment could change.
    confirm = "--confirm-changeset" if _outputs(cloudformation, stack) else "--no-confirm-changeset"
    options = ["--resolve-s3", "--capabilities", "CAPABILITY_IAM", "--no-fail-on-empty-changeset", confirm]
    subprocess.run([SAM, "deploy", "--config-file", str(config), *options], cwd=ROOT, check=True)
    outputs = _outputs(cloudformation, stack)
    if not outputs:
        sys.exit(f"Not deployed: the stack {stack} does not exist.")
    print(f"\nThe stack {stack} exists. Its outputs, for the commands of docs/operating.md:\n")
    for output in outputs:
        print(f"  export {variable(output['OutputKey'])}={shlex.quote(output['OutputValue'])}")
    print(f"\nNow check it: make smoke STACK={stack}")


def _outputs(cloudformation: Any, stack: str) -> list[dict[str, str]]:
    """The outputs of a stack that was deployed. Empty if there is none."""
    try:
        [found] = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            return []
        raise
    outputs: list[dict[str, str]] = found.get("Outputs", [])
    return outputs if found["StackStatus"].endswith("_COMPLETE") and "DELETE" not in found["StackStatus"] else []


if __name__ == "__main__":
    main(*sys.argv[1:])
