"""`make end`, which ends one conversation without AWS."""

import subprocess
import sys

import pytest

from local.process import ROOT, clean_environment
from tests.unit.fault_server import FaultServer, answer

ENDED = answer(200, b'{"conversation_id": "c1", "status": "ended"}')
# What the shell of an operator has after the exports that make deploy and make serve print.
EXPORTED = {
    "ENDED_TABLE_NAME": "ended",
    "EVENT_BUS_NAME": "default",
    "FAILED_QUEUE_URL": "https://sqs.test/failed",
    "TIMEOUT_QUEUE_URL": "https://sqs.test/timeouts",
    "TIMER_GROUP_NAME": "limits",
}


def make_end(conversation_id: str, tavus_url: str) -> subprocess.CompletedProcess[str]:
    ids = {"DEPLOYMENT_ID": "d1", "CONVERSATION_ID": conversation_id, "TAVUS_API_URL": tavus_url}
    environment = clean_environment(PYTHONPATH=str(ROOT / "src"), **EXPORTED, **ids)
    command = [sys.executable, "-m", "local.end"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - ours


@pytest.mark.parametrize(("reply", "code"), [(ENDED, 0), (answer(404), 1)])
def test_it_succeeds_only_if_the_conversation_ended(reply: bytes, code: int) -> None:
    """Variables of a deployed stack do not matter."""
    with FaultServer(reply) as tavus:
        ended = make_end("c1", tavus.url)

    assert (ended.returncode, len(tavus.requests)) == (code, 1), ended.stderr


def test_a_malformed_id_is_not_sent() -> None:
    with FaultServer() as tavus:
        refused = make_end("a/b", tavus.url)

    assert (refused.returncode, refused.stdout, tavus.connections) == (1, "", 0)
    assert refused.stderr.startswith("Not sent: conversation_id must be ")
