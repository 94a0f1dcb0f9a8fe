"""The alert rules: of metrics that there are, explained to whoever they wake, and tried by Prometheus's own tool."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from nlp_schemas import ErrorCode
from nlp_worker.metrics import REGISTRY
from tools import tool

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "deploy" / "prometheus"

RULES: Final[list[dict[str, Any]]] = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_is_about_metrics_and_codes_that_there_are(rule: dict[str, Any]) -> None:
    """A name that is misspelt would never fire."""
    names = set(re.findall(r"nlp_worker_\w+", rule["expr"]))
    assert names <= set(REGISTRY._names_to_collectors)
    assert names or "up{" in rule["expr"]
    codes = {code for found in re.findall(r'code=~?"([^"]+)"', rule["expr"]) for code in found.split("|")}
    assert codes <= set(ErrorCode)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_is_explained_and_tried(rule: dict[str, Any]) -> None:
    """docs/operations.md says what to do, and a test fires it."""
    assert f"\n### {rule['alert']}\n" in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    tests = yaml.safe_load((FOLDER / "alerts.test.yaml").read_text(encoding="utf-8"))["tests"]
    tried = [each for test in tests for each in test["alert_rule_test"] if each["alertname"] == rule["alert"]]
    assert {"exp_alerts" in each for each in tried} == {True, False}


def test_every_code_is_in_one_rule() -> None:
    """No way to fail goes unnoticed."""
    text = " ".join(rule["expr"] for rule in RULES)
    assert all(len(re.findall(rf"\b{code}\b", text)) == 1 for code in ErrorCode)


def test_prometheus_s_own_tool_finds_the_rules_right() -> None:
    """They are rules, and fire when they should; skipped where there is no promtool (Debian's package `prometheus`)."""
    promtool = tool("promtool")
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]):
        ran = subprocess.run([promtool, *command], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
