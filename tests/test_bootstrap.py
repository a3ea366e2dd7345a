"""The composed handler: which door an event goes to, and what stops a cold start."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from end_conversation.bootstrap import bootstrap
from end_conversation.errors import UnsupportedEvent
from tests.cold_start import cold_start
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
        cold_start(HTTP_ONLY | {variable: value})

    last = stopped.value.stderr.strip().splitlines()[-1]
    assert last.startswith(f"end_conversation.errors.InvalidSetting: {variable} must be ")
