"""docker-compose.yml: what it starts is what the commands, the probes and the files of deploy/ are."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import jsonschema
import pytest
import yaml

from nlp_worker import probes
from nlp_worker.cli import main
from nlp_worker.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "docker-compose.yml"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
WORKERS: Final = ("worker", "worker-gpu")


def interpolated(text: str, environment: Mapping[str, str]) -> str:
    """Fill in ${NAME:-default} and $$ as compose does."""
    return re.sub(
        r"\$(?:\$|\{(\w+):-([^}]*)\})",
        lambda found: "$" if found[1] is None else environment.get(found[1]) or found[2],
        text,
    )


def parsed(arguments: list[str]) -> dict[str, Any]:
    """Return what the command line makes of arguments, without running them."""
    command: click.Command = main
    rest = list(arguments)
    while isinstance(command, click.Group):
        command = command.commands[rest.pop(0)]
    return command.make_context(command.name, rest).params


def run_settings(service: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the settings that a service's worker runs with."""
    for name, value in SERVICES[service]["environment"].items():
        if name.startswith("NLP_WORKER_"):
            monkeypatch.setenv(name, value)
    assert SERVICES[service]["command"][0] == "run"
    options = parsed(SERVICES[service]["command"])
    return load_settings({name: value for name, value in options.items() if value not in (None, ())})


def mounts(service: str) -> dict[str, Path]:
    """Return what is mounted of the repository, by its place in the container."""
    found = {}
    for volume in SERVICES[service].get("volumes", ()):
        source, target, *mode = volume.split(":")
        if source.startswith("."):
            assert mode == ["ro"], volume
            found[target] = ROOT / source
    return found


def test_compose_can_read_the_file() -> None:
    """By docker's own plugin where it is, which needs no engine, else by the schema of the compose specification."""
    docker = shutil.which("docker")
    if docker is not None and subprocess.run([docker, "compose"], capture_output=True, check=False).returncode == 0:
        command = [docker, "compose", "--file", str(FILE), "--profile", "*", "config", "--quiet"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return
    pytest.importorskip("check_jsonschema", reason="neither docker's compose plugin nor check-jsonschema")
    folder = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    jsonschema.validate(COMPOSE, json.loads((folder / "compose-spec.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("service", WORKERS)
def test_a_worker_starts_with_settings_that_there_are(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves a pinned checkpoint, from the broker's address within the network, on the device that it is for."""
    settings = run_settings(service, monkeypatch)
    assert f"PLAINTEXT://{settings.bootstrap_servers}" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert [bool(spec.revision) for spec in settings.models] == [True]
    assert settings.device == ("cuda" if service == "worker-gpu" else "auto")


@pytest.mark.parametrize(
    ("environment", "tasks"),
    [
        ({}, ["text-classification"]),
        ({"TASKS": "fill-mask ner"}, ["fill-mask", "token-classification"]),
    ],
)
def test_the_topics_are_made_by_our_own_command(environment: dict[str, str], tasks: list[str], tmp_path: Path) -> None:
    """The shell gives it one --task for each of TASKS, and it understands all that it is given."""
    stub = tmp_path / "nlp-worker"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    stub.chmod(0o700)
    service = SERVICES["topics"]
    command = [*service["entrypoint"], *(interpolated(part, environment) for part in service["command"])]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": path})
    given = ran.stdout.split()
    assert given[:2] == ["topics", "create"]
    options = parsed(given)
    assert options["tasks"] == tasks
    assert options["partitions"] == 12
    assert options["bootstrap_servers"] == parsed(SERVICES["worker"]["command"])["bootstrap_servers"]


@pytest.mark.parametrize("service", WORKERS)
def test_probe_and_prometheus_ask_the_port_that_is_served(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker is a target, and its health is asked where it answers."""
    port = run_settings(service, monkeypatch).http_port
    (scrape,) = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())["scrape_configs"]
    (discovery,) = scrape["dns_sd_configs"]
    assert (discovery["port"], discovery["type"]) == (port, "A")
    assert service in discovery["names"]
    assert f'"127.0.0.1", {port},' in SERVICES[service]["healthcheck"]["test"][-1]


def test_the_health_check_tells_a_worker_that_is_stuck() -> None:
    """Its exit code is 0 where all is well, and 1 where nothing moves or nobody answers."""
    start, *arguments, code = SERVICES["worker"]["healthcheck"]["test"]
    assert (start, arguments) == ("CMD", ["python", "-c"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command = [sys.executable, "-c", code.replace("9090", str(port))]

    def exit_code() -> int:
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert exit_code() == 1
    health = probes.Health()
    probes.serve(port, health)
    assert exit_code() == 0
    health.started(lambda: True, lambda: "device")
    assert exit_code() == 1


def test_one_service_builds_the_image_and_nobody_pulls_it() -> None:
    """Two that build it at a time may fail; every worker waits for the one that does. All other images are pinned."""
    ours = {name for name, service in SERVICES.items() if service["image"] == "nlp-worker"}
    assert ours == {"topics", *WORKERS}
    assert [name for name, service in SERVICES.items() if "build" in service] == ["topics"]
    assert {SERVICES[name]["pull_policy"] for name in ours} == {"never"}
    assert all("topics" in SERVICES[name]["depends_on"] for name in WORKERS)
    for name in SERVICES.keys() - ours:
        assert re.search(r":v?\d+\.\d+\.\d+$", SERVICES[name]["image"]), name


def test_everything_is_open_to_this_machine_only() -> None:
    """Nobody is asked for a password."""
    assert all(port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service.get("ports", ()))


def test_what_is_mounted_is_in_the_repository() -> None:
    """A file that is not there would be mounted as an empty folder, and what is configured with it would be missing."""
    prometheus, grafana = mounts("prometheus"), mounts("grafana")
    assert all(path.exists() for path in (prometheus | grafana).values())
    (config,) = [
        argument.partition("=")[2]
        for argument in SERVICES["prometheus"]["command"]
        if argument.startswith("--config.file=")
    ]
    assert (prometheus[str(Path(config).parent)] / Path(config).name).is_file()
    dashboard = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert grafana[dashboard].is_file()
    provisioning = grafana["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/nlp-worker.yaml").read_text())["providers"]
    assert provider["options"]["path"] == str(Path(dashboard).parent)
    (datasource,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    port = SERVICES["prometheus"]["ports"][0].rpartition(":")[2]
    assert datasource["url"] == f"http://prometheus:{port}"
