"""`make release`: zips, templates, a list of packages and checksums, which deploy without a build."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import pytest
import yaml

from local.build import ARCHITECTURE, build
from local.process import ROOT, ProcessFailed, run
from local.session import DEPLOYMENT_ID, end_path, send
from local.stack import delete, deploy
from operations.package import PLATFORMS
from operations.release import RELEASES, main, release_template, zip_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from local.stack import Stack
    from local.tavus import Tavus

VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
NAME = f"end-conversation-{VERSION}"
TEMPLATES = [f"{NAME}-{architecture}.yaml" for architecture in PLATFORMS]
# Downloads need this machine's proxies and certificates, but not the options of the make that runs the tests.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MAKE", "PYTHON"))}


@pytest.fixture(scope="module")
def folder() -> Path:
    """The files that `make release` left."""
    run(["make", "release", f"VERSION={VERSION}"], ENVIRONMENT)
    return RELEASES / VERSION


def test_a_release_has_these_files(folder: Path) -> None:
    zips = [template.replace(".yaml", ".zip") for template in TEMPLATES]
    assert {path.name for path in folder.iterdir()} == {*TEMPLATES, *zips, f"{NAME}.cdx.json", "SHA256SUMS"}


def test_the_checksums_are_those_of_all_other_files(folder: Path) -> None:
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    others = [path for path in folder.iterdir() if path.name != "SHA256SUMS"]
    assert listed == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in others}


def test_the_zip_holds_what_sam_build_leaves(folder: Path) -> None:
    """Two builds of the same commit, in different folders, have the same files and bytes."""
    built = build().parent / "HttpFunction"
    with ZipFile(folder / f"{NAME}-{ARCHITECTURE}.zip") as archive:
        zipped = {name: archive.read(name) for name in archive.namelist()}
    assert zipped == {
        path.relative_to(built).as_posix(): path.read_bytes() for path in built.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("architecture", PLATFORMS)
def test_the_compiled_extensions_are_for_the_processor(folder: Path, architecture: str) -> None:
    processor = PLATFORMS[architecture].partition("-")[0]
    with ZipFile(folder / f"{NAME}-{architecture}.zip") as archive:
        extensions = [name for name in archive.namelist() if name.endswith(".so")]
    assert extensions
    assert [name for name in extensions if processor not in name] == []


def test_times_permissions_and_order_do_not_change_the_zip(tmp_path: Path) -> None:
    for tree, names, mode, seconds in (("one", "ab", 0o600, 1e9), ("two", "ba", 0o755, 1.5e9)):
        (tmp_path / tree / "inner").mkdir(parents=True)
        for name in names:
            path = tmp_path / tree / "inner" / name
            path.write_text(name)
            path.chmod(mode)
            os.utime(path, (seconds, seconds))
        zip_folder(tmp_path / tree, tmp_path / f"{tree}.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_every_user_may_read_the_files_in_the_zip(folder: Path) -> None:
    """Lambda runs the code as a user without rights of its own."""
    with ZipFile(folder / f"{NAME}-arm64.zip") as archive:
        assert {member.external_attr >> 16 for member in archive.infolist()} == {0o100644}


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_function_of_a_template_uses_the_zip_beside_it(folder: Path, name: str) -> None:
    """Nothing is left to build, and no other processor can be chosen."""
    template = load(folder / name)
    functions = [found for found in template["Resources"].values() if found["Type"] == "AWS::Serverless::Function"]
    assert [function["Properties"]["CodeUri"] for function in functions] == [name.replace(".yaml", ".zip")] * 3
    assert not any("Metadata" in function for function in functions)
    assert "CodeUri" not in template["Globals"]["Function"]
    parameter = template["Parameters"]["Architecture"]
    assert parameter["AllowedValues"] == [parameter["Default"]]
    assert name == f"{NAME}-{parameter['Default']}.yaml"


def test_a_template_says_its_version(folder: Path) -> None:
    """CloudFormation shows the description of a stack."""
    assert load(folder / TEMPLATES[0])["Description"].endswith(f" Version {VERSION}.")


def test_all_else_in_a_template_is_as_in_the_repository(folder: Path) -> None:
    expected = load(ROOT / "template.yaml")
    expected["Description"] += f" Version {VERSION}."
    expected["Parameters"]["Architecture"]["AllowedValues"] = ["arm64"]
    del expected["Globals"]["Function"]["CodeUri"]
    for resource in expected["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            del resource["Metadata"]
            resource["Properties"]["CodeUri"] = f"{NAME}-arm64.zip"
    assert load(folder / f"{NAME}-arm64.yaml") == expected


def test_the_list_of_packages_has_what_is_pinned_and_our_version(folder: Path) -> None:
    found = json.loads((folder / f"{NAME}.cdx.json").read_text())
    pinned = [line.split(" ")[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line]
    assert sorted(f"{part['name']}=={part['version']}" for part in found["components"]) == sorted(pinned)
    assert found["metadata"]["component"]["version"] == VERSION


@pytest.mark.parametrize("version", ["", "v1.0.0", "1.0", "01.0.0", "1.0.0\n", "1.0.0-rc1"])
def test_a_version_of_another_form_is_refused(version: str) -> None:
    with pytest.raises(
        SystemExit, match=rf"^VERSION must have the form X.Y.Z, for .*: make release VERSION={VERSION}$"
    ):
        main([version])


def test_a_version_that_the_project_does_not_have_is_refused() -> None:
    """So that a tag, the list of packages and the files name the same version."""
    with pytest.raises(SystemExit, match=rf"^VERSION is 0.0.9, but pyproject.toml has {VERSION}. Use the same version"):
        main(["0.0.9"])


def test_a_missing_version_is_refused_by_make() -> None:
    with pytest.raises(ProcessFailed, match="VERSION must have the form X.Y.Z"):
        run(["make", "release", "VERSION="], ENVIRONMENT)


def test_a_template_of_another_form_is_an_error() -> None:
    """A release must not ship with a change missing."""
    template = (ROOT / "template.yaml").read_text().replace("CodeUri: src/", "CodeUri: source/")
    with pytest.raises(ValueError, match="template.yaml has no match for .*CodeUri"):
        release_template(template, VERSION, "arm64", "code.zip")


@pytest.fixture
def released(folder: Path, stack: Stack, tavus: Tavus) -> Iterator[Stack]:
    """A second stack, deployed from the release."""
    parameters = {"AllowedDeploymentIds": DEPLOYMENT_ID, "HttpAuth": "NONE", "TavusApiUrl": tavus.url}
    # A source of its own, so that it does not act on the other stack's session timeouts.
    parameters |= {"SessionEventSource": "release.sessions"}
    yield deploy(stack.endpoint_url, "release", parameters, folder / f"{NAME}-{ARCHITECTURE}.yaml")
    delete(stack.endpoint_url, "release")


def test_a_release_deploys_without_a_build(released: Stack, tavus: Tavus) -> None:
    """A request reaches its function, and the conversation ends."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    response = send(released, "POST", end_path(DEPLOYMENT_ID, conversation_id))
    assert (response.status, response.json()) == (200, {"conversation_id": conversation_id, "status": "ended"})
    assert (DEPLOYMENT_ID, conversation_id) not in tavus.active


class _Loader(yaml.SafeLoader):
    """Reads every short form of CloudFormation as its tag and its value."""


_Loader.add_multi_constructor("!", lambda _, name, node: (name, str(node)))


def load(path: Path) -> Any:
    return yaml.load(path.read_text(), _Loader)  # noqa: S506 - a SafeLoader
