"""Removes what the functions never use: data of boto3, botocore and dateutil, and the one compiled extension.

A client reads its service's model, its endpoint rules and the partitions when it is made, which is at cold start.
"""

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Each service: its newest version, which botocore chooses, and the operations that are called.
SERVICES = {
    "dynamodb": ("2012-08-10", {"GetItem", "PutItem"}),
    "events": ("2015-10-07", {"PutEvents"}),
    "scheduler": ("2021-06-30", {"CreateSchedule", "GetSchedule", "UpdateSchedule"}),
    "sqs": ("2012-11-05", {"ChangeMessageVisibility", "SendMessage"}),
    # The X-Ray SDK calls these if it does not run on Lambda.
    "xray": ("2016-04-12", {"GetSamplingRules", "GetSamplingTargets"}),
}
RULES, MODEL = "endpoint-rule-set-1.json", "service-2.json"
TIME_ZONES = "dateutil/zoneinfo/dateutil-zoneinfo.tar.gz"  # botocore uses UTC and local time only


def trim(tree: Path) -> None:
    """Cut the data down to what is used.

    Raises FileNotFoundError if its layout has changed, and KeyError if a service lacks an operation.
    """
    shutil.rmtree(tree / "boto3/data")  # what boto3's resources are made of
    (tree / TIME_ZONES).unlink()
    # wrapt has the same code in Python, which runs on both of Lambda's processors.
    for extension in tree.glob("wrapt/*.so"):
        extension.unlink()
    data = tree / "botocore/data"
    kept: dict[Path, dict[str, Any]] = {}
    for service, (version, operations) in SERVICES.items():
        folder = data / service / version
        kept[folder / RULES] = _read(folder / f"{RULES}.gz")
        kept[folder / MODEL] = _with_only(_read(folder / f"{MODEL}.gz"), operations)
    for folder in filter(lambda entry: entry.is_dir(), list(data.iterdir())):
        shutil.rmtree(folder)
    endpoints = json.loads((data / "endpoints.json").read_bytes())
    for partition in endpoints["partitions"]:
        partition["services"] = {name: rules for name, rules in partition["services"].items() if name in SERVICES}
    kept[data / "endpoints.json"] = endpoints
    for path, content in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, separators=(",", ":")))


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()), object_hook=_without_prose)
    return content


def _without_prose(value: dict[str, Any]) -> dict[str, Any]:
    # A shape can have a member of that name. Its value is not a string.
    return {name: inner for name, inner in value.items() if not (name == "documentation" and isinstance(inner, str))}


def _with_only(model: dict[str, Any], operations: set[str]) -> dict[str, Any]:
    """Return a service model with these operations and the shapes that they reach."""
    kept = {name: model["operations"][name] for name in sorted(operations)}
    shapes: dict[str, Any] = {}
    found = set(_shapes_in(kept))
    while found:
        shapes |= {name: model["shapes"][name] for name in sorted(found)}
        found = set(_shapes_in(shapes)) - shapes.keys()
    return model | {"operations": kept, "shapes": shapes}


def _shapes_in(value: Any) -> Iterator[str]:
    """The names of the shapes that a part of a model refers to."""
    if isinstance(value, list):
        for inner in value:
            yield from _shapes_in(inner)
    elif isinstance(value, dict):
        if isinstance(value.get("shape"), str):
            yield value["shape"]
        for inner in value.values():
            yield from _shapes_in(inner)
