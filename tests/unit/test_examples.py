"""The configuration file that is an example can be used as it stands."""

from pathlib import Path

from nlp_schemas import TaskName
from nlp_worker.settings import load_settings

EXAMPLE = Path(__file__).parents[2] / "examples" / "all-tasks.toml"


def test_the_example_serves_every_task_at_a_stated_revision() -> None:
    """Whether the hub has these revisions, no test here can know."""
    models = load_settings({}, EXAMPLE).models
    assert {model.task for model in models} == set(TaskName)
    assert all(model.revision for model in models)
