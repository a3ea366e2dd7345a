"""The settings of a deployment: which values are valid, and what an error says about the others."""

import pytest

from end_conversation.errors import InvalidSetting
from end_conversation.settings import Origin, Settings

ALLOWED = {"ALLOWED_DEPLOYMENT_IDS": "d1"}


def test_the_allow_list_is_the_only_setting_without_a_default() -> None:
    settings = Settings.read(ALLOWED)

    assert settings.tavus_api_url == Origin("https", "tavusapi.com", 443)
    assert settings.tavus_origin is None
    assert settings.event_bus_name is None
    assert settings.result_source == "tavus.conversations"
    assert settings.ended_table_name is None
    assert (settings.timeout_queue_url, settings.failed_queue_url) == (None, None)
    assert (settings.timer_group_name, settings.max_session_seconds) == (None, 1800)
    assert (settings.ssl_cert_file, settings.aws_ca_bundle) == (None, None)


def test_empty_variables_count_as_unset() -> None:
    """CloudFormation passes an empty parameter as an empty variable."""
    names = ["TAVUS_API_URL", "TAVUS_ORIGIN", "EVENT_BUS_NAME", "RESULT_SOURCE", "ENDED_TABLE_NAME"]
    names += ["TIMEOUT_QUEUE_URL", "FAILED_QUEUE_URL", "TIMER_GROUP_NAME", "TIMER_TARGET", "MAX_SESSION_SECONDS"]

    assert Settings.read(ALLOWED | dict.fromkeys(names, "")) == Settings.read(ALLOWED)


def test_the_allow_list_ignores_spaces_around_ids() -> None:
    allowed = Settings.read({"ALLOWED_DEPLOYMENT_IDS": " X1X, 3f0c9a1e-0000-4000-8000-1234567890ab ,d-3"})

    ids = ["X1X", "3f0c9a1e-0000-4000-8000-1234567890ab", "d-3", "1", "d2", ""]
    assert [id_ in allowed.allowed_deployment_ids for id_ in ids] == [True, True, True, False, False, False]


def test_a_star_allows_every_deployment() -> None:
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
def test_the_api_url_is_an_https_origin_or_a_loopback_one(url: str, origin: Origin) -> None:
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

TARGET = '{"Arn": "arn:queue", "RoleArn": "arn:role", "RetryPolicy": {}}'
WRONG_TARGETS = [
    "secret",
    "[]",
    "{}",
    "null",
    "[" * 100_000,
    '{"Arn": "arn:queue"}',
    '{"Arn": "arn:queue", "RoleArn": null}',
    '{"Arn": "arn:queue", "RoleArn": ""}',
    '{"Arn": "arn:queue", "RoleArn": "arn:role", "Input": "{}"}',
]


# By variable: what an error says, and the values that are wrong.
WRONG: dict[str, tuple[str, list[str]]] = {
    "TAVUS_API_URL": ("must be an origin only, such as https://tavusapi.com", WRONG_ORIGINS),
    "TAVUS_ORIGIN": ("must be an origin only, such as https://www.example.com", WRONG_ORIGINS),
    "ALLOWED_DEPLOYMENT_IDS": (
        "must be Tavus deployment ids, separated by commas, or * for any",
        ["", " , ", "d1,", "d1,*", "d1;d2", "d1\n", "d1,\td2", "*\n", "X*", "../d1"],
    ),
    "EVENT_BUS_NAME": (
        "must be the name or ARN of an event bus",
        ["my bus", "arn:aws:sqs:eu-west-1:123456789012:queue"],
    ),
    "RESULT_SOURCE": ("must be an event source not starting with 'aws.'", ["aws.tavus", "my source"]),
    "ENDED_TABLE_NAME": ("must be the name or ARN of a DynamoDB table", ["x", "my table"]),
    **dict.fromkeys(
        ("TIMEOUT_QUEUE_URL", "FAILED_QUEUE_URL"),
        ("must be the URL of an SQS queue", ["queue", "arn:aws:sqs:eu-west-1:123456789012:queue", "https://q\n"]),
    ),
    "TIMER_GROUP_NAME": ("must be the name of a schedule group", ["my group", "g" * 65]),
    "TIMER_TARGET": (
        "must be a schedule's Target in JSON: with Arn and RoleArn, and without Input",
        WRONG_TARGETS,
    ),
    "MAX_SESSION_SECONDS": (
        "must be a whole number from 60 to 86400",
        ["59", "86401", "060", "60.0", "-60", "+60", " 60", "60\n", "1h"],
    ),
}


def test_port_1_is_a_port() -> None:
    assert Settings.read(ALLOWED | {"TAVUS_API_URL": "https://tavusapi.com:1"}).tavus_api_url.port == 1


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        *((variable, value, sentence) for variable, (sentence, values) in WRONG.items() for value in values),
        *(
            ("TAVUS_API_URL", f"http://{host}", "must be https; plain http is allowed for loopback hosts only")
            for host in ("tavusapi.com", "127.0.0.1.example.com", "localhost.example.com", "10.0.0.1")
        ),
    ],
)
def test_a_wrong_setting_is_named_but_not_quoted(variable: str, value: str, sentence: str) -> None:
    """A value may contain a secret."""
    with pytest.raises(InvalidSetting) as raised:
        Settings.read(ALLOWED | {variable: value})

    assert str(raised.value) == f"{variable} {sentence}"


def test_a_missing_allow_list_is_an_error() -> None:
    """A forgotten variable must not allow every deployment."""
    with pytest.raises(InvalidSetting, match="^ALLOWED_DEPLOYMENT_IDS must be "):
        Settings.read({})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(
            ("EVENT_BUS_NAME", bus)
            for bus in ("default", "my-bus", "arn:aws:events:eu-west-1:123456789012:event-bus/a")
        ),
        *(("ENDED_TABLE_NAME", table) for table in ("ended", "arn:aws:dynamodb:eu-west-1:123456789012:table/ended")),
        *(("TAVUS_ORIGIN", origin) for origin in ("https://www.example.com", "http://shop.example:8080")),
    ],
)
def test_names_are_used_as_they_are(variable: str, value: str) -> None:
    assert getattr(Settings.read(ALLOWED | {variable: value}), variable.lower()) == value


def test_a_timer_target_is_json() -> None:
    settings = Settings.read(ALLOWED | {"TIMER_GROUP_NAME": "limits", "TIMER_TARGET": TARGET})

    assert settings.timer_group_name == "limits"
    assert settings.timer_target == {"Arn": "arn:queue", "RoleArn": "arn:role", "RetryPolicy": {}}


def test_a_timer_group_needs_a_timer_target() -> None:
    with pytest.raises(InvalidSetting, match="^TIMER_TARGET must be "):
        Settings.read(ALLOWED | {"TIMER_GROUP_NAME": "limits"})
