"""Progress on the console."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

_DOT_SECONDS = 2


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print the name of a step, a dot every two seconds, and at the end how long it took."""
    start = time.monotonic()
    over = Event()

    def dots() -> None:
        while not over.wait(_DOT_SECONDS):
            print(".", end="", flush=True)

    print(f"  {what} ", end="", flush=True)
    thread = Thread(target=dots, daemon=True)
    thread.start()
    try:
        yield
    except Exception:
        print(" failed")
        raise
    finally:
        over.set()
        thread.join()
    print(f" {time.monotonic() - start:.1f} s")
