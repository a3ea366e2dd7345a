"""Builds the contestants: each is a folder of code with byte code, as Lambda would get it."""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Literal

from local.build import BUILT, build
from local.console import step
from local.process import ROOT, run
from local.runtime import LAMBDA_RUNTIME
from operations.package import UV, add_byte_code, install
from operations.roots import add_roots

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PROGRAMS = ROOT / "bench/contestants"
OURS = ROOT / ".aws-sam/bench/ours"
FLOOR = ROOT / ".aws-sam/bench/floor"
USUAL = ROOT / ".aws-sam/bench/usual"
_EVENTS = {"EVENT_BUS_NAME": "default"}
_TIMERS = {"TIMER_GROUP_NAME": "default", "TIMER_TARGET": '{"Arn": "arn:bus", "RoleArn": "arn:role"}'}


@dataclass(frozen=True)
class Contestant:
    """A handler, the folder of its code and the trigger that its events come from."""

    name: str
    code: Path
    handler: str
    trigger: Literal["http", "event", "timer"]
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_roots(self) -> bool:
        """Whether the code brings the CA certificates that it trusts."""
        return self.code == OURS

    def zip_bytes(self) -> int:
        """The size of the upload."""
        with zipfile.ZipFile(upload := BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
            for path in self.code.rglob("*"):
                archive.write(path, path.relative_to(self.code))
        return len(upload.getvalue())


def build_contestants(authority: str) -> list[Contestant]:
    """Build every contestant. Ours trusts this CA certificate (PEM) like any public one. Raises ProcessFailed."""
    build()
    with step("Installing the other contestants"):
        # Lambda's own runtime has byte code, and the measured processes write none.
        run([LAMBDA_RUNTIME[0], "-m", "compileall", "-q", ROOT / ".venv-runtime/lib"], os.environ)
        for code in (OURS, FLOOR, USUAL):
            shutil.rmtree(code, ignore_errors=True)
        shutil.copytree(BUILT / "HttpFunction", OURS)  # all functions have the same code
        add_roots(OURS / "end_conversation/roots", authority)
        shutil.copytree(BUILT / "HttpFunction", FLOOR, ignore=shutil.ignore_patterns("end_conversation"))
        pins = USUAL.parent / "usual.txt"
        run([UV, "export", "--frozen", "--quiet", "--only-group", "usual", "--output-file", pins], os.environ)
        install(USUAL, pins)
        for code, programs in {FLOOR: ("empty.py", "floor.py"), USUAL: ("usual.py",)}.items():
            for program in programs:
                shutil.copy(PROGRAMS / program, code)
            add_byte_code(code)
    ours, table, session = "end_conversation.handler.handler", {"ENDED_TABLE_NAME": "ended"}, {"KEEP_SESSION": "true"}
    return [
        Contestant("empty", FLOOR, "empty.handler", "http"),
        Contestant("floor", FLOOR, "floor.handler", "http"),
        Contestant("ours", OURS, ours, "http"),
        Contestant("usual, post", USUAL, "usual.handler", "http", _EVENTS),
        Contestant("usual, Session", USUAL, "usual.handler", "http", _EVENTS | session),
        Contestant("ours, events", OURS, ours, "event", _EVENTS | table),
        Contestant("usual, events", USUAL, "usual.handler", "event", _EVENTS | session),
        Contestant("ours, timer", OURS, ours, "timer", _TIMERS),
    ]
