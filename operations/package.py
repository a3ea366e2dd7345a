"""Makes the code of the functions, which is the same for all three, and for both processors.

It holds the packages that requirements.txt pins, without unused data; our own package; the CA certificates to trust;
and byte code. `sam build` runs this for each function, through the Makefile's build-%: the first makes the code, the
others copy it.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from operations.roots import split_roots
from operations.trim import trim

ROOT = Path(__file__).parent.parent
UV = ROOT / ".venv-uv/bin/uv"
LICENCE, REQUIREMENTS = ROOT / "LICENSE", ROOT / "requirements.txt"
PLATFORM = "x86_64-manylinux_2_34"  # every machine installs its wheels, so that all builds are the same
CODE_ON_LAMBDA = "/var/task"  # the byte code names this path instead of a folder of the building machine
CODE = ROOT / ".aws-sam/package/code"


def main() -> None:
    """Fill the folder that the first argument names."""
    try:
        with packaged() as code:
            shutil.copytree(code, sys.argv[1], dirs_exist_ok=True)
    except subprocess.CalledProcessError as error:
        sys.exit(f"Not built: {Path(error.cmd[0]).name} failed. See its output above.")


def packaged() -> AbstractContextManager[Path]:
    """Yield the functions' code, made anew if its inputs have changed. Raises CalledProcessError."""
    return made(CODE, digest_of_inputs, package)


@contextmanager
def made(folder: Path, digest: Callable[[], str], make: Callable[[Path], None]) -> Iterator[Path]:
    """Yield a folder that `make` fills, anew if the digest of its inputs has changed. Other processes wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp, current = folder.with_name(f"{folder.name}.built-from"), digest()
        if not folder.exists() or not stamp.exists() or stamp.read_text() != current:
            stamp.unlink(missing_ok=True)  # an interrupted build leaves nothing to trust
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            stamp.write_text(current)
        yield folder


def digest_of_inputs() -> str:
    """A hash of everything that the functions' code depends on."""
    digest = hashlib.sha256(sys.version.encode())
    sources = [path for name in ("src", "operations") for path in (ROOT / name).rglob("*") if path.is_file()]
    for path in [LICENCE, REQUIREMENTS, *sorted(sources)]:
        if path.suffix != ".pyc":
            digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def package(folder: Path) -> None:
    """Fill a new folder. Raises CalledProcessError if a package can't be downloaded or code does not compile."""
    install(folder, REQUIREMENTS, "--python-platform", PLATFORM)
    trim(folder)
    ours = folder / "end_conversation"
    shutil.copytree(ROOT / "src/end_conversation", ours, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(LICENCE, ours)
    split_roots(folder)
    add_byte_code(folder)


def install(folder: Path, requirements: Path, *options: str) -> None:
    """Install what a file pins, by its hashes. Raises CalledProcessError."""
    # Copies, not links into uv's cache: what is trimmed here must stay whole there.
    options += ("--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--link-mode", "copy")
    options += ("--no-compile-bytecode", "--python-version", "3.13")
    options += ("--target", str(folder), "--requirement", str(requirements))
    # Not in the project's folder: its exclude-newer refuses the packages of an index without upload dates.
    subprocess.run([UV, "pip", "install", *options], cwd="/", env=os.environ | {"UV_SYSTEM_CERTS": "1"}, check=True)
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
