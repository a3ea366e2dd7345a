"""Makes the files of a release, which deploy without a build.

They are a zip of the functions' code, a template that uses it, the list of packages (SBOM) and the checksums of all
files. The same commit and Python give the same bytes.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from operations.package import ROOT, UV, packaged

RELEASES = ROOT / ".aws-sam/release"
SUMS = "SHA256SUMS"
READABLE_FILE = 0o100644 << 16


def main() -> None:
    """Make the release whose version the first argument repeats."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if sys.argv[1:] != [version]:
        sys.exit(f"VERSION must be the version in pyproject.toml: make release VERSION={version}")
    try:
        folder = release(version)
    except subprocess.CalledProcessError as error:
        sys.exit(f"Not built: {Path(error.cmd[0]).name} failed. See its output above.")
    print(f"{(folder / SUMS).read_text()}\nThe release is in {folder.relative_to(ROOT)}.")


def release(version: str) -> Path:
    """Make the folder of a version anew. Raises CalledProcessError if a package can't be downloaded."""
    folder, name = RELEASES / version, f"end-conversation-{version}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with packaged() as code:
        zip_folder(code, folder / f"{name}.zip")
    template = (ROOT / "template.yaml").read_text()
    (folder / f"{name}.yaml").write_text(release_template(template, version, f"{name}.zip"))
    (folder / f"{name}.cdx.json").write_text(list_packages())
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


def release_template(template: str, version: str, code: str) -> str:
    """Return the template for one zip. Raises ValueError if template.yaml has changed its form."""
    changes = {
        r"(\nDescription: .+)\n": rf"\1 Version {version}.\n",
        # The AWS CLI uploads what each function names, and ignores Globals.
        r"    CodeUri: src/\n": "",
        r"    Metadata: \{BuildMethod: .+\}\n    Properties:\n": f"    Properties:\n      CodeUri: {code}\n",
    }
    for pattern, new in changes.items():
        template, count = re.subn(pattern, new, template)
        if not count:
            raise ValueError(f"template.yaml has no match for {pattern}")
    return template


def list_packages() -> str:
    """The packages of requirements.txt in CycloneDX format. Raises CalledProcessError."""
    options = ["--frozen", "--quiet", "--no-dev", "--format", "cyclonedx1.5"]
    done = subprocess.run([UV, "export", *options], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    listed = json.loads(done.stdout)
    listed["metadata"]["component"]["type"] = "application"  # uv lists every project as a library
    del listed["serialNumber"], listed["metadata"]["timestamp"]  # which would differ each time
    return json.dumps(listed, indent=2) + "\n"


if __name__ == "__main__":
    main()
