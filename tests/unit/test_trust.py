"""Which servers get a request: the certificate authorities of the build, of the runtime and of a named bundle."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from urllib3.exceptions import SSLError

from end_conversation import trust as trust_module
from end_conversation.aws.client import call_with_retry
from end_conversation.deadline import Clock, Deadline
from end_conversation.decision import NoAnswer
from end_conversation.errors import AwsCallFailed
from end_conversation.settings import Origin
from end_conversation.tavus import TavusConnection
from end_conversation.trust import Trust, create_trust
from operations.roots import add_roots
from tests.unit.fakes import create_client
from tests.unit.fault_server import FaultServer, answer, serving_tls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    type Ask = Callable[[str, Trust], bool]

IS_CA = x509.BasicConstraints(ca=True, path_length=None)
OVER = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the build, without certificates."""
    folder = tmp_path / "roots"
    folder.mkdir()
    monkeypatch.setattr(trust_module, "ROOTS", folder)
    return folder


@pytest.fixture
def built(roots: Path) -> trustme.CA:
    """An authority whose root is in that folder."""
    add(roots, authority := trustme.CA())
    return authority


@pytest.fixture
def runtime_loads(monkeypatch: pytest.MonkeyPatch) -> list[ssl.SSLContext]:
    """The contexts that the runtime's roots were added to."""
    loads: list[ssl.SSLContext] = []
    load = ssl.SSLContext.load_default_certs

    def counted(context: ssl.SSLContext, *arguments: Any) -> None:
        loads.append(context)
        load(context, *arguments)

    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", counted)
    return loads


def ask_tavus(url: str, trust: Trust) -> bool:
    return not isinstance(TavusConnection(Origin.parse(url), {}, trust, Clock()).post("/", 5), NoAnswer)


def ask_aws(url: str, trust: Trust) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        client = create_client("events", trust)
    try:
        client.put_events(Entries=[{"Source": "s"}])
    except SSLError:
        return False
    return True


@pytest.fixture(params=[ask_tavus, ask_aws])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Sends a request to a server, and tells whether there was an answer."""
    asking: Ask = request.param
    return asking


def server_of(authority: trustme.CA, host: str = "127.0.0.1", valid_until: datetime | None = None) -> FaultServer:
    return FaultServer(answer(200, b"{}"), tls=serving_tls(authority, host, valid_until))


def add(roots: Path, authority: trustme.CA) -> None:
    add_roots(roots, authority.cert_pem.bytes().decode())


# In these tests, `authority` is the only root of the runtime: conftest.py names its bundle to OpenSSL.


def test_roots_of_the_build_come_first(ask: Ask, built: trustme.CA, runtime_loads: list[ssl.SSLContext]) -> None:
    with server_of(built) as server:
        answered = ask(server.url, create_trust("SSL_CERT_FILE", None))

    assert (answered, server.connections, len(server.requests), runtime_loads) == (True, 1, 1, [])


def test_roots_with_the_same_name_are_found(ask: Ask, roots: Path) -> None:
    """OpenSSL numbers the files of roots whose names have the same hash."""
    authorities = [trustme.CA(organization_name="same", organization_unit_name="same") for _ in range(3)]
    for authority in authorities:
        add(roots, authority)
    trust = create_trust("SSL_CERT_FILE", None)

    assert len({path.stem for path in roots.iterdir()}) == 1
    for authority in authorities:
        with server_of(authority) as server:
            assert ask(server.url, trust)
        assert server.connections == 1


@pytest.mark.usefixtures("roots")
def test_runtime_roots_are_loaded_once(ask: Ask, authority: trustme.CA, runtime_loads: list[ssl.SSLContext]) -> None:
    """A new root at Tavus needs no deployment: the first connection fails and is made again."""
    trust = create_trust("SSL_CERT_FILE", None)
    for connections in (2, 1):
        with server_of(authority) as server:
            assert ask(server.url, trust)
        assert (server.connections, len(server.requests)) == (connections, 1)
    assert runtime_loads == [trust.tls]


def test_unknown_roots_are_refused(ask: Ask, roots: Path, runtime_loads: list[ssl.SSLContext]) -> None:
    """Before the runtime's roots are loaded and after, and if a root was removed."""
    removed = trustme.CA()
    add(roots, removed)
    for file in roots.iterdir():
        file.unlink()
    trust = create_trust("SSL_CERT_FILE", None)
    for authority, connections in [(removed, 2), (trustme.CA(), 1)]:
        with server_of(authority) as server:
            assert not ask(server.url, trust)
        assert (server.connections, server.requests) == (connections, [])
    assert runtime_loads == [trust.tls]


def refuses(ask: Ask, server: FaultServer, trust: Trust) -> int:
    """Expect that the server gets no request. Returns the number of connections."""
    with server:
        assert not ask(server.url, trust)
    assert server.requests == []
    return server.connections


def test_wrong_hostname_is_refused(ask: Ask, built: trustme.CA, authority: trustme.CA) -> None:
    """The runtime's roots cannot help, so they are not loaded. Once they are, nothing changes.

    Nor after a call to Tavus or to AWS, which share the TLS context.
    """
    trust = create_trust("SSL_CERT_FILE", None)

    assert refuses(ask, server_of(built, "other.test"), trust) == 1
    for ask_before in (ask_tavus, ask_aws):
        with server_of(authority) as server:
            assert ask_before(server.url, trust)
        assert refuses(ask, server_of(built, "other.test"), trust) == 1


def test_expired_certificates_are_refused(ask: Ask, built: trustme.CA) -> None:
    """If an issuer has expired, the runtime may have another root. Here, it has none."""
    trust = create_trust("SSL_CERT_FILE", None)

    assert refuses(ask, server_of(built, valid_until=OVER), trust) == 2
    assert refuses(ask, server_of(built, valid_until=OVER), trust) == 1


@pytest.mark.parametrize("valid", [(-20, -10), (10, 20)], ids=["expired", "not yet valid"])
def test_invalid_cross_signature_falls_back_to_a_runtime_root(
    ask: Ask, roots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valid: tuple[int, int]
) -> None:
    """The server sends leaf, intermediate and cross-signature. Only the runtime's bundle has the new root."""
    old, new = trustme.CA(), trustme.CA()
    add(roots, old)
    intermediate = new.create_child_ca()
    leaf = intermediate.issue_cert("127.0.0.1")
    crossed = sign(owner_of(new), owner_of(old), IS_CA, valid)
    chain = b"".join(pem.bytes() for pem in (leaf.private_key_pem, *leaf.cert_chain_pems[:2])) + crossed
    (tmp_path / "chain.pem").write_bytes(chain)
    new.cert_pem.write_to_path(runtime := str(tmp_path / "runtime.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", runtime)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "chain.pem")
    with FaultServer(answer(200, b"{}"), tls=tls) as server:
        answered = ask(server.url, create_trust("SSL_CERT_FILE", None))

    assert (answered, server.connections, len(server.requests)) == (True, 2, 1)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "AWS_CA_BUNDLE"])
def test_the_ca_of_a_company_is_checked_as_boto3_checks_it(ask: Ask, tmp_path: Path, variable: str) -> None:
    """Such a CA often has no key usage, no key identifiers, and basic constraints that are not critical."""
    ca_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    company = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Company")]), ca_key
    (tmp_path / "ca.pem").write_bytes(sign(company, company, IS_CA))
    host = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    leaf = sign((x509.Name([]), leaf_key), company, host)
    encoding = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "leaf.pem").write_bytes(leaf_key.private_bytes(*encoding) + leaf)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "leaf.pem")
    with FaultServer(answer(200, b"{}"), tls=tls) as server:
        assert ask(server.url, create_trust(variable, str(tmp_path / "ca.pem")))


type Owner = tuple[x509.Name, Any]
"""A name and a private key."""


def sign(subject: Owner, issuer: Owner, extension: x509.ExtensionType, valid: tuple[int, int] = (-10, 10)) -> bytes:
    """Return a certificate in PEM, valid between two numbers of days from now."""
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer[0], subject[0], subject[1].public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now + timedelta(days=valid[0])).not_valid_after(now + timedelta(days=valid[1]))
    builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer[1], SHA256()).public_bytes(Encoding.PEM)


def owner_of(authority: trustme.CA) -> Owner:
    subject = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
    return subject, load_pem_private_key(authority.private_key_pem.bytes(), None)


@pytest.mark.parametrize(
    ("host", "valid_until", "reason"),
    [
        ("127.0.0.1", OVER, "certificate has expired"),
        ("other.test", None, "IP address mismatch"),
        ("127.0.0.1", None, "unable to get local issuer certificate"),
    ],
)
def test_tls_failures_name_openssls_reason(roots: Path, host: str, valid_until: datetime | None, reason: str) -> None:
    """For Tavus and for AWS."""
    authority = trustme.CA()
    if "issuer" not in reason:
        add(roots, authority)
    expected = f"SSLCertVerificationError: {reason}"
    clock = Clock()
    with server_of(authority, host, valid_until) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        tavus = TavusConnection(Origin.parse(server.url), {}, create_trust("SSL_CERT_FILE", None), clock)
        no_answer = tavus.post("/", 5)
        client = create_client("events", create_trust("SSL_CERT_FILE", None))
        with pytest.raises(AwsCallFailed) as failed:
            call_with_retry(lambda: client.put_events(Entries=[{"Source": "s"}]), Deadline(clock, 10, 0), clock)

    assert isinstance(no_answer, NoAnswer)
    assert (no_answer.failure, failed.value.kind) == (expected, expected)


def test_a_server_without_tls_is_named_by_openssls_reason() -> None:
    with FaultServer(greeting=answer(400)) as server:
        url = server.url.replace("http:", "https:")
        no_answer = TavusConnection(Origin.parse(url), {}, create_trust("SSL_CERT_FILE", None), Clock()).post("/", 5)

    assert isinstance(no_answer, NoAnswer)
    assert re.fullmatch("SSLError: [A-Z_]+", no_answer.failure)


def test_hostname_is_checked_with_runtime_roots(ask: Ask, roots: Path, authority: trustme.CA) -> None:
    """The root is found in them, and the host is still checked."""
    with server_of(authority, "other.test") as server:
        answered = ask(server.url, create_trust("SSL_CERT_FILE", None))

    assert list(roots.iterdir()) == []
    assert (answered, server.connections, server.requests) == (False, 2, [])


def test_runtime_roots_are_trusted_without_a_build(ask: Ask, authority: trustme.CA) -> None:
    """As when the program runs from src/."""
    assert not trust_module.ROOTS.exists()
    trust = create_trust("SSL_CERT_FILE", None)
    with server_of(authority) as known, server_of(trustme.CA()) as foreign:
        answered = ask(known.url, trust), ask(foreign.url, trust)

    assert answered == (True, False)
    assert (known.connections, foreign.connections, foreign.requests) == (1, 1, [])


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "AWS_CA_BUNDLE"])
def test_a_named_bundle_replaces_all_roots(
    ask: Ask, built: trustme.CA, authority: trustme.CA, tmp_path: Path, variable: str
) -> None:
    named = trustme.CA()
    named.cert_pem.write_to_path(bundle := str(tmp_path / "named.pem"))
    trust = create_trust(variable, bundle)
    with server_of(named) as right, server_of(built) as wrong, server_of(authority) as wrong_too:
        answered = [ask(server.url, trust) for server in (right, wrong, wrong_too)]

    assert answered == [True, False, False]
    assert [server.connections for server in (right, wrong, wrong_too)] == [1, 1, 1]
    assert (wrong.requests, wrong_too.requests) == ([], [])


@pytest.mark.usefixtures("roots")
def test_concurrent_attempts_load_runtime_roots_once(
    runtime_loads: list[ssl.SSLContext],
) -> None:
    """An attempt that was abandoned at its deadline may still be connecting."""
    trust = create_trust("SSL_CERT_FILE", None)
    calls: list[str] = []

    def fail_unless_again(name: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        calls.append(name)
        if calls.count(name) == 1:
            meanwhile()
            error = ssl.SSLCertVerificationError()
            error.verify_code = 20
            raise error

    trust.connect(lambda: fail_unless_again("first", lambda: trust.connect(lambda: fail_unless_again("second"))))

    assert calls == ["first", "second", "second", "first"]
    assert len(runtime_loads) == 1
