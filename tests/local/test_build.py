"""What `sam build` leaves, which is what runs on Lambda: pinned packages, our own, and byte code."""

import csv
import hashlib
import json
import re
import subprocess
import sys
from base64 import urlsafe_b64encode
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import Distribution
from importlib.util import cache_from_source
from pathlib import Path
from threading import Thread
from zipfile import ZipFile

import pytest

from local.build import build
from local.process import AWS_CLIENT, ROOT, clean_environment
from operations.package import install, made
from operations.trim import TIME_ZONES
from tests.unit.fakes import TIMER_SETTINGS

# The settings with which each function imports all that it ever will.
SETTINGS = {
    "EventFunction": {"EVENT_BUS_NAME": "default", "ENDED_TABLE_NAME": "ended"},
    "HttpFunction": {},
    "TimerFunction": TIMER_SETTINGS,
}
ROOTS = "end_conversation/roots/"
TRIMMED = ("boto3/data/", "botocore/data/", "certifi/")
REMOVED = {"botocore/cacert.pem", TIME_ZONES, "wrapt/_wrappers.cpython-313-x86_64-linux-gnu.so"}
IMPORT = "import sys; sys.path.insert(0, sys.argv[1]); import end_conversation.handler"


@pytest.fixture(scope="module")
def tree() -> Path:
    """The code of a function, as `sam build` left it."""
    return build().parent / "HttpFunction"


def files(tree: Path) -> dict[str, str]:
    """The digest of each file in a folder, as a RECORD writes it, by path."""
    return {path.relative_to(tree).as_posix(): digest(path) for path in tree.rglob("*") if path.is_file()}


def digest(file: Path) -> str:
    return "sha256=" + urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).rstrip(b"=").decode()


def recorded(tree: Path) -> dict[str, str]:
    """The digest that the packages' own RECORDs give for each file, empty for the RECORDs themselves, by path."""
    return {
        path: digest
        for record in tree.glob("*.dist-info/RECORD")
        for path, digest, _ in csv.reader(record.read_text().splitlines())
    }


def test_all_functions_have_the_same_code(tree: Path) -> None:
    built = {folder.name: files(folder) for folder in tree.parent.iterdir() if folder.is_dir()}
    assert built == dict.fromkeys(SETTINGS, files(tree))


@pytest.mark.parametrize("function", SETTINGS)
def test_imports_byte_code_with_nothing_else_installed(tree: Path, function: str) -> None:
    """The cold start finds all that it needs in the tree or the standard library, and compiles nothing."""
    paths = "{getattr(module, '__file__', None) or '' for module in list(sys.modules.values())}"
    code = f"{IMPORT}; print(*{paths}, sep=chr(10))"
    command = [sys.executable, "-v", "-I", "-S", "-B", "-c", code, str(tree)]
    environment = clean_environment(**AWS_CLIENT, ALLOWED_DEPLOYMENT_IDS="d1", **SETTINGS[function])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    assert done.returncode == 0, done.stderr
    stdlib = Path(json.__file__).parent.parent
    for file in map(Path, filter(None, done.stdout.splitlines())):
        assert file.is_relative_to(tree) or file.is_relative_to(stdlib), file
    loaded = [path for path in re.findall(r"# code object from '([^']+)'", done.stderr) if path.startswith(str(tree))]
    assert len(loaded) > 50
    assert [path for path in loaded if not path.endswith(".cpython-313.pyc")] == []
    assert ("/boto3/" in done.stdout) == (function != "HttpFunction")  # requests pay for no client of AWS


def test_every_module_has_byte_code(tree: Path) -> None:
    """It is used whatever its time, and names the folder on Lambda, not the one on the machine that built it."""
    byte_code = set(tree.rglob("*.pyc"))
    assert byte_code == {Path(cache_from_source(str(path))) for path in tree.rglob("*.py")}
    # PEP 552: bit 0 says that the byte code names its source by hash, bit 1 that the hash is checked.
    assert {int.from_bytes(path.read_bytes()[4:8], "little") for path in byte_code} == {0b01}
    assert b"/var/task/six.py" in Path(cache_from_source(str(tree / "six.py"))).read_bytes()
    assert [path for path in byte_code if bytes(ROOT) in path.read_bytes()] == []


def test_no_file_is_compiled_for_a_processor(tree: Path) -> None:
    """So the code runs on arm64 and x86_64."""
    machine_code = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe")
    suffixes = {".so", ".pyd", ".dylib", ".a"}
    all_files = [path for path in tree.rglob("*") if path.is_file()]
    assert [p for p in all_files if p.suffix in suffixes or p.read_bytes().startswith(machine_code)] == []


def test_distributions_are_those_pinned(tree: Path) -> None:
    """Each distribution in the tree is one of requirements.txt in its version, and none is missing."""
    pinned = dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    found = map(Distribution.at, tree.glob("*.dist-info"))
    assert {re.sub(r"[-_.]+", "-", each.name).lower(): each.version for each in found} == pinned


def test_every_file_is_pinned_or_ours(tree: Path) -> None:
    """Each file is as its package's RECORD lists it, byte code of such a file, trimmed data, a root, or of ours."""
    listed = recorded(tree)
    unlisted = {
        path: digest
        for path, digest in files(tree).items()
        if not path.endswith(".pyc") and not path.startswith((*TRIMMED, ROOTS)) and listed.get(path) not in {digest, ""}
    }
    ours = {path: digest for path, digest in files(ROOT / "src").items() if not path.endswith(".pyc")}
    assert unlisted == {**ours, "end_conversation/LICENSE": digest(ROOT / "LICENSE")}


def test_nothing_of_a_package_is_missing(tree: Path) -> None:
    """What a RECORD lists is there, except for what is removed on purpose."""
    listed = recorded(tree)
    assert {path for path in listed if not (tree / path).exists() and not path.startswith(TRIMMED)} == REMOVED
    trimmed = {path for path in files(tree) if path.startswith(TRIMMED)}
    assert {path for path in trimmed if path not in listed and f"{path}.gz" not in listed} == set()


@pytest.mark.parametrize(
    ("hashes", "message"),
    [(f" --hash=sha256:{'0' * 64}", "Hash mismatch for `six==1.17.0`"), ("", "--require-hashes")],
)
def test_what_is_not_as_pinned_stops_the_build(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], hashes: str, message: str
) -> None:
    """Nothing is installed on the strength of its version alone, and the message says which package it was."""
    (tmp_path / "requirements.txt").write_text(f"six==1.17.0{hashes}\n")
    with pytest.raises(subprocess.CalledProcessError):
        install(tmp_path / "function", tmp_path / "requirements.txt")
    assert message in capfd.readouterr().err
    assert not (tmp_path / "function/six.py").exists()


def test_an_index_without_upload_dates_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many company mirrors publish no upload dates, and pyproject.toml asks for packages that are a week old."""
    wheel = tmp_path / "simple/tiny/tiny-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    hashed = f"tiny==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
    (tmp_path / "requirements.txt").write_text(hashed)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)) as index:
        Thread(target=index.serve_forever, args=(0.05,)).start()
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{index.server_port}/simple")
        install(tmp_path / "function", tmp_path / "requirements.txt", "--no-cache")
        index.shutdown()
    assert (tmp_path / "function/tiny.py").exists()


@pytest.mark.parametrize("lost", ["", "code", "code.built-from"])
def test_lost_code_is_made_again(lost: str, tmp_path: Path) -> None:
    """Code that is complete and current is made once."""
    calls: list[Path] = []

    def make(folder: Path) -> None:
        calls.append(folder)
        folder.mkdir()

    with made(tmp_path / "code", lambda: "digest", make):
        pass
    if lost:
        (tmp_path / lost).rename(tmp_path / "moved")
    with made(tmp_path / "code", lambda: "digest", make) as code:
        assert code.is_dir()

    assert len(calls) == (2 if lost else 1)
