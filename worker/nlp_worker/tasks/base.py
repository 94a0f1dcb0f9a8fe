"""What a task is to the loop and to the device thread. Imports neither torch nor transformers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlp_schemas import FinishReason, Model, OkResult, Request
    from nlp_worker.batching import Batch
    from nlp_worker.errors import RequestError
    from nlp_worker.models import Checkpoint
    from nlp_worker.poll import Row

#: Bytes of an answer beside what its task estimates of its outputs.
ANSWER_BYTES: Final = 400


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as rows; without any it is answered without the device."""

    rows: list[Row]
    truncated: bool = False
    output_bytes: int = 0
    """An estimate of the answer's size, so that the answers of a poll fit in memory."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What the task says in an answer."""

    outputs: Any
    """As the task's result model has them."""
    output_tokens: int | None = None
    finish_reasons: Sequence[FinishReason] | None = None
    """Both where text is generated, and nowhere else."""


class Pending(ABC):
    """Outputs of a batch that the device may still compute."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether `get` returns at once."""

    @abstractmethod
    def get(self) -> Sequence[Any]:
        """Wait for the device; return one output for each row, on the CPU."""


class Task(Protocol):
    """A task on one loaded checkpoint, in four steps that say nothing of Kafka.

    ``preprocess`` and ``postprocess`` run on the control thread, and never touch the device. ``collate`` and
    ``forward`` run on the device thread, and never touch the tokenizer: its truncation and padding are shared state,
    so only one thread may use it. A step may raise anything: the caller finds out which request is to blame.
    """

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> Model: ...

    @property
    def result(self) -> type[OkResult]:
        """The answer's model; its ``outputs`` are what ``postprocess`` returns."""
        ...

    @property
    def max_batch_tokens(self) -> int | None:
        """The most tokens of a batch that the checkpoint allows, where it allows less than any other."""
        ...

    @property
    def packs(self) -> bool:
        """Whether the rows of a batch lie end to end, without padding."""
        ...

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        """Tokenize in as few calls as there are kinds of text; for each request its rows, or why it has none."""
        ...

    def collate(self, batch: Batch) -> Any:
        """Make a batch: tensors on the device, padded to [rows, longest] with a mask, or packed to [1, all tokens]."""
        ...

    def forward(self, inputs: Any) -> Sequence[Any] | Pending:
        """Run the model; one output for each row, on the CPU, or on its way there."""
        ...

    def postprocess(self, request: Request, rows: Sequence[Row]) -> Finished:
        """Make the answer's part that is the task's of the outputs of the request's rows."""
        ...

    def warm_up_rows(self) -> Sequence[Row]:
        """Rows like those to come: they make the device ready and give the first measure of its speed."""
        ...


class TaskClass(Protocol):
    """What makes a task of a loaded checkpoint, and all that the worker has to know of it."""

    @property
    def name(self) -> str:
        """Part of its topics' names: lower-case words with hyphens between them."""
        ...

    @property
    def request(self) -> type[Request]: ...

    @property
    def result(self) -> type[OkResult]: ...

    @property
    def model_class(self) -> Any:
        """The transformers class that loads its model, an ``AutoModelFor...`` most often."""
        ...

    @property
    def unread_weights(self) -> str | None:
        """How the names of weights begin that a checkpoint may lack, as nothing reads them."""
        ...

    def __call__(self, checkpoint: Checkpoint) -> Task: ...
