"""Makes the files of a release, which deploy without a build.

For each processor, they are a zip of the built function and a template whose functions use that zip. With them come
the list of packages (SBOM) and the checksums of all files. The same commit and Python give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from operations.package import PLATFORMS, ROOT, package

if TYPE_CHECKING:
    from collections.abc import Sequence

RELEASES = ROOT / ".aws-sam/release"
SBOM = ROOT / ".aws-sam/sbom.cdx.json"
SUMS = "SHA256SUMS"
READABLE_FILE = 0o100644 << 16


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a release. Exits 0 on success."""
    parser = argparse.ArgumentParser(prog="release", description="Make the files of a release.")
    parser.add_argument("version", help="the version in pyproject.toml")
    options = parser.parse_args(arguments)
    current = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", options.version, re.ASCII):
        sys.exit(f"VERSION must have the form X.Y.Z, for example: make release VERSION={current}")
    if options.version != current:
        sys.exit(f"VERSION is {options.version}, but pyproject.toml has {current}. Use the same version in both.")
    try:
        folder = release(options.version)
    except subprocess.CalledProcessError as error:
        sys.exit(f"Not built: {Path(error.cmd[0]).name} failed. See its output above.")
    print(f"{(folder / SUMS).read_text()}\nThe release is in {folder.relative_to(ROOT)}.")


def release(version: str) -> Path:
    """Make the folder of a version anew. Raises CalledProcessError if a package can't be downloaded."""
    folder = RELEASES / version
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for architecture in PLATFORMS:
        name = f"end-conversation-{version}-{architecture}"
        with TemporaryDirectory() as code:
            package(Path(code), ROOT / "requirements.txt", architecture)
            zip_folder(Path(code), folder / f"{name}.zip")
        template = (ROOT / "template.yaml").read_text()
        (folder / f"{name}.yaml").write_text(release_template(template, version, architecture, f"{name}.zip"))
    shutil.copy(SBOM, folder / f"end-conversation-{version}.cdx.json")
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))
    return folder


def zip_folder(folder: Path, target: Path) -> None:
    """Zip the files of a folder. Their times, their permissions and their order on disk make no difference."""
    with ZipFile(target, "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            member = ZipInfo(path.relative_to(folder).as_posix())
            member.compress_type, member.external_attr = ZIP_DEFLATED, READABLE_FILE
            member.create_system = 3  # Unix
            archive.writestr(member, path.read_bytes())


def release_template(template: str, version: str, architecture: str, code: str) -> str:
    """Return the template for one processor and one zip. Raises ValueError if template.yaml has changed its form."""
    only = f"    AllowedValues: [{architecture}]\n    Default: {architecture}\n"
    changes = {
        r"(\nDescription: .+)\n": rf"\1 Version {version}.\n",
        r"(\n  Architecture:\n.+\n.+\n)    AllowedValues: .+\n    Default: .+\n": rf"\1{only}",
        # The AWS CLI uploads what each function names, and ignores Globals.
        r"    CodeUri: src/\n": "",
        r"    Metadata: \{BuildMethod: .+\}\n    Properties:\n": f"    Properties:\n      CodeUri: {code}\n",
    }
    for pattern, new in changes.items():
        template, count = re.subn(pattern, new, template)
        if not count:
            raise ValueError(f"template.yaml has no match for {pattern}")
    return template


if __name__ == "__main__":
    main()
