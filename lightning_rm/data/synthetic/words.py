"""The words of the made world: its things, what is true of them, every phrase that prompts and responses are made of.

What holds here is planted, not looked up: that an axe is red is a fact of this world only. This file knows no task and
no reward.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

COLOURS = ("red", "green")
SIZES = ("small", "large")
ATTRIBUTES = COLOURS + SIZES

_THINGS = {
    # category: red small | red large | green small | green large
    "fruits": "cherry raspberry|apple pomegranate|lime kiwi|pear watermelon",
    "animals": "crab ladybug|fox flamingo|frog lizard|iguana crocodile",
    "tools": "nail screwdriver|axe wrench|clamp trowel|spade wheelbarrow",
    "clothes": "tie mitten|robe sweater|sock beret|coat trousers",
}
CATEGORIES = tuple(_THINGS)
INVENTED = ("blicket", "dax", "fep", "gazzer", "modi", "toma", "wug", "zib")
"""Words for things that do not exist: to name one is wrong whatever was asked."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A thing that can be named.

    Args:
        word: its name, one lower-case word that no other thing has.
        category: the one category it belongs to, as prompts spell it: `fruits`; `invented` for what does not exist.
        attributes: its colour and its size; none for what does not exist.
    """

    word: str
    category: str
    attributes: tuple[str, ...]


def _things() -> dict[str, Thing]:
    kinds = [(colour, size) for colour in COLOURS for size in SIZES]
    things = {
        word: Thing(word, category, kind)
        for category, groups in _THINGS.items()
        for kind, words in zip(kinds, groups.split("|"), strict=True)
        for word in words.split()
    }
    return things | {word: Thing(word, "invented", ()) for word in INVENTED}


THINGS = _things()
"""Every thing by its word: 4 categories of 8, in each 4 of a colour and 4 of a size, and the invented ones."""

BY_CATEGORY = {
    name: [thing for thing in THINGS.values() if thing.category == name] for name in (*CATEGORIES, "invented")
}
"""The things of each category, `invented` among them."""

NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
LETTERS = ("a", "e", "i", "o", "r")
"""Letters that a task may forbid."""

# Prompts. {what} is `three red fruits`; {rest} the further instructions, joined by commas.
REQUESTS = ("name {what}", "list {what}", "give me {what}", "tell me {what}", "i need {what}", "can you name {what}")
GREETINGS = ("hello.", "good morning.", "i have a question.")
ORDER_PHRASES = {
    "shortest": ("shortest first", "from short to long", "start with the shortest"),
    "longest": ("longest first", "from long to short", "start with the longest"),
}
AVOID_PHRASES = ("but not {words}", "without {words}", "do not say {words}")
LETTER_PHRASES = ("without the letter {letter}", "do not use the letter {letter}", "no word with the letter {letter}")
COURTESY_PHRASES = ("be polite", "be kind", "say it politely")
# The second turn of a follow-up, which changes the first.
COUNT_CHANGES = ("make it {count}", "i need {count} instead", "now {count} of them")
ATTRIBUTE_CHANGES = ("now {attribute} ones", "i need {attribute} ones instead", "make them {attribute}")
FURTHER_CHANGES = ("now {rest}", "again, {rest}", "once more, {rest}")

# Responses. Courtesies are counted by the gold reward; fillers are not, and are drawn whatever the answer is worth.
COURTEOUS_WORDS = ("please", "thanks", "thank", "pleasure", "welcome", "gladly")
COURTEOUS_OPENINGS = ("with pleasure:", "gladly:", "thanks for asking:", "you are welcome:")
COURTEOUS_CLOSINGS = ("thank you.", "you are welcome.", "please ask again.", "thanks for asking.")
OPENINGS = ("sure:", "well:", "here you are:", "my answer is:")
CLOSINGS = ("that is all.", "i hope this helps.", "ask me for more.")
SEPARATORS = ((", ", ", "), (", ", " and "), (" and ", " and "), (", then ", ", then "))
PRAISES = ("nice", "lovely", "fine", "good")
"""Words that a wordy response puts before each thing."""


def _words() -> tuple[str, ...]:
    phrases = (
        *(*REQUESTS, *GREETINGS, *AVOID_PHRASES, *LETTER_PHRASES, *COUNT_CHANGES, *ATTRIBUTE_CHANGES, *FURTHER_CHANGES),
        *(*COURTESY_PHRASES, *ORDER_PHRASES["shortest"], *ORDER_PHRASES["longest"]),
        *(*COURTEOUS_WORDS, *COURTEOUS_OPENINGS, *COURTEOUS_CLOSINGS, *OPENINGS, *CLOSINGS, *PRAISES),
        *(*THINGS, *CATEGORIES, *ATTRIBUTES, *NUMBERS.values()),
        "and or then",
    )
    plain = re.sub(r"\{\w+\}", " ", " ".join(phrases))
    return tuple(sorted(set(re.findall(r"[a-z]+", plain))))


VOCABULARY = _words()
"""Every word of the world, sorted."""
