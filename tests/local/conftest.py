"""Fixtures of the tests that run real parts: the stand-in for Tavus, and the stack deployed to a local AWS."""

from collections.abc import Iterator

import pytest

from local.session import DEPLOYMENT_ID
from local.stack import Stack, deployed
from local.subscriber import Subscriber
from local.tavus import Tavus


@pytest.fixture(scope="session")
def tavus() -> Iterator[Tavus]:
    """The stand-in for Tavus that the deployed stack calls."""
    with Tavus() as tavus:
        yield tavus


@pytest.fixture(scope="session")
def stack(tavus: Tavus) -> Iterator[Stack]:
    """The template, deployed once for all tests."""
    with deployed(tavus.url, DEPLOYMENT_ID) as stack:
        yield stack


@pytest.fixture(scope="module")
def subscriber(stack: Stack) -> Subscriber:
    """A consumer of all results from now on."""
    return Subscriber(stack)
