"""The Kubernetes manifests: what their APIs accept, by the published schemas, and true to what the worker does."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tomllib
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import jsonschema
import pytest
import yaml
from kafka import KafkaConsumer

from manifests import FOLDER, PAGE, ROOT, check_all, container_of, fence, one, pod_of
from nlp_schemas import requests_topic
from nlp_worker.cli import CLOSE_SECONDS
from nlp_worker.connection import client_settings
from nlp_worker.metrics import REGISTRY
from nlp_worker.probes import Health, serve
from nlp_worker.settings import Settings, load_settings, unknown_environment
from nlp_worker.topics_cli import create
from tools import tool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from manifests import Document

    Build = Callable[[str], list[Document]]

DOCKERFILE: Final = (ROOT / "Dockerfile").read_text(encoding="utf-8")

#: The overlay that the page shows, a folder of its own beside the variants.
OWN: Final = "translation"

PASSWORD: Final = "from a file"  # noqa: S105 - of nobody

#: A variant, and what is added to it.
WORKERS: Final = [
    "deployment",
    "deployment components/gpu components/kafka-password components/pod-monitor",
    "deployment keda/lag",
    "deployment keda/device-seconds components/gpu",
    "stateful-set",
    "stateful-set components/gpu components/kafka-password components/pod-monitor",
]
EVERYTHING: Final = [*WORKERS, "topics", "topics components/kafka-password", OWN]
SCALED: Final = [case for case in WORKERS if "keda" in case]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return what gives the objects of a case, as `kubectl apply -k` would send them; skipped without kubectl."""
    kubectl = tool("kubectl")
    folder = tmp_path_factory.mktemp("deploy") / "kubernetes"
    shutil.copytree(FOLDER, folder)
    (folder / OWN).mkdir()
    (folder / OWN / "kustomization.yaml").write_text(fence("yaml"), encoding="utf-8")
    (folder / OWN / "worker.toml").write_text(fence("toml"), encoding="utf-8")
    known: dict[str, list[Document]] = {}

    def build(case: str) -> list[Document]:
        if case not in known:
            resource, *components = case.split()
            built = folder / resource
            if components:
                built = folder / re.sub(r"\W", "-", case)
                built.mkdir(exist_ok=True)
                overlay = {"resources": [f"../{resource}"], "components": [f"../{each}" for each in components]}
                (built / "kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
            ran = subprocess.run([kubectl, "kustomize", built], capture_output=True, text=True, check=False)
            assert (ran.returncode, ran.stderr) == (0, "")
            known[case] = list(yaml.safe_load_all(ran.stdout))
        return known[case]

    return build


def settings_of(documents: list[Document], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Read the settings as the container would: from the file of its ConfigMap, and from its environment."""
    container, pod = container_of(documents), pod_of(documents)
    files = one(documents, "ConfigMap")
    mounted = {volume["name"]: volume.get("configMap", {}).get("name") for volume in pod["spec"]["volumes"]}
    (path,) = (m["mountPath"] for m in container["volumeMounts"] if mounted.get(m["name"]) == files["metadata"]["name"])
    assert container["args"] == ["run", "--config", f"{path}/worker.toml"]
    (folder / "worker.toml").write_text(files["data"]["worker.toml"], encoding="utf-8")
    (folder / "password").write_text(f"{PASSWORD}\n", encoding="utf-8")
    for name in [name for name in os.environ if name.startswith("NLP_WORKER_")]:
        monkeypatch.delenv(name)
    for each in container["env"]:
        value = each.get("value", "nlp-worker-0")
        monkeypatch.setenv(each["name"], str(folder / "password") if value.endswith("/password") else value)
    assert unknown_environment() == []
    return load_settings({}, folder / "worker.toml")


@pytest.mark.parametrize("case", EVERYTHING)
def test_every_object_is_one_that_its_api_accepts(build: Build, case: str) -> None:
    """By the schemas of Kubernetes, KEDA and the Prometheus Operator: no field unknown, missing or of another type."""
    check_all(build(case))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("terminationGracePeriodSeconds", "terminationGracePeriodSecond"),
        ("readOnlyRootFilesystem: true", "readonlyRootFilesystem: true"),
        ("containerPort: 9090", "containerPort: http"),
        ("memory: 8Gi", "memory: 8GiB"),
        ("maxSkew: 1", "skew: 1"),
        ("cooldownPeriod", "coolDownPeriod"),
        ("lagThreshold", "lagTreshold"),
        ("offsetResetPolicy: earliest", "offsetResetPolicy: oldest"),
        ("scaleTargetRef:\n    name", "scaleTargetRef:\n    kind"),
    ],
)
def test_a_mistake_is_found(build: Build, old: str, new: str) -> None:
    """The schemas are closed: a misspelt field, of which Kubernetes would warn at most, is an error here."""
    case = "deployment keda/lag components/gpu"
    text = yaml.safe_dump_all(build(case))
    check_all(list(yaml.safe_load_all(text)))
    assert old in text
    with pytest.raises(jsonschema.ValidationError):
        check_all(list(yaml.safe_load_all(text.replace(old, new))))


@pytest.mark.parametrize("case", [*WORKERS, OWN])
def test_the_settings_are_those_of_a_worker(
    build: Build, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The TOML and the environment are read, name nothing that is no setting, and Kafka's client takes its part."""
    settings = settings_of(build(case), tmp_path, monkeypatch)
    assert all(model.revision for model in settings.models)
    on_gpu = "nvidia.com/gpu" in container_of(build(case))["resources"]["limits"]
    assert settings.device == ("cuda" if on_gpu else "auto")
    assert on_gpu == ("components/gpu" in case or case == OWN)
    client = client_settings(settings, KafkaConsumer, {}, settings.kafka.consumer)
    if "kafka-password" in case:
        assert client["sasl_plain_password"] == PASSWORD
        assert client["security_protocol"] == "SASL_SSL"
    assert settings.delivery == ("exactly-once" if "stateful-set" in case else "at-least-once")
    if "stateful-set" in case:
        assert settings.instance_id == "nlp-worker-0"
        # Else no restart could be over in time.
        assert client["session_timeout_ms"] / 1000 > pod_of(build(case))["spec"]["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("case", [*WORKERS, OWN])
def test_a_drain_is_not_cut_off(build: Build, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes waits for longer than the worker may take to finish, publish, commit, leave and close."""
    settings = settings_of(build(case), tmp_path, monkeypatch)
    assert pod_of(build(case))["spec"]["terminationGracePeriodSeconds"] > settings.drain_seconds + CLOSE_SECONDS


@pytest.fixture(scope="module")
def loading() -> str:
    """Return the address of the probes of a worker that loads its checkpoints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    serve(port, Health())
    return f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("case", [*WORKERS, OWN])
def test_probes_ask_what_the_worker_serves(
    build: Build, case: str, loading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On its http_port; a worker that loads is alive and not ready, so that no probe ends it, however long it takes."""

    def status(probe: Document) -> int:
        try:
            with urllib.request.urlopen(loading + probe["httpGet"]["path"]) as answer:  # noqa: S310 - of http
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    container = container_of(build(case))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = container["livenessProbe"], container["readinessProbe"]
    port = settings_of(build(case), tmp_path, monkeypatch).http_port
    assert [ports[probe["httpGet"]["port"]] for probe in probes] == [port, port]
    assert [status(probe) for probe in probes] == [200, 503]
    for document in build(case):
        if document["kind"] == "PodMonitor":
            assert [ports[each["port"]] for each in document["spec"]["podMetricsEndpoints"]] == [port]


@pytest.mark.parametrize("case", EVERYTHING)
def test_a_container_may_do_nothing_that_it_need_not(build: Build, case: str) -> None:
    """Neither root nor more rights nor Kubernetes' API; the user is the image's, the image this version's."""
    pod, container = pod_of(build(case))["spec"], container_of(build(case))
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert pod["securityContext"]["runAsNonRoot"]
    assert f"\nUSER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}\n" in DOCKERFILE
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert container["image"].rpartition(":")[2] == version


@pytest.mark.parametrize("case", [*WORKERS, OWN])
def test_a_worker_can_write_where_it_must(build: Build, case: str) -> None:
    """Its home, /tmp and the image's HF_HOME are volumes, and each mount has its volume."""
    controller, container = one(build(case), "Deployment", "StatefulSet"), container_of(build(case))
    volumes = {each["name"] for each in pod_of(build(case))["spec"]["volumes"]}
    claims = {each["metadata"]["name"] for each in controller["spec"].get("volumeClaimTemplates", ())}
    assert not volumes & claims
    assert {each["name"] for each in container["volumeMounts"]} == volumes | claims
    writable = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    (cache,) = re.findall(r"^ENV HF_HOME=(\S+)$", DOCKERFILE, re.MULTILINE)
    (home,) = (each["value"] for each in container["env"] if each["name"] == "HOME")
    assert {cache, home, "/tmp"} <= writable  # noqa: S108 - a mount


@pytest.mark.parametrize("case", [*WORKERS, OWN])
def test_selectors_find_the_workers(build: Build, case: str) -> None:
    """Of the controller, of the disruption budget, of the spread and of the PodMonitor."""
    pod, controller = pod_of(build(case)), one(build(case), "Deployment", "StatefulSet")
    (spread,) = pod["spec"]["topologySpreadConstraints"]
    budget = one(build(case), "PodDisruptionBudget")["spec"]
    own = [controller["spec"]["selector"], budget["selector"], spread["labelSelector"]]
    assert own == [{"matchLabels": pod["metadata"]["labels"]}] * 3
    assert budget["maxUnavailable"] == 1
    for document in build(case):
        if document["kind"] == "PodMonitor":
            assert document["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
            # What the alert rules go by.
            assert pod["metadata"]["labels"][document["spec"]["jobLabel"]] == "nlp-worker"


@pytest.mark.parametrize("case", [*SCALED, OWN])
def test_what_is_scaled_is_there_and_is_scaled_on_what_there_is(
    build: Build, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target has no number of its own; metrics exist, group and topic are the worker's, and partitions bound it."""
    documents = build(case)
    spec, target = one(documents, "ScaledObject")["spec"], one(documents, "Deployment")
    assert spec["scaleTargetRef"] == {"name": target["metadata"]["name"]}
    assert "replicas" not in target["spec"]
    assert spec["maxReplicaCount"] == topics_arguments(build)["partitions"]
    settings = settings_of(documents, tmp_path, monkeypatch)
    for trigger in spec["triggers"]:
        assert trigger["metricType"] == "AverageValue"
        metadata = trigger["metadata"]
        if trigger["type"] == "kafka":
            asked = metadata["bootstrapServers"], metadata["consumerGroup"]
            assert asked == (settings.bootstrap_servers, settings.group)
            assert [metadata["topic"]] == [requests_topic(m.task, settings.topic_prefix) for m in settings.models]
        else:
            (metric,) = re.findall(r"nlp_worker_\w+", metadata["query"])
            assert metric in REGISTRY._names_to_collectors
            assert re.findall(r'job="([^"]+)"', metadata["query"]) == ["nlp-worker"]


def topics_arguments(build: Build) -> dict[str, Any]:
    """Return what the command of the topics' Job is given, as the command reads it."""
    topics, command, *options = container_of(build("topics"))["args"]
    assert (topics, command) == ("topics", "create")
    return dict(create.make_context(command, options).params)


def test_the_topics_are_those_of_the_workers(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Job makes what the settings of the workers ask for, where they ask for it."""
    settings, given = settings_of(build("deployment"), tmp_path, monkeypatch), topics_arguments(build)
    assert given["bootstrap_servers"] == settings.bootstrap_servers
    assert given["tasks"] == [model.task for model in settings.models]


def test_two_services_have_nothing_in_common(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's own overlay stands beside the first one: other names, another group, and selectors that pass it by."""
    first, second = build("deployment"), build(OWN)
    names = [{(each["kind"], each["metadata"]["name"]) for each in documents} for documents in (first, second)]
    assert not names[0] & names[1]
    groups = [settings_of(documents, tmp_path, monkeypatch).group for documents in (first, second)]
    assert groups[0] != groups[1]
    for documents, others in ((first, second), (second, first)):
        labels = pod_of(others)["metadata"]["labels"]
        assert not one(documents, "Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_page_names_what_is_there() -> None:
    """Every folder of deploy/kubernetes is explained, and the commands apply folders that exist."""
    folders = {str(file.parent.relative_to(FOLDER)) for file in FOLDER.rglob("kustomization.yaml")}
    assert {folder for folder in folders if f"`{folder}`" not in PAGE} == set()
    applied = re.findall(r"kubectl apply -k deploy/kubernetes/(\S+)", PAGE)
    assert applied
    assert set(applied) <= {*folders, OWN}
