"""The Lambda entry point. It builds its parts during the cold start, when Lambda does not throttle the processor."""

import gc

# Nearly all objects of the cold start stay, so looking for garbage among them is wasted, then and later.
gc.disable()

import os  # noqa: E402 - the imports make most of the objects

from end_conversation.bootstrap import bootstrap  # noqa: E402

handler = bootstrap(os.environ)

gc.freeze()
gc.enable()
