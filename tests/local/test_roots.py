"""The CA certificates in the build: those of certifi's bundle, each in a file that OpenSSL finds."""

import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import certifi
import pytest
from cryptography import x509

from local.build import build

BUNDLE = Path(certifi.where())


@pytest.fixture(scope="module")
def roots() -> Path:
    """The folder as it is deployed."""
    return build().parent / "HttpFunction/end_conversation/roots"


def certificates(file: Path) -> list[bytes]:
    """The certificates that OpenSSL loads from a file, in DER."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(file)
    return tls.get_ca_certs(binary_form=True)


def test_the_roots_are_those_of_the_bundle(roots: Path) -> None:
    """Certificate by certificate: none is missing, none is added, and each has its own file."""
    found = [certificates(file) for file in roots.iterdir()]
    assert {len(each) for each in found} == {1}
    assert sorted(each for [each] in found) == sorted(certificates(BUNDLE))
    assert len(found) == BUNDLE.read_text().count("BEGIN CERTIFICATE") > 100


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # of an old root
def test_no_root_has_expired(roots: Path) -> None:
    """If one has, update certifi: `make lock LOCK_FLAGS=--upgrade`."""
    now = datetime.now(UTC)
    for file in roots.iterdir():
        root = x509.load_pem_x509_certificate(file.read_bytes())
        assert root.not_valid_before_utc < now < root.not_valid_after_utc, root.subject


def test_the_packages_bring_no_other_bundle(roots: Path) -> None:
    """Botocore's own bundle dates from 2018."""
    assert sorted(roots.parent.parent.rglob("*.pem")) == []


def test_openssl_finds_each_root_by_its_name(roots: Path, tmp_path: Path) -> None:
    """It verifies each certificate with this folder alone, whatever its dates, and none with an empty folder."""
    files = sorted(map(str, roots.iterdir()))
    for folder, expected in ((roots, [f"{file}: OK" for file in files]), (tmp_path, [])):
        only = ["-no-CAfile", "-no-CAstore", "-CApath", str(folder), "-no_check_time"]
        ran = subprocess.run(["openssl", "verify", *only, *files], capture_output=True, text=True, check=False)  # noqa: S603, S607
        assert ran.stdout.splitlines() == expected, ran.stderr
