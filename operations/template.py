"""Reads template.yaml."""

import re
from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).parent.parent / "template.yaml"


class _Loader(yaml.SafeLoader):
    """Reads `!GetAtt Queue.Arn` as CloudFormation does: `{"Fn::GetAtt": "Queue.Arn"}`."""


def _intrinsic(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    match node:
        case yaml.ScalarNode():
            value = loader.construct_scalar(node)
        case yaml.SequenceNode():
            value = loader.construct_sequence(node, deep=True)
    return {"Ref" if name == "Ref" else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _intrinsic)


def variable(output: str) -> str:
    """Return the variable that stands for an output in documented commands: FAILED_QUEUE_URL for FailedQueueUrl."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", output).upper()


def read_template() -> dict[str, Any]:
    """Return the template, with its functions in their long form."""
    template: dict[str, Any] = yaml.load(TEMPLATE.read_text(), _Loader)  # noqa: S506 - a SafeLoader
    return template
