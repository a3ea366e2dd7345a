"""The contestants, each as the folder that Lambda would be given, all of them with byte code."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Literal

from local.build import BUILT, build
from local.console import step
from local.process import ROOT, run
from operations.build import add_byte_code

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SOURCES = ROOT / "bench/contestants"
_FOLDER = ROOT / ".aws-sam/bench"
FLOOR = _FOLDER / "floor"
_EVENTS = {"EVENT_BUS_NAME": "default"}


@dataclass(frozen=True)
class Contestant:
    """A handler, the code it is in and the door that its events come through."""

    name: str
    code: Path
    handler: str
    door: Literal["http", "event"]
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether this is what the project is about."""
        return self.name.startswith("ours")

    def zip_bytes(self) -> int:
        """The size of the upload."""
        with zipfile.ZipFile(packed := BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
            for path in self.code.rglob("*"):
                archive.write(path, path.relative_to(self.code))
        return len(packed.getvalue())


def contestants() -> list[Contestant]:
    """Build all that take part. Raises ProcessFailed."""
    build()
    with step("Installing the other contestants"):
        shutil.rmtree(_FOLDER, ignore_errors=True)
        usual = _FOLDER / "usual"
        shutil.copytree(BUILT / "HttpFunction", FLOOR, ignore=shutil.ignore_patterns("end_conversation"))
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:"]
        run([*pip, "--target", usual, "--requirement", _SOURCES / "requirements.txt"], os.environ)
        for code, programs in {FLOOR: ("empty.py", "floor.py"), usual: ("usual.py",)}.items():
            for program in programs:
                shutil.copy(_SOURCES / program, code)
            add_byte_code(code)
    end, ended = "end_conversation.handler.handler", {"ENDED_TABLE_NAME": "ended"}
    return [
        Contestant("empty", FLOOR, "empty.handler", "http"),
        Contestant("floor", FLOOR, "floor.handler", "http"),
        Contestant("ours", BUILT / "HttpFunction", end, "http"),
        Contestant("usual, post", usual, "usual.handler", "http", _EVENTS),
        Contestant("usual, Session", usual, "usual.handler", "http", _EVENTS | {"KEEP_SESSION": "true"}),
        Contestant("ours, events", BUILT / "EventFunction", end, "event", _EVENTS | ended),
        Contestant("usual, events", usual, "usual.handler", "event", _EVENTS | {"KEEP_SESSION": "true"}),
    ]
