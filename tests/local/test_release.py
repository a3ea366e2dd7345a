"""`make release`: a zip, a template, a list of packages and checksums, which deploy without a build."""

import hashlib
import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from local.build import build
from local.process import ROOT, run
from local.session import DEPLOYMENT_ID, end_path, send
from local.stack import Stack, delete, deploy
from local.tavus import Tavus
from operations.release import RELEASES

VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
NAME = f"end-conversation-{VERSION}"
# Downloads need this machine's proxies and certificates, but not the options of the make that runs the tests.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MAKE", "PYTHON"))}


@pytest.fixture(scope="module")
def folder() -> Path:
    """The files that `make release` left."""
    run(["make", "release", f"VERSION={VERSION}"], ENVIRONMENT)
    return RELEASES / VERSION


def test_the_checksums_are_those_of_all_other_files(folder: Path) -> None:
    others = {f"{NAME}.{kind}": (folder / f"{NAME}.{kind}").read_bytes() for kind in ("cdx.json", "yaml", "zip")}
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}" for name, content in others.items()]
    assert (folder / "SHA256SUMS").read_text().splitlines() == lines
    assert {path.name for path in folder.iterdir()} == {*others, "SHA256SUMS"}


def test_the_zip_holds_what_sam_build_leaves(folder: Path) -> None:
    """Every user may read it: Lambda runs the code as a user without rights of its own."""
    built = build().parent / "HttpFunction"
    with ZipFile(folder / f"{NAME}.zip") as archive:
        zipped = {name: archive.read(name) for name in archive.namelist()}
        assert {member.external_attr >> 16 for member in archive.infolist()} == {0o100644}
    files = [path for path in built.rglob("*") if path.is_file()]
    assert zipped == {path.relative_to(built).as_posix(): path.read_bytes() for path in files}
    assert zipped["end_conversation/LICENSE"] == (ROOT / "LICENSE").read_bytes()


def test_the_list_of_packages_has_what_is_pinned_and_our_version(folder: Path) -> None:
    found = json.loads((folder / f"{NAME}.cdx.json").read_text())
    pinned = [line.split(" ")[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line]
    assert sorted(f"{part['name']}=={part['version']}" for part in found["components"]) == sorted(pinned)
    assert (found["metadata"]["component"]["type"], found["metadata"]["component"]["version"]) == (
        "application",
        VERSION,
    )


@pytest.fixture
def released(folder: Path, stack: Stack, tavus: Tavus) -> Iterator[Stack]:
    """A second stack, deployed from the release."""
    parameters = {"AllowedDeploymentIds": DEPLOYMENT_ID, "HttpAuth": "NONE", "TavusApiUrl": tavus.url}
    # A source of its own, so that it does not act on the other stack's session timeouts.
    parameters |= {"SessionEventSource": "release.sessions"}
    yield deploy(stack.endpoint_url, "release", parameters, folder / f"{NAME}.yaml")
    delete(stack.endpoint_url, "release")


def test_a_release_deploys_without_a_build(released: Stack, tavus: Tavus) -> None:
    """A request reaches its function, and the conversation ends."""
    conversation_id = tavus.start(DEPLOYMENT_ID)
    response = send(released, "POST", end_path(DEPLOYMENT_ID, conversation_id))
    assert (response.status, response.json()) == (200, {"conversation_id": conversation_id, "status": "ended"})
    assert (DEPLOYMENT_ID, conversation_id) not in tavus.active
