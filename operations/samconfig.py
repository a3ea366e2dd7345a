"""What `sam deploy --guided` saved in samconfig.toml, for the commands that are not sam's."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from typing import Any

SAMCONFIG = Path(__file__).parent.parent / "samconfig.toml"


def saved_region(samconfig: Path = SAMCONFIG) -> str | None:
    """The region of the stack."""
    region: str | None = _deploy(samconfig).get("region")
    return region


def saved_architecture(samconfig: Path = SAMCONFIG) -> str:
    """The stack's parameter Architecture, or else the template's default."""
    overrides = shlex.split(_deploy(samconfig).get("parameter_overrides", ""))
    return dict(override.split("=", 1) for override in overrides).get("Architecture", "arm64")


def _deploy(samconfig: Path) -> dict[str, Any]:
    parameters: dict[str, Any] = tomllib.loads(samconfig.read_text())["default"]["deploy"]["parameters"]
    return parameters
