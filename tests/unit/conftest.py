"""Fixtures of the unit tests, which use no network except the loopback interface."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import trustme

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority that no system trusts."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a file with that authority's certificate only."""
    bundle = str(tmp_path_factory.mktemp("trust") / "ca.pem")
    authority.cert_pem.write_to_path(bundle)
    return bundle


@pytest.fixture
def _in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process have another time zone than UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture(autouse=True)
def _small_ca_bundle(no_aws_account: None, ca_bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OpenSSL load one certificate by default. The system's bundle takes 15 ms, and most tests load it."""
    monkeypatch.setenv("SSL_CERT_FILE", ca_bundle)
