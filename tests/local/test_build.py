"""What `sam build` leaves, which is what runs on Lambda: pinned packages, our own, and byte code."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
from base64 import urlsafe_b64encode
from importlib.metadata import Distribution
from importlib.util import cache_from_source
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from local.build import ARCHITECTURE, build
from local.process import AWS_CLIENT, ROOT, clean_environment
from operations.package import PLATFORMS, add_byte_code, install, made_for
from operations.samconfig import saved_architecture
from operations.trim import TIME_ZONES
from tests.unit.fakes import TIMER_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

FUNCTIONS = ["EventFunction", "HttpFunction", "TimerFunction"]
# The settings with which each function imports all that it ever will.
SETTINGS = {
    "EventFunction": {"EVENT_BUS_NAME": "default", "ENDED_TABLE_NAME": "ended"},
    "HttpFunction": {},
    "TimerFunction": TIMER_SETTINGS,
}
OURS = "end_conversation/"
ROOTS = "end_conversation/roots/"
TRIMMED = ("boto3/data/", "botocore/data/")
CA_BUNDLE = "botocore/cacert.pem"
IMPORT = "import sys; sys.path.insert(0, sys.argv[1]); import end_conversation.handler; "


@pytest.fixture(scope="module")
def built() -> Path:
    """The folder that `sam build` filled for this machine's processor."""
    return build().parent


def files(tree: Path) -> dict[str, str]:
    """The digest of each file in a folder, as a RECORD writes it, by path."""
    return {
        path.relative_to(tree).as_posix(): "sha256="
        + urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
        for path in tree.rglob("*")
        if path.is_file()
    }


def recorded(tree: Path) -> dict[str, str]:
    """The digest that the packages' own RECORDs give for each file, empty for the RECORDs themselves, by path."""
    return {
        path: digest
        for record in tree.glob("*.dist-info/RECORD")
        for path, digest, _ in csv.reader(record.read_text().splitlines())
    }


def run_alone(tree: Path, code: str, options: Sequence[str] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code after importing the handler, in an interpreter that has the standard library and this tree alone."""
    command = [sys.executable, "-I", "-S", "-B", *options, "-c", IMPORT + code, str(tree)]
    environment = clean_environment(**AWS_CLIENT, ALLOWED_DEPLOYMENT_IDS="d1", **variables)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - no shell


def test_all_functions_are_built(built: Path) -> None:
    """Each function of the template has its folder."""
    assert sorted(path.parent.name for path in built.glob("*/end_conversation")) == FUNCTIONS


def test_builds_are_reproducible(built: Path) -> None:
    """The functions are built one after the other from the same commit, and are the same byte for byte."""
    first, *others = [files(built / function) for function in FUNCTIONS]
    assert others == [first] * len(others)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_imports_with_nothing_else_installed(built: Path, function: str) -> None:
    """The cold start finds all that it needs in the tree or the standard library."""
    code = "print(*{module.__file__ for module in list(sys.modules.values()) if getattr(module, '__file__', None)})"
    done = run_alone(built / function, code, **SETTINGS[function])
    assert done.returncode == 0, done.stderr
    stdlib = Path(json.__file__).parent.parent
    for file in map(Path, done.stdout.split()):
        assert file.is_relative_to(built / function) or file.is_relative_to(stdlib), file


def test_requests_never_load_boto3(built: Path) -> None:
    """The HTTP function does not pay for a client that it never uses, since a caller waits for its cold start."""
    done = run_alone(built / "HttpFunction", "print('boto3' in sys.modules)")
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_import_comes_from_byte_code(built: Path, function: str) -> None:
    """No module is compiled at the cold start."""
    done = run_alone(built / function, "", ["-v"], **SETTINGS[function])
    loaded = re.findall(r"# code object from '([^']+)'", done.stderr)
    compiled = [path for path in loaded if path.startswith(str(built)) and not path.endswith(".cpython-313.pyc")]
    assert len([path for path in loaded if path.startswith(str(built))]) > 50
    assert compiled == []


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_module_has_byte_code(built: Path, function: str) -> None:
    """Each module has byte code that is used whatever its time, and no byte code lacks its module."""
    modules = {Path(cache_from_source(str(path))) for path in (built / function).rglob("*.py")}
    byte_code = set((built / function).rglob("*.pyc"))
    assert byte_code == modules
    # PEP 552: bit 0 says that the byte code names its source by hash, bit 1 that the hash is checked.
    assert {int.from_bytes(path.read_bytes()[4:8], "little") for path in byte_code} == {0b01}


def test_byte_code_is_the_same_wherever_it_was_built(built: Path) -> None:
    """It names the folder on Lambda, and not the one on the machine that built it."""
    byte_code = (built / "HttpFunction/end_conversation/__pycache__/handler.cpython-313.pyc").read_bytes()
    assert b"/var/task/end_conversation/handler.py" in byte_code
    assert bytes(ROOT) not in byte_code


@pytest.mark.parametrize("function", FUNCTIONS)
def test_distributions_are_those_pinned(built: Path, function: str) -> None:
    """Each distribution in the tree is one of requirements.txt in its version, and none is missing."""
    pinned = dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    found = {
        re.sub(r"[-_.]+", "-", distribution.name).lower(): distribution.version
        for distribution in map(Distribution.at, (built / function).glob("*.dist-info"))
    }
    assert found == pinned


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_file_is_pinned_or_ours(built: Path, function: str) -> None:
    """Each file is as its package's RECORD lists it, byte code of such a file, trimmed data, a root, or of src/."""
    tree = built / function
    listed = recorded(tree)
    unlisted = {
        path: digest
        for path, digest in files(tree).items()
        if not path.endswith(".pyc") and not path.startswith((*TRIMMED, ROOTS)) and listed.get(path) not in {digest, ""}
    }
    ours = {path: digest for path, digest in files(ROOT / "src").items() if not path.endswith(".pyc")}
    assert unlisted == ours
    assert all(path.startswith(OURS) for path in ours)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_nothing_of_a_package_is_missing(built: Path, function: str) -> None:
    """What a RECORD lists is there, but for the CA bundle, which was split, and for data that is never read."""
    tree = built / function
    listed = recorded(tree)
    assert len(listed) > 500
    assert {path for path in listed if not (tree / path).exists() and not path.startswith(TRIMMED)} == {
        CA_BUNDLE,
        TIME_ZONES,
    }
    trimmed = {path for path in files(tree) if path.startswith(TRIMMED)}
    assert {path for path in trimmed if path not in listed and f"{path}.gz" not in listed} == set()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_extensions_are_for_the_processor_asked_for(built: Path, function: str) -> None:
    """What is compiled runs on the processor that the stack is deployed for, and is known not to run on the other."""
    [other] = PLATFORMS.keys() - {ARCHITECTURE}
    assert made_for(built / function, ARCHITECTURE)
    assert not made_for(built / function, other)


@pytest.mark.parametrize(
    ("saved", "architecture"),
    [
        ("", "arm64"),
        (r'parameter_overrides = "HttpAuth=\"NONE\" Architecture=\"x86_64\" AlarmEmail=\"\""', "x86_64"),
        (r'parameter_overrides = "AllowedDeploymentIds=\"d1, d2\" Architecture=\"arm64\""', "arm64"),
    ],
)
def test_builds_for_the_architecture_that_sam_saved(tmp_path: Path, saved: str, architecture: str) -> None:
    """The answer given to `sam deploy --guided` counts from then on."""
    samconfig = tmp_path / "samconfig.toml"
    samconfig.write_text(f"[default.deploy.parameters]\nresolve_s3 = true\n{saved}\n")
    assert saved_architecture(samconfig) == architecture


def test_a_changed_hash_stops_the_build(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A package whose content is not what was pinned is not installed, and the message says which."""
    pinned = (ROOT / "requirements.txt").read_text()
    [hashes] = re.findall(r"^urllib3==\S+ \\\n((?: +--hash.*\n)+)", pinned, re.MULTILINE)
    changed = tmp_path / "requirements.txt"
    changed.write_text(pinned.replace(hashes, f"    --hash=sha256:{'0' * 64}\n"))
    with pytest.raises(subprocess.CalledProcessError):
        install(tmp_path / "function", changed, ARCHITECTURE)
    assert "Hash mismatch for `urllib3==" in capfd.readouterr().err


def test_a_requirement_without_a_hash_stops_the_build(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is installed on the strength of its version alone."""
    unpinned = tmp_path / "requirements.txt"
    unpinned.write_text("six==1.17.0\n")
    with pytest.raises(subprocess.CalledProcessError):
        install(tmp_path / "function", unpinned, ARCHITECTURE)
    assert "--require-hashes" in capfd.readouterr().err


def test_code_that_does_not_compile_stops_the_build(tmp_path: Path) -> None:
    """A tree without complete byte code is not deployed."""
    (tmp_path / "broken.py").write_text("def")
    with pytest.raises(subprocess.CalledProcessError):
        add_byte_code(tmp_path)
