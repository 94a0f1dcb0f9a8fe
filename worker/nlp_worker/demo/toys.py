"""Toy requests with the answers that are right, for the tasks but text classification.

Each task has a grammar of a few dozen words, out of which its sentences are drawn. What a miniature learns of them
holds for this grammar and nothing else; in return a look tells whether an answer is right.
"""

from __future__ import annotations

import itertools
import json
import random
import zlib
from dataclasses import dataclass, field
from string import Formatter
from typing import TYPE_CHECKING, Any, Final

from nlp_schemas import TaskName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NAMES: Final = ("Ann", "Bob", "Carl", "Dora", "Emma", "Fred", "Gina", "Hugo", "Iris", "Jack", "Kate", "Leo")
PLACES: Final = ("Athens", "Berlin", "Cairo", "Delhi", "Dublin", "Lima", "Madrid", "Oslo", "Paris", "Rome", "Tokyo")

TOPICS: Final = {
    "cooking": ("bread", "onion", "oven", "pan", "recipe", "soup"),
    "medicine": ("doctor", "fever", "hospital", "nurse", "pill", "wound"),
    "music": ("choir", "concert", "guitar", "piano", "song", "violin"),
    "sport": ("ball", "coach", "goal", "match", "stadium", "team"),
    "travel": ("airport", "hotel", "passport", "suitcase", "ticket", "train"),
    "weather": ("cloud", "fog", "rain", "snow", "storm", "wind"),
}
ON_A_TOPIC: Final = (
    "{name} talked about the {first} and the {second}.",
    "First came the {first}, later the {second}.",
    "In the morning {name} thought of the {first}, in the evening of the {second}.",
    "There is nothing about the {first} or the {second} that {name} does not know.",
)
HYPOTHESIS: Final = "This text is about {}."

#: Names of both a person and a place: only the sentence tells which.
EITHER: Final = ("Austin", "Florence", "Sydney")
PEOPLE: Final = (*NAMES, *EITHER, "Ann Lee", "Bob Stone", "Dora King", "Hugo Price", "Iris Lake")
TOWNS: Final = (*PLACES, *EITHER, "New York", "San Marino", "Cape Town")
WITH_ENTITIES: Final = (
    "{PER} lives in {LOC}.",
    "{PER} flew from {LOC} to {LOC} with {PER}.",
    "Last summer {PER} met {PER} near {LOC}.",
    "The mayor of {LOC} wrote to {PER}.",
    "{PER} and {PER} have never been to {LOC}.",
    "In {LOC} it rained, so {PER} took the train to {LOC}.",
)

OPPOSITES: Final = (
    ("hot", "cold"), ("big", "small"), ("old", "young"), ("fast", "slow"), ("rich", "poor"), ("high", "low"),
    ("hard", "soft"), ("dark", "light"), ("long", "short"), ("dry", "wet"), ("full", "empty"), ("loud", "quiet"),
)  # fmt: skip
YOUNG: Final = (
    ("dog", "puppy"), ("cat", "kitten"), ("cow", "calf"), ("horse", "foal"), ("sheep", "lamb"), ("duck", "duckling"),
    ("bear", "cub"), ("deer", "fawn"), ("frog", "tadpole"), ("goat", "kid"),
)  # fmt: skip
DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
#: Pairs that belong together, and the sentences in which the second is masked.
CLOZES: Final = (
    (
        (*OPPOSITES, *(pair[::-1] for pair in OPPOSITES)),
        ("{name} knows that the opposite of {known} is {mask}.", "{name} says that it was {mask}, not {known}.",
         "Nothing that is {known} is {mask}, as {name} said."),
    ),
    (
        YOUNG,
        ("{name} says that the young of a {known} is a {mask}.", "{name} has a {known} with a little {mask}.",
         "From far away {name} saw a {known} and its {mask}."),
    ),
    (
        tuple(zip(DAYS, (*DAYS[1:], DAYS[0]), strict=True)),
        ("For {name} the day after {known} is {mask}.", "{name} comes on {known} and leaves the next day, on {mask}.",
         "Today is {known}, so tomorrow {name} will say that it is {mask}."),
    ),
)  # fmt: skip
#: RoBERTa's, which the miniature is one of.
MASK: Final = "<mask>"

#: The more there are, the longer it takes until the question's name is found in the context.
PEOPLE_ASKED_OF: Final = 6

BEFORE: Final = ("It was a {adjective} evening in {place}.", "{place} saw a {adjective} final.")
RESULTS: Final = (
    "After two hours {winner} beat {loser} at {game}.",
    "In the end {loser} lost to {winner} at {game}.",
    "At {game}, as often, {winner} was better than {loser}.",
)
AFTER: Final = ("The crowd went home late.", "Both shook hands.", "Next year they will meet again.")
GAMES: Final = ("chess", "darts", "golf", "judo", "tennis")

#: The default is four beams, which find nothing better here.
GREEDY: Final = {"num_beams": 1, "max_new_tokens": 32}

#: English and French. The adjective follows its noun and takes the noun's gender.
TIMES: Final = (
    ("Today", "Aujourd'hui"), ("Tomorrow", "Demain"), ("Every day", "Chaque jour"), ("On Monday", "Lundi"),
    ("On Sunday", "Dimanche"),
)  # fmt: skip
SUBJECTS: Final = (
    ("boy", "le garçon"), ("girl", "la fille"), ("king", "le roi"), ("queen", "la reine"), ("woman", "la femme"),
    ("neighbour", "le voisin"), ("baker", "le boulanger"), ("singer", "la chanteuse"),
)  # fmt: skip
VERBS: Final = (
    ("sees", "voit"), ("buys", "achète"), ("wants", "veut"), ("loses", "perd"), ("paints", "peint"),
    ("finds", "trouve"), ("sells", "vend"),
)  # fmt: skip
OBJECTS: Final = (
    ("cat", "un chat"), ("dog", "un chien"), ("book", "un livre"), ("hat", "un chapeau"), ("boat", "un bateau"),
    ("car", "une voiture"), ("house", "une maison"), ("door", "une porte"), ("dress", "une robe"),
    ("flower", "une fleur"),
)  # fmt: skip
ADJECTIVES: Final = (
    ("black", "noir", "noire"), ("green", "vert", "verte"), ("white", "blanc", "blanche"), ("blue", "bleu", "bleue"),
    ("red", "rouge", "rouge"), ("grey", "gris", "grise"),
)  # fmt: skip

MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
#: What is counted through to its end.
SERIES: Final = (
    DAYS,
    MONTHS,
    tuple("abcdefghijklmnopqrstuvwxyz"),
    *(tuple(map(str, range(step, last + 1, step))) for step, last in ((1, 40), (5, 60), (10, 100))),
    tuple(map(str, range(20, -1, -1))),
)
COLOURS: Final = ("black", "blue", "brown", "green", "grey", "orange", "pink", "red", "white", "yellow")
#: Words that are generated at most, a token each.
NEW_WORDS: Final = 6

#: How someone feels, and what they do then.
REACTIONS: Final = {
    "thirsty": ("drinks a glass of water", "opens a bottle of juice"),
    "hungry": ("eats a sandwich", "cooks a big meal"),
    "tired": ("goes to bed early", "takes a nap"),
    "cold": ("puts on a warm coat", "lights a fire"),
    "late": ("runs to the bus", "calls a taxi"),
    "ill": ("sees the doctor", "takes a pill"),
    "dirty": ("has a shower", "washes both hands"),
    "lost": ("looks at the map", "asks for the way"),
    "bored": ("reads a novel", "turns on the radio"),
}
FEELINGS: Final = (
    "{name} is {feeling}.",
    "It is noon, and {name} is very {feeling}.",
    "Since Monday {name} has been {feeling}.",
    "{name} came home {feeling}.",
)


#: One toy in so many is held out: it is not learnt, and what the demo asks is held out.
HELD_OUT: Final = 10


@dataclass(frozen=True, slots=True)
class Toy:
    """A request's inputs and parameters, and the answer that is right, in the words of ``answers.read``."""

    inputs: Any
    expected: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


def toys_to_ask(task: TaskName, count: int, seed: int = 0) -> list[Toy]:
    """Draw toys that are held out, no two with the same inputs."""
    toys: dict[int, Toy] = {}
    for toy in _drawn(task, seed):
        if len(toys) == count:
            break
        if (number := _number(toy)) % HELD_OUT == 0:
            toys.setdefault(number, toy)
    return list(toys.values())


def toys_to_learn(task: TaskName, count: int, seed: int) -> list[Toy]:
    """Draw toys that are not held out, some more than once."""
    return list(itertools.islice((toy for toy in _drawn(task, seed) if _number(toy) % HELD_OUT), count))


def _drawn(task: TaskName, seed: int) -> Iterator[Toy]:
    draw = random.Random(seed)  # noqa: S311 - toys
    while True:
        yield GRAMMARS[task](draw)


def _number(toy: Toy) -> int:
    """Return a number by its inputs, the same in every process, which that of hash() is not."""
    return zlib.crc32(json.dumps(toy.inputs).encode())


def _zero_shot(draw: random.Random) -> Toy:
    text, topic = _on_a_topic(draw)
    labels = [topic, *draw.sample([other for other in TOPICS if other != topic], 2)]
    draw.shuffle(labels)
    return Toy(text, topic, {"candidate_labels": labels, "hypothesis_template": HYPOTHESIS})


def _features(draw: random.Random) -> Toy:
    text, topic = _on_a_topic(draw)
    return Toy(text, topic, {"pooling": "mean", "normalize": True})


def _on_a_topic(draw: random.Random) -> tuple[str, str]:
    topic = draw.choice(list(TOPICS))
    first, second = draw.sample(TOPICS[topic], 2)
    return draw.choice(ON_A_TOPIC).format(name=draw.choice(NAMES), first=first, second=second), topic


def _entities(draw: random.Random) -> Toy:
    names = {"PER": draw.sample(PEOPLE, len(PEOPLE)), "LOC": draw.sample(TOWNS, len(TOWNS))}
    text, found = "", []
    for before, kind, _, _ in Formatter().parse(draw.choice(WITH_ENTITIES)):
        text += before
        if kind is not None:
            text += names[kind][-1]
            found.append(f"{names[kind].pop()} {kind}")
    return Toy(text, ", ".join(found), {"aggregation_strategy": "simple"})


def _cloze(draw: random.Random) -> Toy:
    pairs, sentences = draw.choice(CLOZES)
    known, masked = draw.choice(pairs)
    return Toy(draw.choice(sentences).format(name=draw.choice(NAMES), known=known, mask=MASK), masked, {"top_k": 1})


def _question(draw: random.Random) -> Toy:
    people, places = draw.sample(NAMES[:PEOPLE_ASKED_OF], 3), draw.sample(PLACES, 3)
    context = " ".join(f"{name} lives in {place}." for name, place in zip(people, places, strict=True))
    asked = draw.randrange(len(people))
    return Toy({"question": f"Where does {people[asked]} live?", "context": context}, places[asked])


def _report(draw: random.Random) -> Toy:
    winner, loser = draw.sample(NAMES, 2)
    place, game = draw.choice(PLACES), draw.choice(GAMES)
    adjective = draw.choice(("cold", "long", "quiet", "warm"))
    report = " ".join(map(draw.choice, (BEFORE, RESULTS, AFTER)))
    text = report.format(winner=winner, loser=loser, place=place, game=game, adjective=adjective)
    return Toy(text, f"{winner} won at {game} in {place}.", GREEDY)


def _translation(draw: random.Random) -> Toy:
    when, subject, verb = draw.choice(TIMES), draw.choice(SUBJECTS), draw.choice(VERBS)
    thing, une_chose = draw.choice(OBJECTS)
    colour, masculine, feminine = draw.choice(ADJECTIVES)
    coloured = feminine if une_chose.startswith("une ") else masculine
    return Toy(
        f"{when[0]} the {subject[0]} {verb[0]} a {colour} {thing}.",
        f"{when[1]} {subject[1]} {verb[1]} {une_chose} {coloured}.",
        GREEDY,
    )


def _continuation(draw: random.Random) -> Toy:
    if draw.random() < 0.5:  # noqa: PLR2004 - every other one
        pattern = draw.sample(COLOURS, draw.choice((2, 3)))
        words, given = tuple(pattern * 8), draw.randint(len(pattern) + 1, 2 * len(pattern) + 1)
    else:
        series = draw.choice(SERIES)
        # Of fewer it would be hard to learn whether they are counted up or down.
        given = draw.choice((3, 4))
        words = series[draw.randrange(len(series) - given) :]
    text = " ".join(words[:given])
    expected = " ".join(words[given : given + NEW_WORDS])
    return Toy(text, expected, {"max_new_tokens": NEW_WORDS, "do_sample": False, "return_full_text": False})


def _choice(draw: random.Random) -> Toy:
    name, feelings = draw.choice(NAMES), draw.sample(list(REACTIONS), 3)
    choices = [f"{name} {draw.choice(REACTIONS[feeling])}." for feeling in feelings]
    right = draw.randrange(len(choices))
    prompt = draw.choice(FEELINGS).format(name=name, feeling=feelings[right])
    return Toy({"prompt": prompt, "choices": choices}, choices[right])


GRAMMARS: Final[Mapping[TaskName, Callable[[random.Random], Toy]]] = {
    TaskName.ZERO_SHOT_CLASSIFICATION: _zero_shot,
    TaskName.TOKEN_CLASSIFICATION: _entities,
    TaskName.FILL_MASK: _cloze,
    TaskName.QUESTION_ANSWERING: _question,
    TaskName.SUMMARIZATION: _report,
    TaskName.TRANSLATION: _translation,
    TaskName.TEXT_GENERATION: _continuation,
    TaskName.FEATURE_EXTRACTION: _features,
    TaskName.MULTIPLE_CHOICE: _choice,
}
