"""What summarization and translation share: an encoder-decoder reads a text and writes another.

The steps of transformers 4's ``Text2TextGenerationPipeline``, which transformers 5 dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from transformers import GenerationConfig

from nlp_schemas import Truncation
from nlp_worker.tasks.base import ANSWER_BYTES, Prepared
from nlp_worker.tasks.decoding import own_parameters
from nlp_worker.tasks.encoder import Encoder
from nlp_worker.tasks.generation import TOKEN_BYTES, Generator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nlp_schemas import SummarizationParameters
    from nlp_worker.batching import Batch
    from nlp_worker.errors import RequestError
    from nlp_worker.models import Checkpoint
    from nlp_worker.poll import Row
    from nlp_worker.tasks.search import Generated, Inputs

#: The pipelines' own parameters; the first gives way to a checkpoint's ``max_length``, the second to nothing of it.
PIPELINE_NEW_TOKENS: Final = {"max_new_tokens": 256}
PIPELINE_BEAMS: Final = {"num_beams": 4}

#: The ``max_length`` that transformers 4 wrote into every checkpoint's configuration, and so took for none.
UNSET_MAX_LENGTH: Final = 20


class TaskParams(NamedTuple):
    """What a checkpoint sets for one task: of its ``task_specific_params``, else of its configuration."""

    prefix: str
    """What stands before every text."""
    generation: Mapping[str, Any]
    """Parameters of ``GenerationConfig``."""


class Seq2Seq:
    """An ``AutoModelForSeq2SeqLM``."""

    max_batch_tokens = None
    packs = False

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model = checkpoint.model_info
        self._encoder = Encoder(checkpoint)
        own = own_parameters(checkpoint.model)
        if own.get("max_length") == UNSET_MAX_LENGTH:
            del own["max_length"]
        own.pop("max_new_tokens", None)
        self._generator = Generator(checkpoint, PIPELINE_NEW_TOKENS, own, PIPELINE_BEAMS)

    def _tokenize(self, texts: Sequence[str]) -> list[Row]:
        return self._encoder.tokenize([(text, None) for text in texts])

    def _prepare(
        self, parameters: SummarizationParameters, whole: Row, text: str, task: TaskParams, **forced: Any
    ) -> Prepared:
        row, truncated = self._encoder.fit(whole, (text, None), Truncation(truncation=parameters.truncation))
        features = {"input_ids": row.features["input_ids"]}
        rows = self._generator.rows(features, parameters, task.generation, **forced)
        tokens = sum(one.new_tokens * one.parameters.sequences for one in rows)
        return Prepared(rows, truncated, ANSWER_BYTES + tokens * TOKEN_BYTES)

    def collate(self, batch: Batch) -> Inputs:
        return self._generator.collate(batch)

    def forward(self, inputs: Inputs) -> list[Generated | RequestError]:
        return self._generator.forward(inputs)


def task_params(checkpoint: Checkpoint, task: str) -> dict[str, TaskParams]:
    """Return what the checkpoint sets for the tasks whose names begin so, or with the empty name for any task.

    transformers 5 loads ``task_specific_params`` and uses them nowhere.
    """
    config, known = checkpoint.model.config, vars(GenerationConfig())
    of_tasks = getattr(config, "task_specific_params", None) or {}
    return {
        name: TaskParams(
            str(params.get("prefix", getattr(config, "prefix", None)) or ""),
            {parameter: value for parameter, value in params.items() if parameter in known},
        )
        for name, params in (*of_tasks.items(), ("", {}))
        if name.startswith(task) or not name
    }
