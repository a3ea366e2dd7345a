"""The composed handler: which door an event goes to, and what a cold start loads."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from end_conversation.bootstrap import bootstrap
from end_conversation.errors import UnsupportedEvent
from tests.fakes import Context

ROOT = Path(__file__).parent.parent
HTTP_ONLY = {"ALLOWED_DEPLOYMENT_IDS": "d1"}
WITH_EVENTS = HTTP_ONLY | {"EVENT_BUS_NAME": "bus", "ENDED_TABLE_NAME": "ended"}


def sample(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((ROOT / "events" / f"{name}.json").read_text())
    return event


def test_a_deployment_that_is_not_allowed_never_reaches_tavus(capsys: pytest.CaptureFixture[str]) -> None:
    """The answer is 403, with no attempt made."""
    answer = bootstrap(HTTP_ONLY | {"POWERTOOLS_SERVICE_NAME": "allow-list"})(sample("http-api"), Context())

    assert answer["statusCode"] == 403
    assert json.loads(answer["body"])["reason"] == "deployment_not_allowed"
    [line, _] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["attempts"] == 0


def test_an_event_where_no_bus_is_set_is_unsupported() -> None:
    """The error says which setting would open the event door."""
    with pytest.raises(UnsupportedEvent, match="EVENT_BUS_NAME"):
        bootstrap(HTTP_ONLY)(sample("session-timeout"), Context())


@pytest.mark.parametrize("event", [None, [], "", 5, True, {}, {"Records": []}, {"detail": {}}, [{"detail-type": "x"}]])
@pytest.mark.parametrize("environ", [HTTP_ONLY, WITH_EVENTS])
def test_an_event_of_no_known_shape_is_unsupported(environ: dict[str, str], event: Any) -> None:
    """It raises, so that it reaches the failure queue whole."""
    with pytest.raises(UnsupportedEvent):
        bootstrap(environ)(event, Context())


@pytest.mark.parametrize("environ", [HTTP_ONLY, WITH_EVENTS])
def test_http_is_taken_by_every_deployment(environ: dict[str, str]) -> None:
    """A request is answered whether or not events are taken too."""
    assert bootstrap(environ)(sample("http-api"), Context())["statusCode"] == 403


def loaded(environ: dict[str, str], modules: set[str]) -> set[str]:
    """Those of the modules that a cold start in a fresh process loads."""
    script = f"import end_conversation.handler, sys; print(*({modules!r} & sys.modules.keys()))"
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "AWS_DEFAULT_REGION": "eu-west-1"}
    ran = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script], env=clean | environ, capture_output=True, text=True, check=True
    )
    return set(ran.stdout.split())


def test_the_http_deployment_loads_no_aws_client() -> None:
    """Neither boto3 nor what the door does not use is paid for at each cold start."""
    unused = {"boto3", "pydantic", "requests", "end_conversation.events", "end_conversation.dynamodb"}

    assert loaded(HTTP_ONLY, unused) == set()


def test_the_event_deployment_builds_its_clients_at_cold_start() -> None:
    """Lambda gives the cold start a whole processor, and the first call a slice of one."""
    assert loaded(WITH_EVENTS, {"boto3", "end_conversation.eventbridge", "requests", "pydantic"}) == {
        "boto3",
        "end_conversation.eventbridge",
    }


def test_without_a_table_no_record_is_kept() -> None:
    """ENDED_TABLE_NAME is optional, and what it needs is not loaded without it."""
    assert loaded(HTTP_ONLY | {"EVENT_BUS_NAME": "bus"}, {"boto3.dynamodb.types"}) == set()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALLOWED_DEPLOYMENT_IDS", ""),
        ("POWERTOOLS_LOG_LEVEL", "LOUD"),
        ("POWERTOOLS_TRACE_DISABLED", "perhaps"),
        ("POWERTOOLS_METRICS_DISABLED", ""),
    ],
)
def test_a_wrong_setting_stops_the_cold_start_with_one_sentence(variable: str, value: str) -> None:
    """What Lambda reports names the variable and what it should be."""
    with pytest.raises(subprocess.CalledProcessError) as stopped:
        loaded(HTTP_ONLY | {variable: value}, set())

    last = stopped.value.stderr.strip().splitlines()[-1]
    assert last.startswith(f"end_conversation.errors.InvalidSetting: {variable} must be ")
