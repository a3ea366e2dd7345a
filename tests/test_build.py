"""What is deployed: the built tree, alone in a clean interpreter and held against what was pinned."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from base64 import urlsafe_b64encode
from importlib.metadata import Distribution
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from local.build import ARCHITECTURE, build
from local.process import AWS_CLIENT, ROOT, clean_environment
from operations.build import add_byte_code, differences, fetch, functions

if TYPE_CHECKING:
    from collections.abc import Sequence

FUNCTIONS = ["EventFunction", "HttpFunction"]
# What makes the code of a function import all that it ever will.
DOORS = {
    "EventFunction": {"EVENT_BUS_NAME": "default", "ENDED_TABLE_NAME": "ended"},
    "HttpFunction": {},
}
TRIMMED = ("boto3/data/", "botocore/cacert.pem", "botocore/data/")
IMPORT = "import sys; sys.path.insert(0, sys.argv[1]); import end_conversation.handler; "


@pytest.fixture(scope="module")
def built() -> Path:
    """The folder of what `sam build` built for this machine, with its byte code."""
    return build().parent


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels that requirements.txt pins for this machine, fetched by a pip that demands their hashes."""
    folder = tmp_path_factory.mktemp("wheels")
    assert fetch(folder, ARCHITECTURE)
    return folder


def run_alone(tree: Path, code: str, options: Sequence[str] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code after importing the handler, in an interpreter that has the standard library and this tree alone."""
    command = [sys.executable, "-I", "-S", "-B", *options, "-c", IMPORT + code, str(tree)]
    environment = clean_environment(**AWS_CLIENT, ALLOWED_DEPLOYMENT_IDS="d1", **variables)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - no shell


def test_both_functions_are_built(built: Path) -> None:
    """One code, built once for each door."""
    assert [tree.name for tree in functions(built)] == FUNCTIONS


@pytest.mark.parametrize("function", FUNCTIONS)
def test_imports_with_nothing_else_installed(built: Path, function: str) -> None:
    """The cold start finds all that it needs in the tree or the standard library."""
    code = "print(*{module.__file__ for module in list(sys.modules.values()) if getattr(module, '__file__', None)})"
    done = run_alone(built / function, code, **DOORS[function])
    assert done.returncode == 0, done.stderr
    stdlib = Path(json.__file__).parent.parent
    for file in map(Path, done.stdout.split()):
        assert file.is_relative_to(built / function) or file.is_relative_to(stdlib), file


def test_requests_never_load_boto3(built: Path) -> None:
    """The HTTP function, whose cold start a caller waits for, doesn't pay for a client that it has no use for."""
    done = run_alone(built / "HttpFunction", "print('boto3' in sys.modules)")
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_import_comes_from_byte_code(built: Path, function: str) -> None:
    """No module is compiled at the cold start, though its folder can't be written to and its time has changed."""
    done = run_alone(built / function, "", ["-v"], **DOORS[function])
    loaded = re.findall(r"# code object from '([^']+)'", done.stderr)
    compiled = [path for path in loaded if path.startswith(str(built)) and not path.endswith(".cpython-313.pyc")]
    assert len([path for path in loaded if path.startswith(str(built))]) > 50
    assert compiled == []


def test_byte_code_is_the_same_wherever_it_was_built(built: Path) -> None:
    """It names the folder on Lambda, and not the one on the machine that built it."""
    byte_code = (built / "HttpFunction/end_conversation/__pycache__/handler.cpython-313.pyc").read_bytes()
    assert b"/var/task/end_conversation/handler.py" in byte_code
    assert bytes(ROOT) not in byte_code


@pytest.mark.parametrize("function", FUNCTIONS)
def test_holds_neither_tests_nor_tools(built: Path, function: str) -> None:
    """Nothing of tests/, local/ or the development tools is deployed."""
    tools = {"pytest", "moto", "hypothesis", "local", "tests", "operations", "pip", "conftest.py"}
    assert not tools & {entry.name for entry in (built / function).iterdir()}
    assert not list((built / function).rglob("test_*.py"))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_file_is_pinned_or_ours(built: Path, wheels: Path, function: str) -> None:
    """The tree is src/ and the wheels that match a hash in requirements.txt, file by file, and nothing more."""
    assert differences(built / function, wheels) == []


@pytest.mark.parametrize("change", ["urllib3/__init__.py", "sitecustomize.py", "end_conversation/handler.py"])
def test_changed_and_added_files_are_found(built: Path, wheels: Path, tmp_path: Path, change: str) -> None:
    """Whatever differs from what was pinned, or is there too much, is named."""
    tree = tmp_path / "function"
    shutil.copytree(built / "HttpFunction", tree, ignore=shutil.ignore_patterns("__pycache__", "data"))
    missing = set(differences(tree, wheels))
    with (tree / change).open("a") as file:
        file.write("# changed\n")
    assert set(differences(tree, wheels)) - missing == {change}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_versions_are_those_pinned(built: Path, function: str) -> None:
    """Each distribution in the tree is one of requirements.txt in its version, and none is missing."""
    pinned = dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    found = {
        re.sub(r"[-_.]+", "-", distribution.name).lower(): distribution.version
        for distribution in map(Distribution.at, (built / function).glob("*.dist-info"))
    }
    assert found == pinned


@pytest.mark.parametrize("function", FUNCTIONS)
def test_files_match_their_own_records(built: Path, function: str) -> None:
    """Each distribution's RECORD gives the hashes of the very files that are there."""
    tree = built / function
    checked = 0
    for record in tree.glob("*.dist-info/RECORD"):
        for path, recorded, _ in csv.reader(record.read_text().splitlines()):
            if recorded and not path.startswith(TRIMMED):
                digest = urlsafe_b64encode(hashlib.sha256((tree / path).read_bytes()).digest()).rstrip(b"=").decode()
                assert recorded == f"sha256={digest}", path
                checked += 1
    assert checked > 500


def test_code_that_does_not_compile_stops_the_build(tmp_path: Path) -> None:
    """A tree without whole byte code is not deployed."""
    (tmp_path / "broken.py").write_text("def")
    with pytest.raises(subprocess.CalledProcessError):
        add_byte_code(tmp_path)
