"""Secrets: from the environment, the TOML file or a file of their own, and shown by nothing that we print."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from nlp_worker import logging as worker_logging
from nlp_worker.connection import client_settings
from nlp_worker.errors import SettingsError
from nlp_worker.kafka_settings import FILE_SUFFIX, SECRET
from nlp_worker.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET_VALUE = "correct-horse"  # noqa: S105 - nobody's
CLIENTS = (KafkaAdminClient, KafkaConsumer, KafkaProducer)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET_VALUE}\n", encoding="utf-8")
    return path


def test_a_secret_is_read_from_the_file_that_is_named(
    secret_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the environment and in each table of the TOML file; without the new line that editors leave at the end."""
    file = tmp_path / "worker.toml"
    tables = (
        f'[kafka.consumer]\nssl_password_file = "{secret_file}"\n[kafka.producer]\nproxy_url_file = "{secret_file}"\n'
    )
    file.write_text(tables, encoding="utf-8")
    monkeypatch.setenv("NLP_WORKER_KAFKA__SASL_PLAIN_PASSWORD_FILE", str(secret_file))
    kafka = load_settings({}, file).kafka
    secrets = {**kafka.common, **kafka.consumer, **kafka.producer}
    assert sorted(secrets) == ["proxy_url", "sasl_plain_password", "ssl_password"]
    assert {secret.get_secret_value() for secret in secrets.values()} == {SECRET_VALUE}


def test_the_client_gets_the_secret_itself(secret_file: Path) -> None:
    """And with it whatever else is named by a file, in the type that the client expects."""
    number = secret_file.with_name("number")
    number.write_text("7", encoding="ascii")
    settings = load_settings(
        {"kafka": {"sasl_plain_password_file": str(secret_file), "producer": {"linger_ms_file": str(number)}}}
    )
    merged = client_settings(settings, KafkaProducer, {}, settings.kafka.producer)
    assert (merged["sasl_plain_password"], merged["linger_ms"]) == (SECRET_VALUE, 7)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfe", "is no file with a text"),
    ],
    ids=["missing", "empty", "new-line", "binary"],
)
def test_a_secret_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, told: str) -> None:
    """An empty password would be refused by the broker, who does not say why."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as raised:
        load_settings({"kafka": {"consumer": {"ssl_password_file": str(path)}}})
    assert str(raised.value) == f"kafka: ssl_password_file: {path} {told}"


def test_a_secret_and_its_file_exclude_each_other(secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they come from two places: which one was meant cannot be known."""
    monkeypatch.setenv("NLP_WORKER_KAFKA__SSL_PASSWORD", SECRET_VALUE)
    with pytest.raises(SettingsError, match="ssl_password and ssl_password_file are both given") as raised:
        load_settings({"kafka": {"ssl_password_file": str(secret_file)}})
    assert SECRET_VALUE not in str(raised.value)


def test_settings_do_not_show_their_secrets(secret_file: Path) -> None:
    """Neither as text nor as data, wherever they came from."""
    settings = load_settings(
        {"kafka": {"sasl_plain_password": SECRET_VALUE, "consumer": {"ssl_password_file": str(secret_file)}}}
    )
    shown = f"{settings!r} {settings} {settings.kafka} {settings.model_dump()} {settings.model_dump_json()}"
    assert SECRET_VALUE not in shown


@pytest.mark.parametrize(
    "options",
    [
        {"kafka": {"sasl_plain_password": [SECRET_VALUE]}},
        {"kafka": {"producer": {"ssl_password": {"a": SECRET_VALUE}}}},
        {"kafka": {"sasl_plain_password": SECRET_VALUE, "acks": 1}},
        {"kafka": {"sasl_plain_password": SECRET_VALUE, "consumer": SECRET_VALUE}},
        {"kafka": {"sasl_plain_password": SECRET_VALUE}, "drain_seconds": -1},
        {"kafka": SECRET_VALUE},
        {"password": SECRET_VALUE},
    ],
    ids=str,
)
def test_an_error_of_the_settings_shows_no_secret(options: dict[str, Any]) -> None:
    """Not in its message, and not in what led to it: pydantic quotes what it could not use."""
    with pytest.raises(SettingsError) as raised:
        load_settings(options)
    error: BaseException | None = raised.value
    while error is not None:
        assert SECRET_VALUE not in f"{error} {error!r} {''.join(traceback.format_exception(error))}"
        error = error.__context__


def test_a_broken_environment_variable_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of the client's settings that is no JSON."""
    monkeypatch.setenv("NLP_WORKER_KAFKA", f'{{"sasl_plain_password": "{SECRET_VALUE}"')
    with pytest.raises(SettingsError, match="kafka") as raised:
        load_settings({})
    assert SECRET_VALUE not in str(raised.value)


@pytest.mark.parametrize("name", ["proxy_url", "socks5_proxy"])
@pytest.mark.parametrize(
    "url", [f"user:{SECRET_VALUE}@host:1080", f"//user:{SECRET_VALUE}@host:1080", f"socks5://[{SECRET_VALUE}"]
)
def test_a_proxy_that_is_no_url_is_told_without_its_password(name: str, url: str) -> None:
    """The client would quote it in its log."""
    settings = load_settings({"kafka": {name: url}})
    with pytest.raises(SettingsError, match=f"kafka.{name} is no URL such as") as raised:
        client_settings(settings, KafkaConsumer, {}, {})
    assert SECRET_VALUE not in str(raised.value)


def test_a_secret_of_a_wrong_type_is_not_quoted(secret_file: Path) -> None:
    """What stands in a file may be one, whatever the setting is called."""
    settings = load_settings({"kafka": {"request_timeout_ms_file": str(secret_file)}})
    with pytest.raises(SettingsError, match=r"kafka\.request_timeout_ms: .* is not a int") as raised:
        client_settings(settings, KafkaConsumer, {}, {})
    assert SECRET_VALUE not in str(raised.value)


def test_the_names_of_the_clients_secrets_are_known() -> None:
    """A version of the client that has another one, or a setting that ends like ours of files, is noticed here."""
    names = {name for client in CLIENTS for name in client.DEFAULT_CONFIG}
    secrets = {"proxy_url", "sasl_oauth_token_provider", "sasl_plain_password", "socks5_proxy", "ssl_password"}
    assert {name for name in names if SECRET.search(name)} == secrets
    assert [name for name in names if name.endswith(FILE_SUFFIX)] == []


@pytest.fixture
def logging_of_a_worker() -> Iterator[None]:
    """Undo at the end what a worker's start does to logging."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("logging_of_a_worker")
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_logged_traceback_shows_no_values(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The console of structlog shows local variables with their values, where nothing else is asked for."""
    worker_logging.configure(level="debug", log_format=log_format)
    password = SECRET_VALUE
    try:
        len(password) // 0
    except ZeroDivisionError:
        structlog.get_logger().exception("publish_failed")
    printed = capsys.readouterr().err
    assert ("ZeroDivisionError" in printed, SECRET_VALUE in printed) == (True, False)
