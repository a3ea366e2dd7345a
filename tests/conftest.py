"""Fixtures for all tests: no test uses the developer's AWS settings."""

from __future__ import annotations

import os

import pytest

from local.process import AWS_CLIENT


@pytest.fixture(autouse=True)
def no_aws_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the profile, the credentials and the settings of this shell."""
    for name in os.environ:
        if name.startswith(("AWS_", "POWERTOOLS_", "SSL", "LOG_LEVEL")):
            monkeypatch.delenv(name)
    for name, value in AWS_CLIENT.items():
        monkeypatch.setenv(name, value)
