"""Builds the functions with `sam build` for this machine's processor, if their inputs have changed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
from typing import TYPE_CHECKING

from local.console import step
from local.process import ROOT, run

if TYPE_CHECKING:
    from pathlib import Path

SAM = ROOT / ".venv-sam/bin/sam"
ARCHITECTURE = "arm64" if platform.machine().lower() in {"arm64", "aarch64"} else "x86_64"
# Separate from .aws-sam/build, which `sam deploy` uploads.
BUILT = ROOT / ".aws-sam/local"

_CACHE = ROOT / ".aws-sam"
_STAMP = BUILT / "built-from"
_INPUTS = (
    "Makefile",
    "local/requirements-uv.txt",
    "operations/package.py",
    "operations/roots.py",
    "operations/trim.py",
    "requirements.txt",
    "samconfig.toml",
    "template.yaml",
    "uv.lock",  # pins sam
)


def build() -> Path:
    """Build the functions if their inputs have changed. Returns the built template. Raises ProcessFailed."""
    _CACHE.mkdir(exist_ok=True)
    with (_CACHE / "local.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = _digest()
        if not _STAMP.exists() or _STAMP.read_text() != digest:
            with step("Building the functions with sam build"):
                _sam_build()
            _STAMP.write_text(digest)
    return BUILT / "template.yaml"


def _digest() -> str:
    """A hash of everything that the build uses."""
    digest = hashlib.sha256(ARCHITECTURE.encode())
    sources = sorted(path for path in (ROOT / "src").rglob("*") if path.is_file() and path.suffix != ".pyc")
    for path in [*(ROOT / name for name in _INPUTS), *sources]:
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _sam_build() -> None:
    # The build downloads packages, so it keeps this machine's proxies and certificates, but no settings of AWS, make,
    # Python or sam.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MAKE", "PYTHON", "SAM_CLI_"))
    }
    environment |= {
        "ARCHITECTURE": ARCHITECTURE,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "SAM_CLI_TELEMETRY": "0",
        "__SAM_CLI_APP_DIR": str(_CACHE / "cli"),
    }
    run([SAM, "build", "--build-dir", BUILT, "--parameter-overrides", f"Architecture={ARCHITECTURE}"], environment)
