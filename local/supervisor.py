"""Runs a program, and ends it with everything that it started once the pipe at stdin closes.

The process that started this one holds the other end of the pipe, and closes it to stop the program. It also closes
when that process dies. The program has a temporary folder of its own, which is deleted after it. The first argument is
the folder to run the program in; if it is empty, this is the temporary folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from tempfile import TemporaryDirectory
from threading import Thread

STOP_SECONDS = 5
GONE_SECONDS = 1
X_RAY_MARK = "/tmp/.aws-xray"  # noqa: S108 - the X-Ray SDK creates it in a Lambda function, wherever TMPDIR is


def main() -> int:
    """Return the exit code of the program."""
    folder, *command = sys.argv[1:]
    # A process that moved to a group of its own may still write, so that a file can be left.
    with TemporaryDirectory(prefix="end-conversation-", ignore_cleanup_errors=True) as scratch:
        environment = {"HOME": scratch, **os.environ, "TMPDIR": scratch}
        program = subprocess.Popen(
            command, cwd=folder or scratch, env=environment, stdin=subprocess.DEVNULL, process_group=0
        )
        Thread(target=stop_when_left, args=[program], daemon=True).start()
        code = program.wait()
        kill_group(program.pid)
    shutil.rmtree(X_RAY_MARK, ignore_errors=True)
    return code


def stop_when_left(program: subprocess.Popen[bytes]) -> None:
    """Wait for the end of stdin, then stop the program, by force if necessary."""
    while os.read(0, 1):
        pass
    program.terminate()
    time.sleep(STOP_SECONDS)
    program.kill()


def kill_group(group: int) -> None:
    """Kill every process of a group, and wait until they are gone, or for a second: some systems keep zombies."""
    deadline = time.monotonic() + GONE_SECONDS
    with suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < deadline:
            os.killpg(group, signal.SIGKILL)
            time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main())
