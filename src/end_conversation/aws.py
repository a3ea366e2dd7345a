"""One call to AWS: bounded in time, made once more where that can help, its failure told by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.config import Config
from botocore.exceptions import ClientError

from end_conversation.deadline import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from end_conversation.deadline import Clock

# One layer retries, and it is ours. The timeouts end what a caller gave up.
CONFIG = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1, "mode": "standard"})
PAUSE_SECONDS = 0.2

# AWS' own words for "try again", in an error and in an entry that PutEvents refused.
_MAY_PASS = {
    "InternalException",
    "InternalFailure",
    "InternalServerError",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}


class AwsRefused(Exception):
    """AWS did not do what it was asked. Its text is the kind of the failure, never AWS' own."""

    def __init__(self, kind: str, *, may_pass: bool | None = None) -> None:
        super().__init__(kind)
        self.may_pass = kind in _MAY_PASS if may_pass is None else may_pass


def ask[T](work: Callable[[], T], seconds: float, clock: Clock) -> T:
    """What `work` returns, at the first try or a second, all within so many seconds. Raises AwsRefused.

    The second try is for what AWS calls passing, and for a kept connection that died while the sandbox was frozen.
    """
    over = clock.monotonic() + seconds
    try:
        return _ask_once(work, seconds / 2)
    except AwsRefused as refused:
        if not refused.may_pass:
            raise
    clock.sleep(min(PAUSE_SECONDS, seconds / 10))
    return _ask_once(work, over - clock.monotonic())


def _ask_once[T](work: Callable[[], T], seconds: float) -> T:
    try:
        return within(max(seconds, 0), work)
    except AwsRefused:
        raise
    except ClientError as error:
        code = error.response["Error"]["Code"]
        http_status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise AwsRefused(code, may_pass=True if http_status >= 500 else None) from None  # noqa: PLR2004 - server errors
    except Exception as error:  # noqa: BLE001 - on what is no answer of AWS', botocore's parser fails in any way
        raise AwsRefused(type(error).__name__, may_pass=True) from None
