"""Builds the functions with `sam build`, if their inputs have changed."""

import hashlib
import os
from pathlib import Path

from local.console import step
from local.process import ROOT, run
from operations.package import digest_of_inputs, made

SAM = ROOT / ".venv-sam/bin/sam"
# Separate from .aws-sam/build, which `sam deploy` uploads.
BUILT = ROOT / ".aws-sam/local"


def build() -> Path:
    """Build the functions if their inputs have changed. Returns the built template. Raises ProcessFailed."""
    with made(BUILT, _digest, _sam_build):
        return BUILT / "template.yaml"


def _digest() -> str:
    digest = hashlib.sha256(digest_of_inputs().encode())
    for name in ("Makefile", "samconfig.toml", "template.yaml", "uv.lock"):  # uv.lock pins sam
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def _sam_build(folder: Path) -> None:
    # The build downloads packages, so it keeps this machine's proxies and certificates, but no settings of AWS, make,
    # Python or sam.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MAKE", "PYTHON", "SAM_CLI_"))
    }
    environment |= {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "SAM_CLI_TELEMETRY": "0",
        "__SAM_CLI_APP_DIR": str(ROOT / ".aws-sam/cli"),
    }
    with step("Building the functions with sam build"):
        run([SAM, "build", "--build-dir", folder], environment)
