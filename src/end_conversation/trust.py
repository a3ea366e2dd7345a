"""The certificate authorities (CAs) that connections to Tavus and to AWS trust."""

from __future__ import annotations

import ssl
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from urllib3.exceptions import SSLError as Urllib3SSLError

from end_conversation.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Callable

# The build writes botocore's CA certificates here, one file each, under the names that OpenSSL looks up. A handshake
# reads the one that it needs. Loading them all is a third of the cold start.
ROOTS = Path(__file__).parent / "roots"

# The chain ends before a trusted root (X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, …_SELF_SIGNED_CERT_IN_CHAIN,
# …_UNABLE_TO_GET_ISSUER_CERT_LOCALLY).
_UNKNOWN_ROOT = {2, 19, 20}


class Trust:
    """A TLS context for all connections. With `add_runtime_roots`, it gets the runtime's roots once they are needed."""

    def __init__(self, tls: ssl.SSLContext, *, add_runtime_roots: bool = False) -> None:
        self.tls = tls
        self._complete = not add_runtime_roots
        self._lock = Lock()

    def connect[T](self, connect: Callable[[], T]) -> T:
        """Call `connect`, which opens a connection with the TLS context. Raises what it raises.

        If the server's root is unknown, `connect` is called once more with the runtime's roots. Nothing was sent then.
        """
        complete = self._complete
        try:
            return connect()
        except (ssl.SSLError, Urllib3SSLError) as error:
            if complete or not _is_unknown_root(error):
                raise
        with self._lock:  # an abandoned attempt may do the same at this moment
            if not self._complete:
                self.tls.load_default_certs()
                self._complete = True
        return connect()


def create_trust(variable: str, ca_bundle: str | None) -> Trust:
    """Trust the CA bundle that the environment variable names, or else the usual CAs. Raises InvalidSetting.

    The usual CAs are those of the build, and the runtime's where they are needed.
    """
    roots = ROOTS if ca_bundle is None and ROOTS.is_dir() else None  # there are none without a build
    try:
        tls = ssl.create_default_context(cafile=ca_bundle, capath=roots)
    except OSError as error:
        if error.filename is not None:  # ssl names the file only where it opens SSLKEYLOGFILE
            raise InvalidSetting("SSLKEYLOGFILE must be unset, or name a file that can be written") from None
        tls = None
    # For an empty name, ssl loads its defaults instead, and OpenSSL loads nothing.
    if tls is None or (ca_bundle is not None and (not ca_bundle or tls.cert_store_stats()["x509"] == 0)):
        raise InvalidSetting(f"{variable} must be unset, or name a file of CA certificates")
    return Trust(tls, add_runtime_roots=roots is not None)


def _is_unknown_root(error: Exception) -> bool:
    # A pool of urllib3 raises its own SSLError around ssl's.
    cause = error.args[0] if isinstance(error, Urllib3SSLError) else error
    return isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _UNKNOWN_ROOT
