"""Splits certifi's bundle of CA certificates into a folder from which OpenSSL loads only the one that it needs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----\n.+?\n-----END CERTIFICATE-----", re.DOTALL)


def split_roots(tree: Path) -> None:
    """Move certifi's CA certificates, which are Mozilla's, into our package. Raises FileNotFoundError."""
    add_roots(tree / "end_conversation/roots", (tree / "certifi/cacert.pem").read_text())
    shutil.rmtree(tree / "certifi")
    # botocore's own list is from 2018, and our clients do not use it.
    (tree / "botocore/cacert.pem").unlink()


def add_roots(folder: Path, bundle: str) -> None:
    """Write each CA certificate of a PEM bundle to a file of its own, named as OpenSSL looks it up."""
    folder.mkdir(exist_ok=True)
    command = ["openssl", "x509", "-noout", "-subject_hash"]
    for certificate in _CERTIFICATE.findall(bundle):
        try:
            done = subprocess.run(command, input=certificate, stdout=subprocess.PIPE, text=True, check=True)
        except FileNotFoundError:
            sys.exit("Not built: the build needs the openssl command. Install OpenSSL.")
        name = done.stdout.strip()
        number = len(list(folder.glob(f"{name}.*")))  # other certificates whose subjects have the same hash
        (folder / f"{name}.{number}").write_text(f"{certificate}\n")
