"""The settings of a deployment: what is taken, and what stops the cold start with one sentence."""

import pytest

from end_conversation.errors import InvalidSetting
from end_conversation.settings import Origin, Settings

ALLOWED = {"ALLOWED_DEPLOYMENT_IDS": "d1"}


def test_defaults_call_tavus_and_publish_nowhere() -> None:
    """With the allow-list alone a deployment calls Tavus itself, over HTTPS, and takes HTTP only."""
    settings = Settings.read(ALLOWED)

    assert settings.tavus_api_url == Origin("https", "tavusapi.com", 443)
    assert settings.tavus_origin is None
    assert settings.event_bus_name is None
    assert settings.result_source == "tavus.conversations"
    assert settings.ended_table_name is None


def test_empty_variables_count_as_unset() -> None:
    """CloudFormation passes an empty parameter as an empty variable."""
    names = ("TAVUS_API_URL", "TAVUS_ORIGIN", "EVENT_BUS_NAME", "RESULT_SOURCE", "ENDED_TABLE_NAME")

    assert Settings.read(ALLOWED | dict.fromkeys(names, "")) == Settings.read(ALLOWED)


def test_allow_list_ignores_spaces_around_ids() -> None:
    """Ids are listed as people write lists."""
    allowed = Settings.read({"ALLOWED_DEPLOYMENT_IDS": " d1, 3f0c9a1e-0000-4000-8000-1234567890ab ,d-3"})

    assert "d1" in allowed.allowed_deployment_ids
    assert "3f0c9a1e-0000-4000-8000-1234567890ab" in allowed.allowed_deployment_ids
    assert "d2" not in allowed.allowed_deployment_ids
    assert "" not in allowed.allowed_deployment_ids


def test_star_allows_every_deployment() -> None:
    """Allowing everyone is possible, and has to be said."""
    assert "anything" in Settings.read({"ALLOWED_DEPLOYMENT_IDS": "*"}).allowed_deployment_ids


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://tavusapi.com", Origin("https", "tavusapi.com", 443)),
        ("https://tavus.example:8443", Origin("https", "tavus.example", 8443)),
        ("http://localhost:8080", Origin("http", "localhost", 8080)),
        ("http://127.0.0.1:8080", Origin("http", "127.0.0.1", 8080)),
        ("http://127.8.9.1", Origin("http", "127.8.9.1", 80)),
        ("http://[::1]:8080", Origin("http", "::1", 8080)),
    ],
)
def test_an_origin_is_taken_as_tavus(url: str, origin: Origin) -> None:
    """Any https origin may stand for Tavus, and plain http where nothing leaves the machine."""
    assert Settings.read(ALLOWED | {"TAVUS_API_URL": url}).tavus_api_url == origin


WRONG_ORIGINS = [
    "tavusapi.com",
    "https://",
    "https://tavusapi.com/",
    "https://tavusapi.com/v2",
    "https://tavusapi.com?x=1",
    "https://tavusapi.com#x",
    "https://user:secret@tavusapi.com",
    "https://tavusapi.com:0",
    "https://tavusapi.com:65536",
    "https://tavusapi.com:port",
    "https://tavusapi.com\n",
    "https://tavus api.com",
    "https://tavusapi.com\r\nX: y",
    "ftp://tavusapi.com",
    "file:///etc/passwd",
    "https://[::1",
    "https://[1.2]",
    "https://[::::]",
    "https://..",
    "https://-",
    "https://a..b",
    f"https://{'a' * 64}.example",
]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("TAVUS_API_URL", url) for url in WRONG_ORIGINS),
        *(("TAVUS_ORIGIN", url) for url in WRONG_ORIGINS),
        ("TAVUS_API_URL", "http://tavusapi.com"),
        ("TAVUS_API_URL", "http://127.0.0.1.example.com"),
        ("TAVUS_API_URL", "http://localhost.example.com"),
        ("TAVUS_API_URL", "http://10.0.0.1"),
        ("ALLOWED_DEPLOYMENT_IDS", ""),
        ("ALLOWED_DEPLOYMENT_IDS", " , "),
        ("ALLOWED_DEPLOYMENT_IDS", "d1,"),
        ("ALLOWED_DEPLOYMENT_IDS", "d1,*"),
        ("ALLOWED_DEPLOYMENT_IDS", "d1;d2"),
        ("ALLOWED_DEPLOYMENT_IDS", "d1\n"),
        ("ALLOWED_DEPLOYMENT_IDS", "d1,\td2"),
        ("ALLOWED_DEPLOYMENT_IDS", "*\n"),
        ("ALLOWED_DEPLOYMENT_IDS", "../d1"),
        ("EVENT_BUS_NAME", "my bus"),
        ("EVENT_BUS_NAME", "arn:aws:sqs:eu-west-1:123456789012:queue"),
        ("RESULT_SOURCE", "aws.tavus"),
        ("RESULT_SOURCE", "my source"),
        ("ENDED_TABLE_NAME", "x"),
        ("ENDED_TABLE_NAME", "my table"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not_quoted(variable: str, value: str) -> None:
    """The cold start stops with one sentence that names the variable; a value can hold a secret."""
    with pytest.raises(InvalidSetting, match=f"^{variable} must be ") as refused:
        Settings.read(ALLOWED | {variable: value})

    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_allow_list_stops_the_cold_start() -> None:
    """Nobody allows every deployment by forgetting a variable."""
    with pytest.raises(InvalidSetting, match="^ALLOWED_DEPLOYMENT_IDS must be "):
        Settings.read({})


@pytest.mark.parametrize("bus", ["default", "my-bus", "arn:aws:events:eu-west-1:123456789012:event-bus/my-bus"])
def test_a_bus_is_named_or_given_as_arn(bus: str) -> None:
    """PutEvents takes either."""
    assert Settings.read(ALLOWED | {"EVENT_BUS_NAME": bus}).event_bus_name == bus
