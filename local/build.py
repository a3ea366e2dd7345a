"""Builds the functions with `sam build`, if their inputs have changed."""

from __future__ import annotations

import fcntl
import hashlib
import os
from typing import TYPE_CHECKING

from local.console import step
from local.process import ROOT, run
from operations.package import digest_of_inputs

if TYPE_CHECKING:
    from pathlib import Path

SAM = ROOT / ".venv-sam/bin/sam"
# Separate from .aws-sam/build, which `sam deploy` uploads.
BUILT = ROOT / ".aws-sam/local"

_CACHE = ROOT / ".aws-sam"
_STAMP = BUILT / "built-from"


def build() -> Path:
    """Build the functions if their inputs have changed. Returns the built template. Raises ProcessFailed."""
    _CACHE.mkdir(exist_ok=True)
    with (_CACHE / "local.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = hashlib.sha256(digest_of_inputs().encode())
        for name in ("Makefile", "samconfig.toml", "template.yaml", "uv.lock"):  # uv.lock pins sam
            digest.update((ROOT / name).read_bytes())
        if not _STAMP.exists() or _STAMP.read_text() != digest.hexdigest():
            with step("Building the functions with sam build"):
                _STAMP.unlink(missing_ok=True)  # an interrupted build leaves nothing to trust
                _sam_build()
            _STAMP.write_text(digest.hexdigest())
    return BUILT / "template.yaml"


def _sam_build() -> None:
    # The build downloads packages, so it keeps this machine's proxies and certificates, but no settings of AWS, make,
    # Python or sam.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MAKE", "PYTHON", "SAM_CLI_"))
    }
    environment |= {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "SAM_CLI_TELEMETRY": "0",
        "__SAM_CLI_APP_DIR": str(_CACHE / "cli"),
    }
    run([SAM, "build", "--build-dir", BUILT], environment)
