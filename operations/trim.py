"""Removes the data of boto3 and botocore that the functions never use, and the documentation in their models.

A client reads its service's model, its endpoint rules and the partitions when it is made, which is at cold start.
"""

from __future__ import annotations

import gzip
import json
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# What clients are made of, in the version that botocore chooses: the newest.
SERVICES = {
    "dynamodb": "2012-08-10",
    "events": "2015-10-07",
    "scheduler": "2021-06-30",
    "xray": "2016-04-12",  # by the X-Ray SDK, wherever it does not find itself on Lambda
}
MODELS = ("endpoint-rule-set-1.json.gz", "service-2.json.gz")


def trim(tree: Path) -> None:
    """Cut boto3's and botocore's data down to what is used. Raises FileNotFoundError if their layout has changed."""
    shutil.rmtree(tree / "boto3/data")  # what boto3's resources are made of
    data = tree / "botocore/data"
    kept = {data / service / version / model for service, version in SERVICES.items() for model in MODELS}
    for service in filter(lambda entry: entry.is_dir(), list(data.iterdir())):
        for path in [path for path in service.rglob("*") if path.is_file() and path not in kept]:
            path.unlink()
    for path in kept:
        model = json.loads(gzip.decompress(path.read_bytes()), object_hook=_without_prose)
        path.with_suffix("").write_text(json.dumps(model, separators=(",", ":")))
        path.unlink()
    for folder in [entry for entry in data.rglob("*") if entry.is_dir()]:
        if folder.exists() and not any(path.is_file() for path in folder.rglob("*")):
            shutil.rmtree(folder)
    endpoints = json.loads((data / "endpoints.json").read_bytes())
    for partition in endpoints["partitions"]:
        partition["services"] = {name: rules for name, rules in partition["services"].items() if name in SERVICES}
    (data / "endpoints.json").write_text(json.dumps(endpoints, separators=(",", ":")))


def _without_prose(value: dict[str, Any]) -> dict[str, Any]:
    # A shape's member may have that name too; its value is no text.
    return {name: inner for name, inner in value.items() if not (name == "documentation" and isinstance(inner, str))}
