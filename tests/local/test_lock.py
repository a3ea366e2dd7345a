"""The lock and what is exported from it."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from local.process import ROOT

LOCK = tomllib.loads((ROOT / "uv.lock").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: list[dict[str, Any]] = [
    package for package in LOCK["package"] if package["name"] != PROJECT["project"]["name"]
]


def exported(name: str) -> dict[tuple[str, str], set[str]]:
    """The hashes of each package and version in a requirements file."""
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)((?: \\\n +--hash=\S+)+)", (ROOT / name).read_text(), re.MULTILINE)
    return {(package, version): set(re.findall(r"sha256:\w+", hashes)) for package, version, hashes in pins}


def names(requirements: list[dict[str, Any]]) -> set[str]:
    """The packages that a list of the lock names."""
    return {requirement["name"] for requirement in requirements}


@pytest.mark.parametrize("name", ["requirements.txt", "local/requirements-uv.txt"])
def test_exports_are_in_step_with_the_lock(name: str) -> None:
    """What is exported has the lock's versions and hashes: run `make lock` if it does not."""
    locked = {
        (package["name"], package["version"]): {
            file["hash"] for file in [*package["wheels"], *([package["sdist"]] if "sdist" in package else [])]
        }
        for package in PACKAGES
    }
    pins = exported(name)
    assert pins
    assert pins == {pin: locked.get(pin) for pin in pins}


def test_exports_hold_what_their_group_needs() -> None:
    """Each export begins with the packages that pyproject.toml asks for."""
    [project] = [package for package in LOCK["package"] if package["name"] == PROJECT["project"]["name"]]
    assert names(project["dependencies"]) <= {name for name, _ in exported("requirements.txt")}
    assert names(project["dev-dependencies"]["uv"]) == {name for name, _ in exported("local/requirements-uv.txt")}


def test_lock_is_in_step_with_pyproject() -> None:
    """The lock was made from these requirements: run `make lock` if it was not."""
    [project] = [package for package in LOCK["package"] if package["name"] == PROJECT["project"]["name"]]

    def asked(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=]", requirement)[0] for requirement in requirements}

    metadata = project["metadata"]
    assert names(metadata["requires-dist"]) == asked(PROJECT["project"]["dependencies"])
    groups = {group: names(requirements) for group, requirements in metadata["requires-dev"].items()}
    assert groups == {group: asked(requirements) for group, requirements in PROJECT["dependency-groups"].items()}


def test_everything_is_locked_as_a_wheel_with_a_hash() -> None:
    """No code of a package runs while it is installed, and none is installed that was not pinned."""
    assert len(PACKAGES) > 100
    for package in PACKAGES:
        assert package["wheels"], package["name"]
        assert all(wheel["hash"].startswith("sha256:") for wheel in package["wheels"]), package["name"]


def test_no_young_release_is_locked() -> None:
    """A release must be at least a week old."""
    assert LOCK["options"]["exclude-newer-span"] == "P7D"
    assert PROJECT["tool"]["uv"]["exclude-newer"] == "7 days"
