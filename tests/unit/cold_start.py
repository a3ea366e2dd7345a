"""A cold start of the handler, in a fresh process."""

from __future__ import annotations

import subprocess
import sys

from local.process import AWS_CLIENT, ROOT, clean_environment

_SCRIPT = """
import sys
before = set(sys.modules)
import end_conversation.handler
print(*sys.modules.keys() - before)
"""


def cold_start(environ: dict[str, str]) -> set[str]:
    """Return the names of the modules that a cold start loads. Raises CalledProcessError if the start fails."""
    # A log line may come first.
    return set(run_script(_SCRIPT, environ)[-1].split())


def run_script(script: str, environ: dict[str, str], path: str = str(ROOT / "src")) -> list[str]:
    """Run a script that can import the handler. Returns the lines that it prints. Raises CalledProcessError."""
    # Lambda sets LAMBDA_TASK_ROOT. Without it, the X-Ray SDK loads botocore.
    variables = clean_environment(**AWS_CLIENT, LAMBDA_TASK_ROOT="/var/task", PYTHONPATH=path, **environ)
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)  # noqa: S603 - no shell
    return ran.stdout.splitlines()
