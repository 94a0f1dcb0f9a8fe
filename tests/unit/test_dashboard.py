"""The dashboard: of metrics and labels that there are, red where the alerts fire, and fed by the Prometheus here."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from nlp_worker.metrics import REGISTRY
from tools import tool

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
FILE: Final = DEPLOY / "grafana" / "dashboard.json"

DASHBOARD: Final[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
PANELS: Final[list[dict[str, Any]]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

# Nothing public tells the labels of a metric that has no value yet.
_COLLECTORS: Final[list[Any]] = list(dict.fromkeys(REGISTRY._names_to_collectors.values()))
#: The labels of each metric, as Prometheus names it. `up` is Prometheus's own, as are two labels of each.
METRICS: Final = {
    "up": {"job", "instance"},
    **{
        each._name + ("_total" if each._type == "counter" else ""): {"job", "instance", *each._labelnames}
        for each in _COLLECTORS
    },
}

#: What Grafana puts in place of its variables, all tasks being chosen.
VALUES: Final = {"datasource": "uid", "job": "nlp-worker", "task": ".*", "__rate_interval": "1m"}


def loaded(*path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(DEPLOY.joinpath(*path).read_text(encoding="utf-8"))
    return found


def filled_in(text: str) -> str:
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: VALUES[found[1] or found[2]], text)


def expressions(panel: dict[str, Any]) -> list[str]:
    return [filled_in(target["expr"]) for target in panel["targets"]]


def metrics_of(text: str) -> set[str]:
    return set(re.findall(r"\b(?:nlp_worker_\w+|up)\b", text))


def rule(alert: str) -> str:
    """Return the expression of an alert."""
    groups = loaded("prometheus", "alerts.yaml")["groups"]
    (found,) = [each["expr"] for group in groups for each in group["rules"] if each["alert"] == alert]
    return str(found)


def thresholds(panel: dict[str, Any]) -> list[float]:
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {"steps": []})["steps"]
    return [step["value"] for step in steps if step["value"] is not None]


by_title = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


@by_title
def test_a_panel_is_of_metrics_and_labels_that_there_are(panel: dict[str, Any]) -> None:
    """A name that is misspelt would show nothing, and nobody would know why."""
    for target, expression in zip(panel["targets"], expressions(panel), strict=True):
        used = metrics_of(expression)
        assert used
        assert used <= METRICS.keys()
        for metric, selectors in re.findall(r"\b(nlp_worker_\w+|up)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)[!=]~?\"", selectors)) <= METRICS[metric]
            assert 'job="nlp-worker"' in selectors
        grouped = {label for found in re.findall(r"by \(([^)]*)\)", expression) for label in found.split(", ")}
        assert all(grouped <= METRICS[metric] for metric in used)
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= grouped


@by_title
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    """In a sentence, with a unit and a name for each of its lines."""
    assert panel["title"]
    assert re.fullmatch(r"[A-Z][^.]*\.", panel["description"])
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert all(target["legendFormat"] for target in panel["targets"])
    assert panel["type"] == "stat" or panel["options"]["legend"]["showLegend"]


def test_every_metric_is_shown() -> None:
    """What is measured can be looked at."""
    assert set().union(*(metrics_of(text) for panel in PANELS for text in expressions(panel))) == METRICS.keys()


def test_a_panel_is_red_where_its_alert_fires() -> None:
    """Each alert has a panel that names it; where it compares with a number the panel does, of the same requests."""
    named = [(alert, panel) for panel in PANELS for alert in re.findall(r"NlpWorker\w+", panel["description"])]
    groups = loaded("prometheus", "alerts.yaml")["groups"]
    assert {alert for alert, _ in named} == {each["alert"] for group in groups for each in group["rules"]}
    for alert, panel in named:
        if number := re.search(r"> ([\d.]+)(?: \*|\s*$)", rule(alert)):
            assert thresholds(panel) == [float(number[1])]
        requests = r'(code=~?"[^"]+").*?(\[\d+m\])'
        assert set(re.findall(requests, rule(alert))) <= set(re.findall(requests, panel["targets"][0]["expr"]))


def test_panels_lie_side_by_side() -> None:
    """None lies on another, and none reaches beyond the 24 columns; each has a number of its own."""
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        assert any(
            one[at] + one[size] <= other[at] or other[at] + other[size] <= one[at]
            for at, size in (("x", "w"), ("y", "h"))
        )
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_the_file_is_what_a_person_would_keep() -> None:
    """One format, so that a change shows as one; nothing that belongs to the Grafana that it was taken from."""
    assert FILE.read_text(encoding="utf-8") == json.dumps(DASHBOARD, indent=2, ensure_ascii=False) + "\n"
    assert DASHBOARD.keys().isdisjoint({"id", "version", "iteration", "__inputs", "__requires"})
    assert DASHBOARD["uid"]
    assert not any("pluginVersion" in panel for panel in PANELS)


def test_the_dashboard_asks_the_provisioned_prometheus() -> None:
    """Its variable begins with that datasource, and every panel and target asks what the variable names."""
    (datasource,) = loaded("grafana", "provisioning", "datasources", "prometheus.yaml")["datasources"]
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["current"]["value"] == datasource["uid"]
    assert variables["datasource"]["query"] == datasource["type"]
    asking = [
        *PANELS,
        *(target for panel in PANELS for target in panel["targets"]),
        variables["job"],
        variables["task"],
    ]
    assert {(each["datasource"]["type"], each["datasource"]["uid"]) for each in asking} == {
        (datasource["type"], "${datasource}")
    }
    assert all(variables[name]["query"]["query"] == variables[name]["definition"] for name in ("job", "task"))


def test_prometheus_scrapes_the_job_as_often_as_grafana_is_told() -> None:
    """Grafana takes its shortest window of a rate from that interval."""
    prometheus = loaded("prometheus", "prometheus.yaml")
    (datasource,) = loaded("grafana", "provisioning", "datasources", "prometheus.yaml")["datasources"]
    assert datasource["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    (job,) = [variable["current"]["value"] for variable in DASHBOARD["templating"]["list"] if variable["name"] == "job"]
    assert [scrape["job_name"] for scrape in prometheus["scrape_configs"]] == [job] == [VALUES["job"]]


def test_prometheus_s_own_tool_reads_every_expression(tmp_path: Path) -> None:
    """And its configuration; skipped where there is no promtool (Debian's package `prometheus`)."""
    promtool = tool("promtool")
    every = [text for panel in PANELS for text in expressions(panel)]
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(every)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    for command in (["check", "rules", str(file)], ["check", "config", str(DEPLOY / "prometheus" / "prometheus.yaml")]):
        ran = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
