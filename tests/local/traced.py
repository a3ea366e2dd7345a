"""The handler of a sampled call. Lambda's emulator passes no trace header on, so this sets it as the runtime would."""

import os
from typing import Any

TRACE_ID = "1-6b034d08-c8f4af6151bd0505b5d504cc"


def handler(event: dict[str, Any], context: Any) -> Any:
    """Call the function's own handler with a trace."""
    from end_conversation.handler import handler as own  # noqa: PLC0415 - the tests import this module outside Lambda

    os.environ["_X_AMZN_TRACE_ID"] = f"Root={TRACE_ID};Parent=53995c3f42cd8ad8;Sampled=1"
    return own(event, context)
