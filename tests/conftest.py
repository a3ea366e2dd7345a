"""What test modules share: nobody's AWS account, a Tavus, and the stack deployed to a local AWS."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trustme

from local.process import AWS_CLIENT
from local.session import DEPLOYMENT_ID
from local.stack import Stack, deployed
from local.tavus import Tavus

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def nobodys_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test find the profile, credentials or settings of whoever runs it."""
    for name in os.environ:
        if name.startswith(("AWS_", "POWERTOOLS_")):
            monkeypatch.delenv(name)
    for name, value in AWS_CLIENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority that nobody trusts unless told."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of that authority's certificate alone."""
    bundle = str(tmp_path_factory.mktemp("trust") / "ca.pem")
    authority.cert_pem.write_to_path(bundle)
    return bundle


@pytest.fixture(scope="session")
def tavus() -> Iterator[Tavus]:
    """The stand-in of Tavus that the deployed stack asks."""
    with Tavus() as tavus:
        yield tavus


@pytest.fixture(scope="session")
def stack(tavus: Tavus) -> Iterator[Stack]:
    """The template, deployed once for all tests; sam build runs only when what it builds has changed."""
    with deployed(tavus.url, DEPLOYMENT_ID) as stack:
        yield stack
