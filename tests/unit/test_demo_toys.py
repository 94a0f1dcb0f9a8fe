"""The demo's toys are requests that the contract takes, and what they expect is an answer that their inputs allow."""

from __future__ import annotations

import json
import re

import pytest

from nlp_schemas import REQUESTS, TaskName
from nlp_worker.demo import toys

TASKS = [task for task in TaskName if task is not TaskName.TEXT_CLASSIFICATION]


def test_every_task_but_text_classification_has_a_grammar() -> None:
    assert list(toys.GRAMMARS) == TASKS


@pytest.mark.parametrize("task", TASKS)
def test_toys_are_requests(task: TaskName) -> None:
    for toy in toys.toys_to_ask(task, 50):
        request = {"inputs": toy.inputs, "parameters": toy.parameters}
        REQUESTS[task].model_validate_json(json.dumps(request))
        assert toy.expected


@pytest.mark.parametrize("task", TASKS)
def test_what_is_asked_was_never_learnt(task: TaskName) -> None:
    asked = [json.dumps(toy.inputs) for toy in toys.toys_to_ask(task, 120)]
    assert len(set(asked)) == 120
    assert not set(asked) & {json.dumps(toy.inputs) for toy in toys.toys_to_learn(task, 3000, seed=0)}


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_draws_the_same(task: TaskName) -> None:
    assert toys.toys_to_ask(task, 20) == toys.toys_to_ask(task, 20)
    assert toys.toys_to_learn(task, 20, seed=1) == toys.toys_to_learn(task, 20, seed=1)
    assert toys.toys_to_learn(task, 20, seed=1) != toys.toys_to_learn(task, 20, seed=2)


def test_a_label_is_among_the_candidates() -> None:
    for toy in toys.toys_to_ask(TaskName.ZERO_SHOT_CLASSIFICATION, 100):
        (topic,) = (topic for topic, words in toys.TOPICS.items() if set(words) & set(re.findall(r"\w+", toy.inputs)))
        assert toy.expected == topic
        assert toy.parameters["candidate_labels"].count(topic) == 1


def test_entities_stand_in_the_text_in_their_order() -> None:
    for toy in toys.toys_to_ask(TaskName.TOKEN_CLASSIFICATION, 100):
        rest = toy.inputs
        for entity in toy.expected.split(", "):
            name, _, kind = entity.rpartition(" ")
            assert name in (toys.PEOPLE if kind == "PER" else toys.TOWNS)
            assert name in rest
            rest = rest.partition(name)[2]


def test_an_answer_stands_in_the_context_once() -> None:
    for toy in toys.toys_to_ask(TaskName.QUESTION_ANSWERING, 100):
        name = toy.inputs["question"].split()[2]
        assert f"{name} lives in {toy.expected}." in toy.inputs["context"]
        assert toy.inputs["context"].count(toy.expected) == 1


def test_one_choice_goes_with_the_prompt() -> None:
    for toy in toys.toys_to_ask(TaskName.MULTIPLE_CHOICE, 100):
        (feeling,) = (feeling for feeling in toys.REACTIONS if f" {feeling}." in toy.inputs["prompt"])
        fitting = [one for one in toy.inputs["choices"] if one.partition(" ")[2][:-1] in toys.REACTIONS[feeling]]
        assert fitting == [toy.expected]


def test_a_continuation_goes_on() -> None:
    for toy in toys.toys_to_ask(TaskName.TEXT_GENERATION, 100):
        words = f"{toy.inputs} {toy.expected}".split()
        counted = any(" ".join(words) in " ".join(series) for series in toys.SERIES)
        repeated = any(words == (words[:period] * len(words))[: len(words)] for period in (2, 3))
        assert counted or repeated


def test_a_summary_names_the_winner() -> None:
    for toy in toys.toys_to_ask(TaskName.SUMMARIZATION, 100):
        winner, game, place = (toy.expected.rstrip(".").split()[index] for index in (0, 3, 5))
        won = (
            f"{winner} beat" in toy.inputs or f"lost to {winner}" in toy.inputs or f"{winner} was better" in toy.inputs
        )
        assert won
        assert game in toy.inputs.lower()
        assert place in toy.inputs


def test_an_adjective_has_its_nouns_gender() -> None:
    for toy in toys.toys_to_ask(TaskName.TRANSLATION, 100):
        article, _, colour = toy.expected.rstrip(".").split()[-3:]
        feminine = article == "une"
        assert any(colour == (forms[2] if feminine else forms[1]) for forms in toys.ADJECTIVES)
