"""Makes the code of one function, in the folder that `sam build` names.

It holds the packages that requirements.txt pins, without unused data; our own package; the CA certificates to trust;
and byte code.
The Makefile's build-% runs this for each function.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from operations.roots import split_roots
from operations.samconfig import saved_architecture
from operations.trim import trim

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent
UV = ROOT / ".venv-uv/bin/uv"
CODE_ON_LAMBDA = "/var/task"  # what byte code names, so that it is the same wherever it was built
# The newest wheels that glibc 2.34 runs, which the runtime's Amazon Linux 2023 has.
PLATFORMS = {"arm64": "aarch64-manylinux_2_34", "x86_64": "x86_64-manylinux_2_34"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill a folder, or check it. Exits 0 on success."""
    parser = argparse.ArgumentParser(prog="package", description="Make the code of a function.")
    parser.add_argument("folder", type=Path, help="where to put it")
    parser.add_argument("--architecture", choices=PLATFORMS, help="the processor (as in samconfig.toml, or arm64)")
    parser.add_argument("--check", action="store_true", help="only check that it was made for that processor")
    options = parser.parse_args(arguments)
    architecture = options.architecture or saved_architecture()
    if options.check:
        if not made_for(options.folder, architecture):
            sys.exit(
                f"The stack's Architecture is {architecture}, but its code was built for another processor: it "
                "runs, but starts slower. Run make deploy again, without ARCHITECTURE."
            )
        return
    try:
        package(options.folder, ROOT / "requirements.txt", architecture)
    except subprocess.CalledProcessError as error:
        sys.exit(f"Not built: {Path(error.cmd[0]).name} failed. See its output above.")


def made_for(folder: Path, architecture: str) -> bool:
    """Whether the compiled extensions in a folder are for this processor."""
    processor = PLATFORMS[architecture].partition("-")[0]
    return all(processor in path.name for path in folder.rglob("*.so"))


def package(folder: Path, requirements: Path, architecture: str) -> None:
    """Fill an empty folder. Raises CalledProcessError if a package can't be downloaded or code does not compile."""
    install(folder, requirements, architecture)
    trim(folder)
    shutil.copytree(
        ROOT / "src/end_conversation", folder / "end_conversation", ignore=shutil.ignore_patterns("__pycache__")
    )
    split_roots(folder)
    add_byte_code(folder)


def install(folder: Path, requirements: Path, architecture: str) -> None:
    """Install what a file pins, for the given processor. Raises CalledProcessError."""
    # Copies, not links into uv's cache: what is trimmed here must stay whole there.
    options = ["--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--link-mode", "copy"]
    options += ["--no-compile-bytecode", "--python-version", "3.13", "--python-platform", PLATFORMS[architecture]]
    subprocess.run([UV, "pip", "install", *options, "--target", folder, "--requirement", requirements], check=True)
    # Commands are never run on Lambda, and name the interpreter of the machine that built them.
    shutil.rmtree(folder / "bin", ignore_errors=True)
    for record in folder.glob("*.dist-info/RECORD"):
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if not line.startswith("bin/")))
    (folder / ".lock").unlink(missing_ok=True)  # uv's own


def add_byte_code(folder: Path) -> None:
    """Compile a function's code, or raise CalledProcessError.

    Lambda's code folder can't be written to, and without byte code a cold start takes twice as long.
    """
    # Deploying changes the files' times, so byte code that is checked against them would never be used.
    options = ["-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", str(folder), "-p", CODE_ON_LAMBDA]
    subprocess.run([sys.executable, "-m", "compileall", *options, str(folder)], check=True)


if __name__ == "__main__":
    main()
