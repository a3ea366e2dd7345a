"""The lock and what is exported from it."""

import os
from pathlib import Path

import pytest

from local.process import ROOT, run

UV = ROOT / ".venv-uv/bin/uv"


def test_the_lock_is_current() -> None:
    """It was made from pyproject.toml as it is now: run `make lock` if it was not."""
    run([UV, "lock", "--check", "--project", ROOT], os.environ)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("requirements.txt", ["--no-dev", "--no-emit-project"]),
        ("local/requirements-uv.txt", ["--only-group", "uv"]),
    ],
)
def test_the_exports_are_current(name: str, options: list[str], tmp_path: Path) -> None:
    """They have the lock's versions and hashes: run `make lock` if they do not."""
    exported = tmp_path / "exported"
    run([UV, "export", "--frozen", "--no-header", *options, "--project", ROOT, "--output-file", exported], os.environ)
    written = (ROOT / name).read_text().splitlines(keepends=True)
    assert "".join(line for line in written if not line.startswith("#")) == exported.read_text()
