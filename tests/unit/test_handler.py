"""The Lambda entry point."""

import subprocess
import sys

from local.process import ROOT, clean_environment

SCRIPT = """
import gc, sys

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "end_conversation.bootstrap":
            print(gc.isenabled())

sys.meta_path.insert(0, Finder)
import end_conversation.handler
print(gc.isenabled(), gc.get_freeze_count() > 10_000)
"""


def test_the_garbage_collector_is_off_during_the_imports_and_the_cold_start_only() -> None:
    """It then leaves the objects of the cold start alone."""
    environ = clean_environment(ALLOWED_DEPLOYMENT_IDS="d1", LAMBDA_TASK_ROOT="/var/task", PYTHONPATH=str(ROOT / "src"))

    ran = subprocess.run([sys.executable, "-c", SCRIPT], env=environ, capture_output=True, text=True, check=True)  # noqa: S603 - no shell

    assert ran.stdout.splitlines() == ["False", "True True"]
