"""Finishes what `sam build` built: trimmed, held against the pinned hashes, and given byte code.

sam lets pip check hashes only when it builds for the machine's own processor. So the wheels for the functions'
processor are fetched once more with hashes required, and every file built must be one of theirs, trimmed likewise, or
of src/.
Exits 0 where that is so, 1 where it is not or the wheels can't be had.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from zipfile import ZipFile

from operations.trim import trim

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent
BUILT = ROOT / ".aws-sam/build"
CODE_ON_LAMBDA = "/var/task"  # what byte code names, so that it is the same wherever it was built
# What the runtime's Amazon Linux 2023 (glibc 2.34) takes, newest first.
PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux2014")


def main(arguments: Sequence[str] | None = None) -> None:
    """Finish each function of the last `sam build`, and exit as the module says."""
    parser = argparse.ArgumentParser(prog="build", description="Check what sam build built, and add byte code.")
    parser.add_argument("--architecture", choices=["arm64", "x86_64"], required=True, help="what it was built for")
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        wheels = Path(folder)
        if not fetch(wheels, options.architecture):
            parser.exit(1, "The wheels that requirements.txt pins can't be had.\n")
        for tree in functions(BUILT) or parser.exit(1, "There is no build: run sam build first.\n"):
            trim(tree)
            if found := differences(tree, wheels):
                parser.exit(1, "\n".join([f"{tree.name} is not what requirements.txt and src/ make:", *found, ""]))
            add_byte_code(tree)
            print(f"{tree.name}: every file is pinned or ours, and has its byte code.")


def functions(built: Path) -> list[Path]:
    """The folders that are each a function's code."""
    return sorted(entry.parent for entry in built.glob("*/end_conversation"))


def fetch(folder: Path, architecture: str) -> bool:
    """Download the pinned wheels for a processor, each hash checked. False where pip could not."""
    processor = "aarch64" if architecture == "arm64" else architecture
    platforms = [option for name in PLATFORMS for option in ("--platform", f"{name}_{processor}")]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    pinned = ["--require-hashes", "--only-binary", ":all:", "--requirement", str(ROOT / "requirements.txt")]
    wanted = ["--python-version", "3.13", *platforms, "--dest", str(folder)]
    return subprocess.run([*pip, *pinned, *wanted], check=False).returncode == 0


def differences(tree: Path, wheels: Path) -> list[str]:
    """What is missing, changed or too much in a function's code, by path; byte code is looked past."""
    with TemporaryDirectory() as folder:
        expected = Path(folder)
        shutil.copytree(ROOT / "src", expected, dirs_exist_ok=True)
        for wheel in wheels.glob("*.whl"):
            with ZipFile(wheel) as archive:
                archive.extractall(expected)
        trim(expected)
        return sorted({path for path, _ in _digests(expected) ^ _digests(tree)})


def add_byte_code(tree: Path) -> None:
    """Compile a function's code: Lambda can't keep byte code, and without any a cold start takes twice as long."""
    # Deploying changes the files' times, so byte code that goes by them would never be used.
    how = ["-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", CODE_ON_LAMBDA]
    subprocess.run([sys.executable, "-m", "compileall", *how, str(tree)], check=True)


def _digests(folder: Path) -> set[tuple[str, str]]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {(path.relative_to(folder).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files}


if __name__ == "__main__":
    main()
