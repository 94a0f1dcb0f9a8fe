"""Chats, draws, refusals and limits of text generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
import transformers

from task_bench import DEVICE, TaskBench, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from nlp_worker.batching import Batch
    from nlp_worker.tasks.search import Inputs
    from parity import Parity

GREEDY: Final = {"do_sample": False, "max_new_tokens": 10}


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


CHATS: Final[Sequence[tuple[list[dict[str, str]], dict[str, Any]]]] = (
    ([user("Is this the best that you can do?")], {}),
    ([{"role": "system", "content": "Be brief."}, user("Where is the sea?")], {}),
    ([user("Hello"), assistant("Thank you"), user("And Rome?")], {"num_beams": 3, "num_return_sequences": 2}),
    ([user("Who went to Paris?"), assistant("Ann and")], {}),
    ([user("Who went to Paris?"), assistant("Ann and")], {"continue_final_message": False}),
    ([user("The museum opens at")], {"continue_final_message": True}),
    ([user("When?"), assistant("At nine, or")], {"return_full_text": False, "num_beams": 2}),
    ([user("How many?")], {"return_full_text": False, "stop": ["a", "e"], "min_new_tokens": 3}),
)


@pytest.fixture
def fresh(folder_of: Callable[..., Path]) -> Callable[[str], TaskBench]:
    """A checkpoint loaded for one test, to be damaged."""
    return lambda family: serve(("text-generation", folder_of(family, "causal-lm")))


def generated(answer: Mapping[str, Any]) -> list[Any]:
    assert answer["status"] == "ok", answer
    return [output["generated_text"] for output in answer["outputs"]]


def ask(bench: TaskBench, *requests: tuple[Any, dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    return bench.ask([{"inputs": inputs, "parameters": parameters} for inputs, parameters in requests], **options)


def test_a_chat_is_answered_as_the_pipeline_does_it(
    bench_of: Callable[..., TaskBench], folder_of: Callable[..., Path], parity: Parity
) -> None:
    """Messages in, the assistant's message behind them, or at the end of its last one; in a poll with plain prompts."""
    bench = bench_of("text-generation", "qwen3")
    requests: list[tuple[Any, dict[str, Any]]] = [(chat, {**GREEDY, **parameters}) for chat, parameters in CHATS]
    requests += [("The museum opens at", GREEDY), ("The", GREEDY)]
    alone = [generated(ask(bench, request)[0]) for request in requests]
    ours = [generated(answer) for answer in ask(bench, *requests)]
    assert ours == alone
    pipe = transformers.pipeline(
        "text-generation", str(folder_of("qwen3", "causal-lm")), dtype=torch.float32, device=DEVICE
    )
    for (inputs, parameters), texts in zip(requests, ours, strict=True):
        asked = {"stop_sequence" if name == "stop" else name: value for name, value in parameters.items()}
        assert texts == [record["generated_text"] for record in pipe(inputs, **asked)]
    assert ours[0][0][:-1] == CHATS[0][0]
    assert ours[0][0][-1]["role"] == "assistant"
    assert ours[3][0][-1]["content"].startswith("Ann and")
    parity.record("text-generation", "qwen3", cases=len(requests), single=0.0, pipeline=0.0)


def test_a_chat_without_a_template_is_refused(bench_of: Callable[..., TaskBench]) -> None:
    """It is told what to send; its neighbour is answered."""
    refused, other = ask(bench_of("text-generation", "gpt2"), ([user("Hello")], GREEDY), ("Hello", GREEDY))
    assert refused["error"]["code"] == "invalid_request"
    assert "no chat template: send a text" in refused["error"]["message"]
    assert other["status"] == "ok"


@pytest.mark.parametrize(
    ("template", "code", "told"),
    [
        ("{% if messages[0].role == 'user' %}ok{% else %}{{ raise_exception('no system') }}{% endif %}",
         "invalid_request", "chat template refuses the messages: no system"),
        ("{% if messages[0].role == 'user' %}ok{% else %}{{ messages[0].content + 1 }}{% endif %}",
         "inference_failed", "TypeError"),
    ],
    ids=["refuses", "is broken"],
)  # fmt: skip
def test_a_template_that_raises_costs_one_request(
    fresh: Callable[[str], TaskBench], template: str, code: str, told: str
) -> None:
    """A template may refuse messages, or fail on them; the other requests of the poll are answered."""
    bench: Any = fresh("qwen3")
    bench.task._tokenizer.chat_template = template
    system = {"role": "system", "content": "Be brief."}
    first, failed, last = ask(bench, ([user("a")], GREEDY), ([system], GREEDY), ("The", GREEDY))
    assert (first["status"], last["status"]) == ("ok", "ok")
    assert failed["error"]["code"] == code
    assert told in failed["error"]["message"]


def test_a_final_message_that_the_template_leaves_out_cannot_be_continued(fresh: Callable[[str], TaskBench]) -> None:
    """It is the request that does not fit the checkpoint."""
    bench: Any = fresh("qwen3")
    bench.task._tokenizer.chat_template = "nothing of it"
    (refused,) = ask(bench, ([user("a"), assistant("something else")], GREEDY))
    assert refused["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"num_return_sequences": 2}, "parameters.num_return_sequences is 2"),
        ({"num_return_sequences": 3, "num_beams": 2}, "parameters.num_return_sequences is 3"),
        ({"max_new_tokens": None, "max_length": 3}, "parameters.max_length is 3, and the prompt has"),
        ({"do_sample": True, "num_beams": 2}, "do_sample and num_beams above 1 exclude each other"),
        ({"min_length": 9, "max_length": 8}, "min_length is 9, above max_length"),
        ({"top_p": 0}, "top_p"),
        ({"temperature": 0}, "temperature"),
        ({"stop": []}, "stop"),
    ],
    ids=str,
)
def test_parameters_that_do_not_fit_are_named(
    bench_of: Callable[..., TaskBench], parameters: dict[str, Any], told: str
) -> None:
    """The request is refused before the device sees it, and its neighbours are answered as if it were not there."""
    bench = bench_of("text-generation", "gpt2")
    asked = {**GREEDY, **parameters}
    first, refused, last = ask(bench, ("The fox", GREEDY), ("The dog jumps over the fox", asked), ("A", GREEDY))
    assert refused["error"]["code"] == "invalid_request"
    assert told in refused["error"]["message"]
    assert [generated(first), generated(last)] == [generated(ask(bench, (one, GREEDY))[0]) for one in ("The fox", "A")]


SAMPLED: Final = {"do_sample": True, "max_new_tokens": 12, "min_new_tokens": 8}


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "bart"])
def test_a_draw_is_the_records_own_for_ever(bench_of: Callable[..., TaskBench], family: str) -> None:
    """The same alone, in any batch and delivered again; another one for another offset, or a second sequence."""
    bench = bench_of("text-generation", family)
    request = "The fox", SAMPLED
    (first,) = ask(bench, request, offsets=[5])
    (again,) = ask(bench, request, offsets=[5])
    *_, among_others = ask(
        bench, *[(text, SAMPLED) for text in ("A", "The dog", "Where")], request, offsets=[6, 7, 8, 5]
    )
    assert generated(first) == generated(again) == generated(among_others)
    others = ask(bench, *[request] * 6, offsets=range(10, 16))
    assert len({generated(answer)[0] for answer in [first, *others]}) == 7
    (several,) = ask(bench, ("The fox", {**SAMPLED, "num_return_sequences": 4}), offsets=[5])
    assert len(set(generated(several))) == 4
    assert generated(several)[0] == generated(first)[0]
    assert several["usage"]["output_tokens"] >= 4 * 8
    assert len(several["finish_reasons"]) == 4


def test_a_seed_is_a_text_whatever_the_record(bench_of: Callable[..., TaskBench]) -> None:
    """The same seed the same text at any offset, another seed another one."""
    bench = bench_of("text-generation", "gpt2")
    requests = [("The fox", {**SAMPLED, "seed": seed}) for seed in (1, 1, 2, 2**53 - 1)]
    one, same, *others = (generated(answer)[0] for answer in ask(bench, *requests))
    assert one == same
    assert len({one, *others}) == 3


def test_the_likeliest_alone_is_greedy(bench_of: Callable[..., TaskBench]) -> None:
    """By top_k 1, by a top_p or a temperature near 0; and a high temperature is not."""
    bench = bench_of("text-generation", "gpt2")
    (greedy,) = ask(bench, ("The fox", {**SAMPLED, "do_sample": False}))
    narrow = {"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-3}, {"min_p": 1.0}
    wide = {"temperature": 50.0, "top_k": 0}
    *narrowed, free = ask(bench, *(("The fox", {**SAMPLED, **one}) for one in (*narrow, wide)))
    for answer in narrowed:
        assert generated(answer) == generated(greedy)
    assert generated(free) != generated(greedy)


def test_a_draw_is_the_default_as_in_the_pipeline(bench_of: Callable[..., TaskBench]) -> None:
    """Unless told otherwise up to 256 tokens are drawn; beams alone are no draw."""
    bench = bench_of("text-generation", "gpt2")
    one, other = ask(bench, *[("The fox", {"min_new_tokens": 4})] * 2)
    assert generated(one) != generated(other)
    assert 0 < one["usage"]["output_tokens"] <= 256
    beams, same = ask(bench, *[("The fox", {"num_beams": 2, "max_new_tokens": 6})] * 2)
    assert generated(beams) == generated(same)


@pytest.mark.parametrize("parameters", [GREEDY, SAMPLED, {**GREEDY, "num_beams": 2}], ids=["greedy", "draw", "beams"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_cost_one_request(
    fresh: Callable[[str], TaskBench], number: float, parameters: dict[str, Any]
) -> None:
    """A damaged embedding of one token: the request that has it fails, and its neighbours do not see it."""
    bench: Any = fresh("llama")
    requests = [(text, parameters) for text in ("The fox", "The dog jumps", "Where")]
    before = [generated(answer) for answer in ask(bench, *requests, offsets=[1, 2, 3])]
    embeddings = bench.task._generator._model.get_input_embeddings()
    (token,) = bench.task._tokenizer("~", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        embeddings.weight[token] = number
    *after, failed = ask(bench, *requests, ("A ~ B", parameters), offsets=[1, 2, 3, 4])
    assert bench.batches == [4]
    assert failed["error"]["code"] == "inference_failed"
    assert "not finite" in failed["error"]["message"]
    assert [generated(answer) for answer in after] == before


def test_a_row_that_raises_is_found_and_fails_alone(
    bench_of: Callable[..., TaskBench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batch is run again in halves: the others get what they get without it."""
    bench: Any = bench_of("text-generation", "gpt2")
    requests = [(text, GREEDY) for text in ("The fox", "A", "The dog jumps", "Where is the sea")]
    before = [generated(answer) for answer in ask(bench, *requests)]
    (token,) = bench.task._tokenizer("~")["input_ids"]
    forward = bench.task.forward

    def raising(inputs: Inputs) -> Any:
        if (inputs.tensors["input_ids"] == token).any():
            raise RuntimeError("a bad row")
        return forward(inputs)

    monkeypatch.setattr(bench.task, "forward", raising)
    *after, failed = ask(bench, *requests, ("A ~ B", GREEDY))
    assert failed["error"]["code"] == "inference_failed"
    assert "a bad row" in failed["error"]["message"]
    assert [generated(answer) for answer in after] == before


def test_what_is_asked_is_given_to_each_of_one_poll(bench_of: Callable[..., TaskBench]) -> None:
    """One prompt with five sets of parameters in one batch, each as it is alone, and as its parameters say."""
    bench = bench_of("text-generation", "gpt2")
    sets = (
        {"max_new_tokens": 3},
        {"max_new_tokens": 9},
        {"no_repeat_ngram_size": 1},
        {"return_full_text": False},
        {"do_sample": True},
    )
    requests = [("The fox", {**GREEDY, "min_length": 12, **one}) for one in sets]
    answers = ask(bench, *requests)
    assert bench.batches == [5]
    three, nine, unrepeated, bare, drawn = (generated(answer)[0] for answer in answers)
    assert [answer["usage"]["output_tokens"] for answer in answers[:2]] == [3, 9]
    assert nine.startswith(three)
    assert f"The fox{bare}".startswith(nine)
    assert len({f"The fox{bare}", unrepeated, drawn}) == 3
    assert [generated(ask(bench, one, offsets=[at])[0]) for at, one in enumerate(requests)] == list(
        map(generated, answers)
    )


SMALL: Final = {"gpt2": "n_positions", "openai-gpt": "n_positions", "ctrl": "n_positions",
                "llama": "max_position_embeddings", "bart": "max_position_embeddings"}  # fmt: skip


@pytest.mark.parametrize(("family", "positions"), SMALL.items())
def test_positions_are_never_exceeded(
    bench_of: Callable[..., TaskBench], monkeypatch: pytest.MonkeyPatch, family: str, positions: str
) -> None:
    """A row stops at the last; one that has ended is carried on beside longer ones, and no batch is run again."""
    bench = bench_of("text-generation", family, **{positions: 64})
    runs: list[int] = []
    collate = bench.task.collate

    def counted(batch: Batch) -> Any:
        runs.append(len(batch.rows))
        return collate(batch)

    monkeypatch.setattr(bench.task, "collate", counted)
    asked = {"do_sample": False, "min_new_tokens": 100, "max_new_tokens": 100}
    prompts = "The fox", "The fox " * 10, "The dog " * 14, "The fox " * 200
    *fitting, refused = bench.ask([{"inputs": prompt, "parameters": asked} for prompt in prompts], budget=10_000)
    for answer in fitting:
        assert answer["usage"]["input_tokens"] + answer["usage"]["output_tokens"] == 64
        assert answer["finish_reasons"] == ["length"]
    assert refused["error"]["code"] == "input_too_long"
    assert "64 positions" in refused["error"]["message"]
    assert sorted(runs) == sorted(bench.batches)
    alone = [bench.ask([{"inputs": prompt, "parameters": asked}])[0] for prompt in prompts[:3]]
    assert [generated(answer) for answer in fitting] == [generated(answer) for answer in alone]
