"""A long generation says that it moves, and ends within a step when it is to stop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import pytest

from fakes import FakeTask
from nlp_schemas.contract import REQUESTS
from nlp_worker import progress
from nlp_worker.batching import Batch
from nlp_worker.errors import RequestError
from nlp_worker.executor import Executor
from nlp_worker.poll import Row
from nlp_worker.progress import Progress, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from nlp_worker.tasks.base import Task
    from task_bench import TaskBench

#: New tokens of the generations that are stopped: seconds of work on a tiny model.
LONG: Final = 2000

#: Steps of the model after which they are.
STOP_AFTER: Final = 10

PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "greedy": {"num_beams": 1, "do_sample": False},
    "sampled": {"num_beams": 1, "do_sample": True, "seed": 7},
    "beams": {"num_beams": 3, "do_sample": False},
    "beams, several texts": {"num_beams": 4, "do_sample": False, "num_return_sequences": 2},
}


@pytest.fixture
def executor() -> Iterator[Executor]:
    executor = Executor()
    yield executor
    executor.stop()
    executor.close()


@pytest.fixture(params=["text-generation", "summarization"])
def task(request: pytest.FixtureRequest, bench_of: Callable[..., TaskBench]) -> Task:
    """A decoder, and an encoder-decoder, that go on for long."""
    if request.param == "text-generation":
        return bench_of("text-generation", "gpt2", n_positions=LONG + 100).task
    return bench_of("summarization", "t5").task


def batch(task: Task, parameters: Mapping[str, Any], new_tokens: int) -> Batch:
    """Two rows of a group, or more where several texts are drawn."""
    asked = {**parameters, "max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    texts = ("The new version is slower, and", "Water boils at")
    requests = [REQUESTS[task.name].model_validate({"inputs": text, "parameters": asked}) for text in texts]
    prepared = [one for one in task.preprocess(requests) if not isinstance(one, RequestError)]
    return Batch(task, [row for one in prepared for row in one.rows])


@pytest.fixture
def at_each_step(task: Any) -> Iterator[list[Callable[[], None]]]:
    """What is called before each of the model's decoding steps."""
    calls: list[Callable[[], None]] = []
    model = task._generator._model

    def call_all(*_: Any) -> None:
        for call in calls:
            call()

    decoder = model.decoder if model.config.is_encoder_decoder else model
    hook = decoder.register_forward_pre_hook(call_all)
    yield calls
    hook.remove()


@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=list(PARAMETERS))
def test_a_long_generation_ends_within_a_step_of_stop(
    executor: Executor, task: Task, at_each_step: list[Callable[[], None]], parameters: Mapping[str, Any]
) -> None:
    """However it generates; its rows are not tried one by one, and the batch behind it does not begin."""
    steps: list[int] = []

    def count_and_stop() -> None:
        steps.append(executor.progress.steps)
        if len(steps) == STOP_AFTER:
            executor.stop()

    at_each_step.append(count_and_stop)
    running = executor.submit(batch(task, parameters, LONG))
    waiting = executor.submit(Batch(FakeTask(), [Row({"input_ids": [1]})]))
    with pytest.raises(Stopped):
        running.result(timeout=60)
    with pytest.raises(Stopped):
        waiting.result(timeout=60)
    # One for the batch, and one for every token.
    assert steps == list(range(1, STOP_AFTER + 1))


@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=list(PARAMETERS))
def test_a_generation_that_is_not_stopped_is_finished(
    executor: Executor, task: Task, parameters: Mapping[str, Any]
) -> None:
    """The counter moves once for the batch and once for every token."""
    run = executor.submit(batch(task, parameters, 12)).result(timeout=60)
    assert not [output for output in run.outputs if isinstance(output, RequestError)]
    assert executor.progress.steps == 1 + 12


def test_every_part_of_a_batch_that_failed_is_progress(executor: Executor) -> None:
    """Isolation may take long: it is not standing still."""
    rows = [Row({"input_ids": list(map(ord, text))}) for text in ("a", "b", "fail in forward", "c")]
    executor.submit(Batch(FakeTask(), rows)).result(timeout=10)
    assert executor.progress.steps == 5


@pytest.mark.parametrize("rows", [1, 2])
def test_what_is_stopped_is_no_ones_fault(executor: Executor, rows: int) -> None:
    """No half of the batch is tried, and no row is answered with an error."""

    class Stopping(FakeTask):
        def forward(self, inputs: list[str]) -> list[str]:
            self.calls.append(len(inputs))
            executor.stop()
            progress.step()
            return inputs

    task = Stopping()
    with pytest.raises(Stopped):
        executor.submit(Batch(task, [Row({"input_ids": [1]})] * rows)).result(timeout=10)
    assert task.calls == [rows]


def test_a_thread_that_nobody_watches_generates_all_the_same(task: Any) -> None:
    """As the warm-up does, before there is a device thread."""
    warm_up = task.collate(Batch(task, task.warm_up_rows()))
    assert len(task.forward(warm_up)) == 1


def test_progress_is_of_the_thread_that_it_watches() -> None:
    """Another thread's steps neither count nor stop."""
    watched = Progress()
    with ThreadPoolExecutor(max_workers=1, initializer=watched.watch_thread) as thread:
        progress.step()
        thread.submit(progress.step).result(timeout=10)
        assert watched.steps == 1
        watched.stop()
        progress.step()
        with pytest.raises(Stopped):
            thread.submit(progress.step).result(timeout=10)
