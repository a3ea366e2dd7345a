"""The composed handler: which door an event goes to, and what stops a cold start."""

import json
import ssl
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import trustme

from end_conversation.bootstrap import bootstrap
from end_conversation.errors import TavusUnavailable, UnsupportedEvent
from tests.cold_start import cold_start
from tests.fakes import Context
from tests.fault_server import FaultServer, answer, serving_tls

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


@pytest.mark.parametrize("named", [set(), {"SSL_CERT_FILE"}, {"SSL_CERT_FILE", "AWS_CA_BUNDLE"}])
def test_a_cold_start_loads_one_ca_bundle(ca_bundle: str, monkeypatch: pytest.MonkeyPatch, named: set[str]) -> None:
    """It serves Tavus and AWS alike, unless they are told apart."""
    loaded = Mock(wraps=ssl.create_default_context)
    monkeypatch.setattr(ssl, "create_default_context", loaded)

    bootstrap(WITH_EVENTS | dict.fromkeys(named, ca_bundle))

    assert loaded.call_count == 1


def test_a_session_timeout_is_followed_from_tavus_to_the_bus(
    authority: trustme.CA, ca_bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is trusted by its CA bundle, Tavus is offered HTTP/1.1, and the result carries the trace."""
    aws = trustme.CA()
    aws.cert_pem.write_to_path(aws_bundle := str(tmp_path / "aws.pem"))
    offered: list[str | None] = []
    ended = answer(200, b'{"conversation_id": "c123456", "status": "ended"}')
    kept, taken = answer(200, b"{}"), answer(200, b'{"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}')
    with (
        FaultServer((lambda peer: offered.append(peer.protocol), ended), tls=serving_tls(authority)) as tavus,
        FaultServer(kept, taken, tls=serving_tls(aws)) as table_and_bus,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL", table_and_bus.url)
        settings = WITH_EVENTS | {"ALLOWED_DEPLOYMENT_IDS": "*", "TAVUS_API_URL": tavus.url}
        settings |= {"SSL_CERT_FILE": ca_bundle, "AWS_CA_BUNDLE": aws_bundle, "_X_AMZN_TRACE_ID": "Root=1-2-3"}
        bootstrap(settings)(sample("session-timeout"), Context(60_000))

    written, published = table_and_bus.requests
    assert json.loads(written.body)["Item"]["status"] == {"S": "ended"}
    [entry] = json.loads(published.body)["Entries"]
    assert json.loads(entry["Detail"])["status"] == "ended"
    assert entry["TraceHeader"] == "Root=1-2-3"
    assert offered == ["http/1.1"]


def test_tavus_has_to_show_its_own_name(authority: trustme.CA, ca_bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trusted certificate of another host gets no request; nor does it once AWS was reached by the same trust."""
    ended = answer(200, b'{"conversation_id": "c123456", "status": "ended"}')
    with (
        FaultServer(ended, tls=serving_tls(authority, host="other.test")) as tavus,
        FaultServer(answer(200, b"{}"), tls=serving_tls(authority)) as table,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL", table.url)
        settings = {"ALLOWED_DEPLOYMENT_IDS": "*", "TAVUS_API_URL": tavus.url, "SSL_CERT_FILE": ca_bundle}
        handler = bootstrap(WITH_EVENTS | settings)
        for _ in range(2):
            with pytest.raises(TavusUnavailable, match="^tavus_unreachable after 1 attempts"):
                handler(sample("session-timeout"), Context(60_000))

    assert (tavus.connections, tavus.requests, len(table.requests)) == (2, [], 2)


def test_a_ca_bundle_is_trusted_instead_of_the_systems(
    authority: trustme.CA, ca_bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever names a file of their own trusts nobody else."""
    trustme.CA().cert_pem.write_to_path(own := str(tmp_path / "own.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", ca_bundle)
    with FaultServer(answer(404), tls=serving_tls(authority)) as tavus:
        settings = {"ALLOWED_DEPLOYMENT_IDS": "*", "TAVUS_API_URL": tavus.url}
        trusted = bootstrap(settings)(sample("http-api"), Context())
        refused = bootstrap(settings | {"SSL_CERT_FILE": own})(sample("http-api"), Context())

    assert (trusted["statusCode"], refused["statusCode"], len(tavus.requests)) == (404, 503, 1)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALLOWED_DEPLOYMENT_IDS", ""),
        ("POWERTOOLS_LOG_LEVEL", "LOUD"),
        ("POWERTOOLS_LOGGER_SAMPLE_RATE", "often"),
        ("POWERTOOLS_LOGGER_SAMPLE_RATE", "2"),
        ("POWERTOOLS_LOGGER_SAMPLE_RATE", "nan"),
        ("POWERTOOLS_DEBUG", "perhaps"),
        ("POWERTOOLS_TRACE_DISABLED", "perhaps"),
        ("POWERTOOLS_METRICS_DISABLED", ""),
        ("SSL_CERT_FILE", "/nowhere"),
        ("SSL_CERT_FILE", ""),
        ("SSL_CERT_FILE", __file__),
        ("AWS_CA_BUNDLE", "/nowhere"),
        ("AWS_CA_BUNDLE", ""),
    ],
)
def test_a_wrong_setting_stops_the_cold_start_with_one_sentence(variable: str, value: str) -> None:
    """What Lambda reports names the variable and what it should be."""
    with pytest.raises(subprocess.CalledProcessError) as stopped:
        cold_start(WITH_EVENTS | {variable: value})

    last = stopped.value.stderr.strip().splitlines()[-1]
    assert last.startswith(f"end_conversation.errors.InvalidSetting: {variable} must be ")
