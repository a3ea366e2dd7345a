"""Progress on the console."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print the name of a step, and at the end how long it took."""
    start = time.monotonic()
    print(f"  {what} ...", end="", flush=True)
    try:
        yield
    except Exception:
        print(" failed")
        raise
    print(f" {time.monotonic() - start:.1f} s")
