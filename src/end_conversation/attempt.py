"""One attempt at Tavus: a POST in its share of the time, over a connection fresh enough, its failure told apart."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - urllib3 would load it in the first call, on a slice of a processor
import logging
import ssl
from http.client import HTTPException
from typing import TYPE_CHECKING

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.exceptions import SSLError as Urllib3SSLError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from end_conversation.deadline import within
from end_conversation.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Mapping

    from end_conversation.deadline import Clock
    from end_conversation.exchange import Answer
    from end_conversation.settings import Origin

MAX_IDLE_SECONDS = 3


class NoAnswer(Exception):
    """There was no whole answer. Keeps the kind of the cause and drops its text, which can quote the server."""

    def __init__(self, kind: str, *, timeout: bool, sent: bool, untrusted: bool = False) -> None:
        super().__init__(kind)
        self.kind = kind
        self.timeout = timeout
        self.sent = sent
        self.untrusted = untrusted


class Endpoint:
    """An HTTP origin that takes POSTs without a body, one at a time.

    A connection is kept for the next POST while it has idled MAX_IDLE_SECONDS at most: a Lambda sandbox is frozen
    between invocations, and its connections die unseen.
    """

    def __init__(self, origin: Origin, headers: Mapping[str, str], tls: ssl.SSLContext, clock: Clock) -> None:
        self._origin = origin
        self._headers = headers
        self._clock = clock
        self._tls = tls if origin.scheme == "https" else None
        self._kept: HTTPConnection | None = None
        self._idle_since = clock.now()
        # urllib3 warns of odd headers by quoting them and the URL: neither may reach our log.
        logging.getLogger("urllib3").propagate = False

    def post(self, path: str, seconds: float) -> Answer:
        """Tavus' answer, whole and within so many seconds. Raises NoAnswer; after that nothing more is sent."""
        exchange = Exchange(self._connection(seconds), self._tls)
        try:
            answer = within(seconds, lambda: exchange.run(path, self._headers))
        except (OSError, HTTPException, HTTPError) as error:
            # Among urllib3's timeouts are refused connections and names that can't be resolved.
            refused = isinstance(error, NewConnectionError)
            timeout = isinstance(error, TimeoutError | Urllib3TimeoutError) and not refused
            # An EOF inside the handshake is a reset like any other; trust that fails will fail again.
            untrusted = isinstance(error, ssl.SSLError | Urllib3SSLError) and not isinstance(error, ssl.SSLEOFError)
            sent = exchange.give_up()
            raise NoAnswer(type(error).__name__, timeout=timeout, sent=sent, untrusted=untrusted) from None
        if not exchange.connection.is_closed:
            self._kept, self._idle_since = exchange.connection, self._clock.now()
        return answer

    def _connection(self, seconds: float) -> HTTPConnection:
        kept, self._kept = self._kept, None
        if kept is not None:
            # The wall clock, which goes on while the sandbox is frozen.
            idle = (self._clock.now() - self._idle_since).total_seconds()
            if 0 <= idle <= MAX_IDLE_SECONDS and kept.is_connected:
                kept.timeout = seconds
                return kept
            kept.close()
        # HTTPSConnection for its default port in Host; the exchange does the TLS.
        kind = HTTPConnection if self._tls is None else HTTPSConnection
        return kind(self._origin.host, self._origin.port, timeout=seconds)
