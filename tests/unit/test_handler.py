"""The Lambda entry point."""

import gc
from collections.abc import Iterator
from importlib import import_module, reload
from unittest.mock import Mock

import pytest


@pytest.fixture(autouse=True)
def _unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_the_garbage_collector_is_off_during_the_cold_start_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """It then leaves the objects of the cold start alone."""
    monkeypatch.setenv("ALLOWED_DEPLOYMENT_IDS", "d1")
    module = import_module("end_conversation.handler")
    gc.unfreeze()
    was_enabled: list[bool] = []
    monkeypatch.setattr(
        "end_conversation.bootstrap.bootstrap", Mock(side_effect=lambda _: was_enabled.append(gc.isenabled()))
    )

    reload(module)

    assert was_enabled == [False]
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
