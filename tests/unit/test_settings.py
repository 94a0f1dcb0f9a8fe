"""Settings: one name in three places, and a sentence for everything that cannot be used."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from nlp_worker.cli import main
from nlp_worker.errors import SettingsError
from nlp_worker.settings import ModelSpec, load_settings, unknown_environment

MODEL = "text-classification=distilbert/sst2@714eb0f"


def test_an_option_is_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same name in all three."""
    file = tmp_path / "worker.toml"
    file.write_text('group = "file"\ntopic_prefix = "file"\ndrain_seconds = 1\n', encoding="utf-8")
    monkeypatch.setenv("NLP_WORKER_TOPIC_PREFIX", "environment")
    monkeypatch.setenv("NLP_WORKER_DRAIN_SECONDS", "2")
    settings = load_settings({"drain_seconds": "3"}, file)
    assert (settings.group, settings.topic_prefix, settings.drain_seconds) == ("file", "environment", 3)


def test_the_clients_own_settings_come_from_file_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables of the file, double underscores of the environment, merged."""
    file = tmp_path / "worker.toml"
    file.write_text('[kafka]\nssl_cafile = "ca.pem"\n[kafka.consumer]\nfetch_min_bytes = 3\n', encoding="utf-8")
    monkeypatch.setenv("NLP_WORKER_KAFKA__SECURITY_PROTOCOL", "SSL")
    monkeypatch.setenv("NLP_WORKER_KAFKA__PRODUCER__LINGER_MS", "5")
    kafka = load_settings({}, file).kafka
    assert kafka.common == {"ssl_cafile": "ca.pem", "security_protocol": "SSL"}
    assert (kafka.consumer, kafka.producer) == ({"fetch_min_bytes": 3}, {"linger_ms": "5"})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"drain_seconds": "-1"}, "NLP_WORKER_DRAIN_SECONDS"),
        ({"drain": "1"}, "drain is no setting"),
        ({"device": "gpu"}, "--device"),
        ({"model": ("distilbert",)}, "not of the form"),
        ({"model": ("nir=a/b",)}, "'nir' is no task"),
        ({"model": (MODEL, "text-classification=other/sst2")}, "served twice"),
        ({"kafka": {"consumer": {"enable_auto_commit": True}}}, "committed before they are answered"),
        ({"kafka": {"acks": 1}}, "acks cannot be set"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_named(options: dict[str, object], told: str) -> None:
    """Which setting, why, and where it can be set."""
    with pytest.raises(SettingsError) as raised:
        load_settings(options)
    assert told in str(raised.value)


@pytest.mark.parametrize("content", ["group = ", "\ud800"])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    """No traceback for a typo."""
    file = tmp_path / "worker.toml"
    file.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(SettingsError, match=r"worker\.toml is not TOML"):
        load_settings({}, file)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings({}, tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MODEL, ("sst2", "text-classification", "distilbert/sst2", "714eb0f")),
        ("mood:text-classification=distilbert/sst2", ("mood", "text-classification", "distilbert/sst2", None)),
        ("text-classification=/models/a@b", ("a@b", "text-classification", "/models/a@b", None)),
        ("text-classification=./x=y", ("x=y", "text-classification", "./x=y", None)),
    ],
)
def test_a_model_is_taken_apart(text: str, expected: tuple[str, ...]) -> None:
    """Split at the first =; an @ counts for hub ids only; the name is the last path component."""
    assert ModelSpec.parse(text) == expected


def test_a_mistyped_environment_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is warned of, not refused; what Kubernetes sets for a service of the worker's name is nobody's mistake."""
    of_a_service = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_METRICS", "PORT", "PORT_8000_TCP_ADDR")
    for name in ("GRUOP", "KAFKA__SSL_CAFILE", *of_a_service):
        monkeypatch.setenv(f"NLP_WORKER_{name}", "x")
    assert unknown_environment() == ["NLP_WORKER_GRUOP"]


def test_help_names_every_setting_and_every_exit_code() -> None:
    """What an operator reads first."""
    shown = CliRunner().invoke(main, ["run", "--help"]).output
    assert all(option in shown for option in ("--bootstrap-servers", "--model", "--drain-seconds", "--config"))
    assert all(code in shown for code in ("3 broker", "4 topics", "5 checkpoint", "7 publish"))
