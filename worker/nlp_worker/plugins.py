"""Python files that add a task: CONTRIBUTING.md has the whole of one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nlp_schemas import ALIASES, REQUESTS, RESULTS, OkResult, Request
from nlp_schemas.task import TASK_PATTERN
from nlp_worker.errors import SettingsError

if TYPE_CHECKING:
    from nlp_worker.tasks.base import TaskClass

#: What a plugin names its task's class.
NAME: Final = "TASK"

#: What a task's class must have (tasks.base.TaskClass, tasks.base.Task); `model` and `packs` its instances.
ATTRIBUTES: Final = ("name", "request", "result", "model_class", "unread_weights", "max_batch_tokens")
STEPS: Final = ("preprocess", "collate", "forward", "postprocess", "warm_up_rows")

#: What is loaded, by its file: `doctor` asks for each twice.
_loaded: Final[dict[Path, TaskClass]] = {}


def load_plugin(file: str) -> TaskClass:
    """Run the file, and make the contract of its task known.

    Raises:
        SettingsError: it adds no task; the message says what is wrong with it.
    """
    path = Path(file).expanduser().resolve()
    if path in _loaded:
        return _loaded[path]
    task = _found(path)
    if task.name in REQUESTS:
        raise SettingsError(f"plugin {path}: there is a task {task.name!r} already")
    REQUESTS[task.name], RESULTS[task.name] = task.request, task.result
    _loaded[path] = task
    return task


def _found(path: Path) -> TaskClass:
    module = _run(path)
    if not isinstance(getattr(module, NAME, None), type):
        raise SettingsError(f"plugin {path}: it has no {NAME}: set it to the class of the task")
    task: Any = module.TASK
    if missing := [name for name in (*ATTRIBUTES, *STEPS) if not hasattr(task, name)]:
        raise SettingsError(f"plugin {path}: {NAME} has no {', '.join(missing)}")
    name = task.name
    if not isinstance(name, str) or not TASK_PATTERN.fullmatch(name) or name in ALIASES:
        raise SettingsError(f"plugin {path}: {name!r} is no name: take lower-case words with hyphens between them")
    for part, model, base in (("request", task.request, Request), ("result", task.result, OkResult)):
        if not (isinstance(model, type) and issubclass(model, base)):
            raise SettingsError(f"plugin {path}: {part} must be a class made of {base.__name__}")
        field = model.model_fields.get("task")
        if field is None or field.default != name:
            raise SettingsError(f'plugin {path}: {model.__name__} needs task: Literal["{name}"] = "{name}"')
    found: TaskClass = task
    return found


def _run(path: Path) -> Any:
    # Its own name, under which pydantic finds the names that its models' annotations use.
    name = f"nlp_worker_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SettingsError(f"plugin {path}: there is no such Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise SettingsError(f"plugin {path} cannot be run: {type(error).__name__}: {error}") from error
    return module
