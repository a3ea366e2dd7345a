"""The client of Tavus' end endpoint: up to three attempts under one deadline, over one connection.

Tavus' page "End Deployment Conversation" documents the request, a 200 with `conversation_id` and `status`, and a 404.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - urllib3 would import it in the first call, when the processor is throttled
import logging
import re
import socket
import ssl
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import BadStatusLine, HTTPException
from typing import TYPE_CHECKING, Protocol

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.exceptions import SSLError as Urllib3SSLError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from end_conversation.conversation import Reason, Result, Status
from end_conversation.deadline import ThreadNotStarted, run_with_timeout
from end_conversation.decision import Answer, NoAnswer, decide, may_have_ended
from end_conversation.trust import failure_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from urllib3.response import HTTPResponse

    from end_conversation.conversation import Conversation
    from end_conversation.deadline import Clock, Deadline
    from end_conversation.settings import Origin
    from end_conversation.trust import Trust

MAX_ATTEMPTS = 3
MIN_ATTEMPT_SECONDS = 1
BACKOFF_SECONDS = 0.5
# The limit for connecting to one address. If one address is dead, the next is tried.
MAX_CONNECT_SECONDS = 2
CONNECT_SHARE = 1 / 4
MAX_IDLE_SECONDS = 3
MAX_BODY_BYTES = 64 * 1024


class Post(Protocol):
    """Sends one POST without a body. Returns within `seconds`, and raises nothing."""

    def __call__(self, path: str, seconds: float) -> Answer | NoAnswer: ...


class TavusClient:
    """Ends conversations at Tavus. The last attempt gets all the time that is left, and each other one gets half of it.

    No attempt begins with less than MIN_ATTEMPT_SECONDS of its own.
    """

    def __init__(self, post: Post, clock: Clock, jitter: Callable[[float, float], float]) -> None:
        self._post = post
        self._clock = clock
        self._jitter = jitter

    def end_conversation(self, conversation: Conversation, deadline: Deadline) -> Result:
        """Call Tavus until it gives a usable answer, or until no attempt or no time is left."""
        path = f"/v2/deployments/{conversation.deployment_id}/conversations/{conversation.conversation_id}/end"
        result = Result(
            Status.UNAVAILABLE, Reason.TAVUS_TIMEOUT, self._clock.now(), attempts=0, failure="no time was left"
        )
        wait = 0.0
        for attempt in range(1, MAX_ATTEMPTS + 1):
            if deadline.left_for_tavus() < wait + MIN_ATTEMPT_SECONDS:
                break
            self._clock.sleep(wait)
            seconds = deadline.left_for_tavus()
            if attempt < MAX_ATTEMPTS:
                seconds = max(seconds / 2, MIN_ATTEMPT_SECONDS)
            answer = self._post(path, seconds)
            result = self._result(answer, attempt, conversation, earlier_may_have_ended=result.may_have_ended)
            if result.status is not Status.UNAVAILABLE or (isinstance(answer, NoAnswer) and not answer.retryable):
                break
            # Full jitter, unless Tavus asks for a longer wait.
            wait = max(result.retry_after or 0, self._jitter(0, BACKOFF_SECONDS * 2 ** (attempt - 1)))
        return result

    def _result(
        self, answer: Answer | NoAnswer, attempts: int, conversation: Conversation, *, earlier_may_have_ended: bool
    ) -> Result:
        status, reason = decide(answer, conversation, earlier_may_have_ended=earlier_may_have_ended)
        now, any_may_have_ended = self._clock.now(), earlier_may_have_ended or may_have_ended(answer)
        if isinstance(answer, NoAnswer):
            return Result(status, reason, now, attempts, failure=answer.failure, may_have_ended=any_may_have_ended)
        result = Result(status, reason, now, attempts, answer.status_code, _request_id(answer))
        if status is not Status.UNAVAILABLE:
            return result
        return result._replace(
            failure=f"HTTP {answer.status_code}",
            retry_after=self._retry_after(answer),
            may_have_ended=any_may_have_ended,
        )

    def _retry_after(self, answer: Answer) -> float | None:
        """Seconds to wait, sent as seconds or as a date (RFC 9110, 10.2.3). None for junk and for past dates."""
        value = _header(answer, "Retry-After")
        if re.fullmatch("[0-9]+", value):
            return float(value)
        try:
            date = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - self._clock.now()).total_seconds()
        return seconds if seconds >= 0 else None


def _header(answer: Answer, name: str) -> str:
    # http.client keeps the white space after a value, which is not part of it (RFC 9110, 5.5).
    return answer.headers.get(name, "").strip(" \t")


def _request_id(answer: Answer) -> str | None:
    value = _header(answer, "X-Tavus-Request-Id")
    return value if re.fullmatch("[A-Za-z0-9-]{1,64}", value) else None


class TavusConnection:
    """Sends POSTs without a body to one HTTP origin, one at a time.

    A connection is reused only within MAX_IDLE_SECONDS: Lambda freezes sandboxes between invocations, and the
    connection may be closed meanwhile without notice.
    """

    def __init__(self, origin: Origin, headers: Mapping[str, str], trust: Trust, clock: Clock) -> None:
        self._origin = origin
        self._headers = headers
        self._trust = trust
        self._clock = clock
        self._kept: HTTPConnection | None = None
        self._idle_since = clock.now()
        # urllib3 quotes odd headers and the URL in its warnings. Neither may reach our log.
        logging.getLogger("urllib3").propagate = False

    def post(self, path: str, seconds: float) -> Answer | NoAnswer:
        """Send one POST and read the whole answer, within this many seconds."""
        attempt = _Attempt(self._connection(seconds), self._trust, seconds)
        try:
            # A worker thread is needed because a resolver can hang, and a server can send its answer byte by byte.
            answer = run_with_timeout(lambda: attempt.run(path, self._headers), seconds)
        except (OSError, HTTPException, HTTPError) as error:
            attempt.abandon()
            if isinstance(error, ThreadNotStarted):
                attempt.connection.close()  # otherwise, the worker thread closes it
            return _no_answer(error, sent=attempt.sent)
        if not attempt.connection.is_closed:
            self._kept, self._idle_since = attempt.connection, self._clock.now()
        return answer

    def _connection(self, seconds: float) -> HTTPConnection:
        kept, self._kept = self._kept, None
        if kept is not None:
            # By the date and not by the monotonic clock, which may stand still while the sandbox is frozen.
            idle = (self._clock.now() - self._idle_since).total_seconds()
            if 0 <= idle <= MAX_IDLE_SECONDS and kept.is_connected:
                return kept
            kept.close()
        # urllib3 gives each address of the host this long, and then as long again for the TLS handshake.
        timeout = min(seconds * CONNECT_SHARE, MAX_CONNECT_SECONDS)
        if self._origin.scheme == "http":
            return HTTPConnection(self._origin.host, self._origin.port, timeout=timeout)
        return HTTPSConnection(self._origin.host, self._origin.port, timeout=timeout, ssl_context=self._trust.tls)


class _Attempt:
    """One POST on one connection. A worker thread runs it, and the caller may abandon it at any moment."""

    def __init__(self, connection: HTTPConnection, trust: Trust, seconds: float) -> None:
        self.connection = connection
        self.sent = False
        self._trust = trust
        self._seconds = seconds
        self._abandoned = False
        self._socket: socket.socket | None = None

    def run(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Send the request and read the answer. Raises OSError, HTTPException or urllib3's HTTPError."""
        try:
            if self.connection.is_closed:
                self._trust.connect(self.connection.connect)
            self._begin_to_send()
            self.connection.request("POST", path, headers=headers, preload_content=False, decode_content=False)
            with self.connection.getresponse() as response:
                body = _read_body(response)
        except BaseException:
            self.connection.close()
            raise
        if body is None:
            self.connection.close()  # the rest of the answer was not read
        return Answer(response.status, response.headers, body)

    def _begin_to_send(self) -> None:
        self.connection.timeout = self._seconds
        # `abandon` sets its flag before it reads the socket, and this sets the socket before it reads the flag. So at
        # least one of them sees the other, and nothing is sent after `abandon`.
        self._socket = self.connection.sock
        if self._abandoned:
            raise TimeoutError
        self.sent = True

    def abandon(self) -> None:
        """Make the worker thread stop soon."""
        self._abandoned = True
        if self._socket is not None:
            # SSLSocket's own shutdown would make the worker read plain text.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def _no_answer(error: Exception, *, sent: bool) -> NoAnswer:
    # urllib3 derives refused connections and unknown names from its timeouts.
    timeout = isinstance(error, TimeoutError | Urllib3TimeoutError) and not isinstance(error, NewConnectionError)
    # A connection closed within the handshake is a reset like any other. Other TLS failures happen again.
    tls_failed = isinstance(error, ssl.SSLError | Urllib3SSLError) and not isinstance(error, ssl.SSLEOFError)
    return NoAnswer(
        Reason.TAVUS_TIMEOUT if timeout else Reason.TAVUS_UNREACHABLE,
        failure_name(error),
        sent=sent,
        retryable=not tls_failed,
    )


def _read_body(response: HTTPResponse) -> bytes | None:
    """Return the undecoded body, or None if it is larger than MAX_BODY_BYTES. Raises BadStatusLine."""
    if not 200 <= response.status <= 599:  # the final status codes (RFC 9110, 15)
        raise BadStatusLine(str(response.status))
    body = bytearray()
    # read1, because read loads everything for a chunk with a negative size.
    while chunk := response.read1(MAX_BODY_BYTES + 1 - len(body)):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)
