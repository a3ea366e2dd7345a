"""The Lambda entry point."""

from tests.unit.cold_start import run_script

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


def test_garbage_collection_is_off_only_during_the_start() -> None:
    """It then leaves the objects of the cold start alone."""
    assert run_script(SCRIPT, {"ALLOWED_DEPLOYMENT_IDS": "d1"}) == ["False", "True True"]
