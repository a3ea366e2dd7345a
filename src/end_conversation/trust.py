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

# The build writes Mozilla's CA certificates here, one file each, under the names that OpenSSL looks up. A handshake
# reads the one that it needs. Loading them all is a third of the cold start.
ROOTS = Path(__file__).parent / "roots"

# The certificate is valid, but for another host (X509_V_ERR_HOSTNAME_MISMATCH, …_IP_ADDRESS_MISMATCH).
_WRONG_HOST = {62, 64}


class Trust:
    """A TLS context for all connections.

    With `add_runtime_roots`, it loads the runtime's roots when a server cannot be verified without them.
    """

    def __init__(self, tls: ssl.SSLContext, *, add_runtime_roots: bool = False) -> None:
        self.tls = tls
        self._complete = not add_runtime_roots
        self._lock = Lock()

    def connect[T](self, connect: Callable[[], T]) -> T:
        """Call `connect`, which opens a connection with the TLS context. Raises what it raises.

        If the roots of the build cannot verify the server, `connect` is called once more with the runtime's roots.
        Nothing was sent then.
        """
        complete = self._complete  # read before, because another attempt may load them meanwhile
        try:
            return connect()
        except (ssl.SSLError, Urllib3SSLError) as error:
            if complete or not _may_have_another_root(error):
                raise
        with self._lock:  # an abandoned attempt may do the same at this moment
            if not self._complete:
                self.tls.load_default_certs()
                self._complete = True
        return connect()


def create_trust(variable: str, ca_bundle: str | None) -> Trust:
    """Trust the CA bundle that the environment variable names, or else the usual CAs. Raises InvalidSetting.

    The usual CAs are those of the build, and the runtime's where they are needed. A company's own CA is checked as
    boto3 checks it: Python 3.13 is stricter by default, and refuses the CAs of many companies (python/cpython#138193).
    """
    roots = ROOTS if ca_bundle is None and ROOTS.is_dir() else None  # there are none without a build
    try:
        tls = ssl.create_default_context(cafile=ca_bundle, capath=roots)
    except OSError as error:
        if error.filename is not None:  # ssl names the file only where it opens SSLKEYLOGFILE
            raise InvalidSetting("SSLKEYLOGFILE must be unset, or name a file that can be written") from None
        tls = None
    # For an empty name, ssl would trust its default CAs instead. A file can also have no certificate.
    if tls is None or (ca_bundle is not None and (not ca_bundle or tls.cert_store_stats()["x509"] == 0)):
        raise InvalidSetting(f"{variable} must be unset, or name a file of CA certificates")
    if ca_bundle is not None:
        tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return Trust(tls, add_runtime_roots=roots is not None)


def failure_name(error: Exception) -> str:
    """Name a failed connection by its class and, for TLS, by the reason from OpenSSL's own list. Quotes no server."""
    cause = _cause(error)
    name = type(cause).__name__
    match cause:
        case ssl.SSLCertVerificationError(verify_message=str(text)):
            return f"{name}: {text.partition(',')[0]}"  # the name of the host that was asked follows a comma
        case ssl.SSLError(reason=str(reason)):
            return f"{name}: {reason}"
    return name


def _may_have_another_root(error: Exception) -> bool:
    # An expired cross-signature, for example, is reported as an expired certificate.
    cause = _cause(error)
    return isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code not in _WRONG_HOST


def _cause(error: Exception) -> Exception:
    # A pool of urllib3 raises its own SSLError around ssl's.
    inner = error.args[0] if isinstance(error, Urllib3SSLError) and error.args else error
    return inner if isinstance(inner, Exception) else error
