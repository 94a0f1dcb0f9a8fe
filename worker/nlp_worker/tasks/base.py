"""What a task is to the loop and to the device thread. Imports neither torch nor transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlp_schemas import Model, OkResult, Request, TaskName
    from nlp_worker.errors import RequestError
    from nlp_worker.poll import Row


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as rows."""

    rows: list[Row]
    truncated: bool = False
    output_bytes: int = 0
    """An estimate of the answer's size, so that the answers of a poll fit in memory."""


class Task(Protocol):
    """A task on one loaded checkpoint, in four steps that say nothing of Kafka.

    ``preprocess`` and ``postprocess`` run on the control thread, and never touch the device. ``collate`` and
    ``forward`` run on the device thread, and never touch the tokenizer: its truncation and padding are shared state,
    so only one thread may use it. A step may raise anything: the caller finds out which request is to blame.
    """

    @property
    def name(self) -> TaskName: ...

    @property
    def model(self) -> Model: ...

    @property
    def result(self) -> type[OkResult]:
        """The answer's model; its ``outputs`` are what ``postprocess`` returns."""
        ...

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        """Tokenize in ONE call; for each request its rows, or why it has none."""
        ...

    def collate(self, rows: Sequence[Row]) -> Any:
        """Pad to the longest row and add the attention mask: tensors on the device, shape [rows, longest]."""
        ...

    def forward(self, inputs: Any) -> Sequence[Any]:
        """Run the model; one output for each row, on the CPU."""
        ...

    def postprocess(self, request: Request, outputs: Sequence[Any]) -> Any:
        """Make the answer's ``outputs`` of the outputs of the request's rows."""
        ...

    def warm_up_rows(self) -> Sequence[Row]:
        """Rows like those to come: they make the device ready and give the first measure of its speed."""
        ...
