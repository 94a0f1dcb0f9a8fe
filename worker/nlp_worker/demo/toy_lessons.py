"""What a miniature learns of a toy: what its forward takes, the loss, and when it is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch  # noqa: TC002 - beside its functions
from torch.nn.functional import cross_entropy, normalize, one_hot

from nlp_worker.demo.toys import HYPOTHESIS, TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nlp_worker.demo.fit import Batch
    from nlp_worker.demo.toys import Toy

    #: What a model's forward takes for one toy: numbers, lists, or lists of lists, padded when they meet others.
    Features = dict[str, Any]

#: What a loss of transformers leaves out.
IGNORED: Final = -100
NLI: Final = ("contradiction", "entailment")
ENTITIES: Final = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
#: Divides the cosines, so that they can become chances near 0 and 1.
TEMPERATURE: Final = 0.1


def of_pairs(tokenizer: Any, toy: Toy) -> Iterator[Features]:
    labels = toy.parameters["candidate_labels"]
    yield {**_pairs(tokenizer, toy.inputs, map(HYPOTHESIS.format, labels)), "labels": labels.index(toy.expected)}


def of_choices(tokenizer: Any, toy: Toy) -> Iterator[Features]:
    choices = toy.inputs["choices"]
    yield {**_pairs(tokenizer, toy.inputs["prompt"], choices), "labels": choices.index(toy.expected)}


def _pairs(tokenizer: Any, first: str, seconds: Iterable[str]) -> Any:
    pairs = [(first, second) for second in seconds]
    # Asked for by name: ALBERT's tokenizer does not make token types by itself.
    return tokenizer(pairs, return_token_type_ids=True)


def of_entities(tokenizer: Any, toy: Toy) -> Iterator[Features]:
    encoded = tokenizer(toy.inputs)
    labels = [ENTITIES.index("O")] * len(encoded["input_ids"])
    end = 0
    for entity in toy.expected.split(", "):
        name, _, kind = entity.rpartition(" ")
        start = toy.inputs.index(name, end)
        end = start + len(name)
        tokens = sorted({encoded.char_to_token(place) for place in range(start, end) if toy.inputs[place] != " "})
        labels[tokens[0]] = ENTITIES.index(f"B-{kind}")
        for token in tokens[1:]:
            labels[token] = ENTITIES.index(f"I-{kind}")
    yield {**encoded, "labels": labels}


def of_mask(tokenizer: Any, toy: Toy) -> Iterator[Features]:
    encoded = tokenizer(toy.inputs)
    (word,) = tokenizer(f" {toy.expected}", add_special_tokens=False)["input_ids"]
    labels = [word if token == tokenizer.mask_token_id else IGNORED for token in encoded["input_ids"]]
    yield {**encoded, "labels": labels}


def of_span(tokenizer: Any, toy: Toy) -> Iterator[Features]:
    encoded = tokenizer(toy.inputs["question"], toy.inputs["context"])
    start = toy.inputs["context"].index(toy.expected)
    first, last = (encoded.char_to_token(place, sequence_index=1) for place in (start, start + len(toy.expected) - 1))
    yield {**encoded, "start_positions": first, "end_positions": last}


def of_text(tokenizer: Any, toy: Toy) -> Iterator[Features]:
    yield {**tokenizer(toy.inputs), "labels": tokenizer(text_target=toy.expected)["input_ids"]}


def of_continuation(tokenizer: Any, toy: Toy) -> Iterator[Features]:
    # What is counted through ends; what goes on is cut by its length.
    ended = len(toy.expected.split()) < toy.parameters["max_new_tokens"]
    given = tokenizer(toy.inputs)["input_ids"]
    new = tokenizer(f" {toy.expected}")["input_ids"] + [tokenizer.eos_token_id] * ended
    ids = given + new
    yield {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [IGNORED] * len(given) + new}


def of_topic(tokenizer: Any, toy: Toy) -> Iterator[Features]:
    yield {**tokenizer(toy.inputs), "labels": list(TOPICS).index(toy.expected)}


def loss(model: Any, batch: Batch) -> torch.Tensor:
    loss: torch.Tensor = model(**batch).loss
    return loss


def right(model: Any, batch: Batch) -> torch.Tensor:
    """Of a text that is generated each next token is right, given those before: so greedy decoding makes it."""
    return _same(model(**batch).logits, batch["labels"])


def loss_of_next(model: Any, batch: Batch) -> torch.Tensor:
    # As GPT-2's own, which comes with a warning that it is the default.
    return cross_entropy(_logits_of_next(model, batch).flatten(0, 1), batch["labels"][:, 1:].flatten())


def right_next(model: Any, batch: Batch) -> torch.Tensor:
    return _same(_logits_of_next(model, batch), batch["labels"][:, 1:])


def _logits_of_next(model: Any, batch: Batch) -> torch.Tensor:
    inputs = {name: values for name, values in batch.items() if name != "labels"}
    logits: torch.Tensor = model(**inputs).logits
    return logits[:, :-1]


def _same(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    same = (logits.argmax(dim=-1) == labels) | (labels == IGNORED)
    return same.reshape(len(labels), -1).all(dim=-1)


def right_span(model: Any, batch: Batch) -> torch.Tensor:
    outputs = model(**batch)
    first = _same(outputs.start_logits, batch["start_positions"])
    return first & _same(outputs.end_logits, batch["end_positions"])


def entailment_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Return how wrong the pairs are one by one, and, which is learnt much sooner, against each other."""
    logits, labels = _of_each_pair(model, batch), batch["labels"]
    entailed = one_hot(labels, logits.shape[1])
    return cross_entropy(logits.flatten(0, 1), entailed.flatten()) + cross_entropy(logits[..., 1], labels)


def right_entailment(model: Any, batch: Batch) -> torch.Tensor:
    return _same(_of_each_pair(model, batch)[..., 1], batch["labels"])


def _of_each_pair(model: Any, batch: Batch) -> torch.Tensor:
    """Return logits of shape [toys, candidate labels, NLI labels]."""
    inputs = {name: values.flatten(0, 1) for name, values in batch.items() if name != "labels"}
    logits: torch.Tensor = model(**inputs).logits
    return logits.view(*batch["input_ids"].shape[:2], len(NLI))


def contrast(model: Any, batch: Batch) -> torch.Tensor:
    """Return the loss that draws the vectors of a topic together and those of several apart."""
    chances = (_likeness(model, batch) / TEMPERATURE).log_softmax(dim=-1)
    same = batch["labels"][:, None] == batch["labels"]
    return -chances[same.fill_diagonal_(False)].mean()


def right_neighbour(model: Any, batch: Batch) -> torch.Tensor:
    """Tell whether the text whose vector is the nearest is of the same topic."""
    return batch["labels"][_likeness(model, batch).argmax(dim=-1)] == batch["labels"]


def _likeness(model: Any, batch: Batch) -> torch.Tensor:
    """Return the cosines between the texts' mean vectors; no text is like itself."""
    mask = batch["attention_mask"]
    hidden = model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
    vectors = normalize((hidden * mask[..., None]).sum(dim=1), dim=-1)
    return (vectors @ vectors.T).fill_diagonal_(-1)
