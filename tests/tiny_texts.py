"""What the tiny tokenizers are trained on and the tiny models calibrated with; tests use it as texts too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What the tokenizers are trained on.
SENTENCES: Final[Sequence[str]] = (
    "I love this film.",
    "I hate this film!",
    "What a wonderful, wonderful day it was.",
    "The food was cold, the service slow and the bill far too high.",
    "Nobody answered the telephone, and so we left.",
    "The quick brown fox jumps over the lazy dog.",
    "Pack my box with five dozen liquor jugs.",
    "Is this the best that you can do?",
    "It is neither good nor bad; it is simply there.",
    "She said that the train would arrive at 17:45, but it never came.",
    "Ann and Bob went to Paris in 2019, and to Rome in 2023.",
    "My order (no. 8461) has not been delivered yet.",
    "Thank you very much for your kind and quick help!",
    "The battery lasts three days, which is more than I expected.",
    "A dull story, badly told and worse acted.",
    "We were delighted with the room, the view and the breakfast.",
    "The screen broke after a week. I want my money back.",
    "Great value: half the price, and twice as fast.",
    "The committee will meet on Monday to discuss the budget.",
    "Rain is expected in the north, with some sun later in the day.",
    "The museum opens at nine and closes at six, except on Sundays.",
    "This book changed how I think about the sea.",
    "He wrote the letter, read it again, and threw it away.",
    "The company reported a profit of 4.2 million dollars for the year.",
    "Never again will I buy anything from this shop.",
    "The children were happy, the parents tired.",
    "An honest, moving and often very funny play.",
    "The lecture was so boring that half of the audience fell asleep.",
    "Water boils at 100 degrees, at least at the level of the sea.",
    "The new version is slower than the old one, and crashes more often.",
    "Everyone in the team was friendly, patient and well prepared.",
    "The match ended in a draw after ninety minutes of rain.",
    "I don't know what to say; it's just perfect.",
    "They've lost the keys, the map & the way.",
    'The label said "fragile", yet the box had been dropped.',
    "The doctor explained everything twice, and calmly.",
    "A terrible noise kept us awake all night long.",
    "The bridge was built in 1887 and painted red last summer.",
    "Prices start at $35 per person; groups of ten pay 20% less.",
    "The garden smells of roses, lavender and freshly cut grass.",
    "It worked for ten minutes. Then smoke came out of it.",
    "The journey takes about four hours by bus or two by train.",
)
#: What the vocabularies of families that translate have besides: French, German, Romanian.
FOREIGN: Final[Sequence[str]] = (
    "J'aime ce film, et le train est arrivé à dix-sept heures.",
    "Le musée ouvre à neuf heures ; la mer était très belle.",
    "Ça ne marche pas, où est la clé de la maison ?",
    "Ich liebe diesen Film, aber der Zug ist nie gekommen.",
    "Das Museum öffnet um neun Uhr und schließt um sechs.",
    "Wir haben die Schlüssel für das große Haus verloren.",
    "Îmi place acest film, dar trenul nu a venit niciodată.",
    "Muzeul se deschide la ora nouă și se închide la șase.",
    "Copiii erau fericiți, părinții obosiți, iar cartea bună.",
)
