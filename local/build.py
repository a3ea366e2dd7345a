"""The functions, built for this machine's processor by `sam build`, and again only when what goes into them changed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
from typing import TYPE_CHECKING

from local.console import step
from local.process import ROOT, run
from operations.build import add_byte_code, functions
from operations.trim import trim

if TYPE_CHECKING:
    from pathlib import Path

SAM = ROOT / ".venv-sam/bin/sam"
ARCHITECTURE = "arm64" if platform.machine().lower() in {"arm64", "aarch64"} else "x86_64"
# Apart from .aws-sam/build, which is what the next `sam deploy` sends to AWS.
BUILT = ROOT / ".aws-sam/local"

_CACHE = ROOT / ".aws-sam"
_STAMP = BUILT / "built-from"
_INPUTS = (
    "requirements.txt",
    "samconfig.toml",
    "template.yaml",
    "local/requirements-sam.txt",
    "operations/build.py",
    "operations/trim.py",
)


def build() -> Path:
    """Build what is not built yet. Returns the built template. Raises ProcessFailed."""
    _CACHE.mkdir(exist_ok=True)
    with (_CACHE / "local.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = _digest()
        if not _STAMP.exists() or _STAMP.read_text() != digest:
            with step("Building the functions with sam build"):
                _sam_build()
                for function in functions(BUILT):
                    trim(function)
                    add_byte_code(function)
            _STAMP.write_text(digest)
    return BUILT / "template.yaml"


def _digest() -> str:
    """A name for all that the build is made from."""
    digest = hashlib.sha256(ARCHITECTURE.encode())
    sources = sorted(path for path in (ROOT / "src").rglob("*") if path.is_file() and path.suffix != ".pyc")
    for path in [*(ROOT / name for name in _INPUTS), *sources]:
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _sam_build() -> None:
    # pip downloads here, so the machine's own proxies, certificates and pip settings stay; the rest goes.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "PYTHON", "SAM_CLI_")) and name != "VIRTUAL_ENV"
    }
    environment |= {
        "PATH": f"{SAM.parent}{os.pathsep}{os.environ['PATH']}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "SAM_CLI_TELEMETRY": "0",
        "__SAM_CLI_APP_DIR": str(_CACHE / "cli"),
    }
    run(
        [SAM, "build", "--build-dir", BUILT, "--parameter-overrides", f"Architecture={ARCHITECTURE}"],
        environment,
    )
