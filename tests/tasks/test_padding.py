"""The textbook's example: what padding does to a sequence classifier's answer, without and with its attention mask.

This is why every batch of the worker goes with a mask. It also proves the checkpoints of the other tests: on ones whose
answers ignored the padding, no test of batching could fail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers

from checkpoints import SENTENCES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FAMILIES = ("albert", "bert", "distilbert", "electra", "roberta")
SHORT = "I love this film."
LONG = "She said that the train would arrive at 17:45, but it never came, and nobody answered the telephone."


@dataclass(frozen=True)
class Classifier:
    tokenizer: Any
    model: Any

    def encode(self, *texts: str) -> dict[str, torch.Tensor]:
        # ALBERT's tokenizer leaves the token types out unless asked.
        token_types = getattr(self.model.config, "type_vocab_size", 1) > 1
        return dict(
            self.tokenizer(list(texts), padding=True, return_tensors="pt", return_token_type_ids=token_types or None)
        )

    def logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = self.model(**inputs).logits
        return logits


@pytest.fixture(scope="module", params=FAMILIES)
def classifier(request: pytest.FixtureRequest, folder_of: Callable[..., Path]) -> Classifier:
    folder = folder_of(request.param, "sequence-classification")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
    )
    return Classifier(tokenizer, model.eval())


def test_with_its_mask_a_padded_row_has_the_logits_it_has_alone(classifier: Classifier) -> None:
    padded = classifier.logits(classifier.encode(SHORT, LONG))
    for row, text in enumerate((SHORT, LONG)):
        (alone,) = classifier.logits(classifier.encode(text))
        torch.testing.assert_close(padded[row], alone, atol=1e-4, rtol=1e-4)


def test_without_a_mask_a_padded_row_has_other_logits(classifier: Classifier) -> None:
    inputs = classifier.encode(SHORT, LONG)
    mask = inputs.pop("attention_mask")
    unmasked = classifier.logits(inputs)
    # Nothing guesses the mask from the padding tokens: to leave it out is to attend to them.
    attended = classifier.logits({**inputs, "attention_mask": torch.ones_like(mask)})
    torch.testing.assert_close(unmasked, attended)
    (alone,) = classifier.logits(classifier.encode(SHORT))
    assert (unmasked[0] - alone).abs().max() > 0.1
    # The longest row has no padding, and so no need of a mask.
    (longest,) = classifier.logits(classifier.encode(LONG))
    torch.testing.assert_close(unmasked[1], longest, atol=1e-4, rtol=1e-4)


def test_answers_depend_on_the_text(classifier: Classifier) -> None:
    logits = torch.cat([classifier.logits(classifier.encode(text)) for text in SENTENCES])
    assert len(set(logits.argmax(dim=-1).tolist())) == logits.shape[1]
    assert logits.std(dim=0).min() > 0.5
    assert logits.std(dim=0).max() < 4


def test_answers_depend_on_the_order_of_the_words(classifier: Classifier) -> None:
    texts = "The dog jumps over the fox.", "The fox jumps over the dog."
    first, second = classifier.logits(classifier.encode(*texts))
    assert (first - second).abs().max() > 0.1


def test_a_pair_is_not_the_same_as_one_text(classifier: Classifier) -> None:
    if getattr(classifier.model.config, "type_vocab_size", 1) == 1:
        pytest.skip("the family has no token types")
    pair = dict(classifier.tokenizer(SHORT, LONG, return_tensors="pt", return_token_type_ids=True))
    one_type = {**pair, "token_type_ids": torch.zeros_like(pair["token_type_ids"])}
    assert (classifier.logits(pair) - classifier.logits(one_type)).abs().max() > 0.1
