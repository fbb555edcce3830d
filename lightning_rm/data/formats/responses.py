"""Find where a prompt ends and its responses begin, whether or not the row has a field for the prompt.

This file knows the two conversations of a pair, or the responses to a prompt; it knows no file and no data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast, get_args

from lightning_rm.data.formats.fields import WRONG_TYPE, RowError, shown, text
from lightning_rm.data.formats.turns import (
    PROMPT_DISAGREES,
    Turns,
    hh_turns,
    is_hh_text,
    prompt_turns,
    read_turns,
)
from lightning_rm.options import check_words

SEVERAL_RESPONSES = "several responses"
PREFILL = "prefill"

Prefill = Literal["error", "continue"]
"""What becomes of a prompt that ends with the beginning of the assistant's answer: an error, or part of each answer."""


def check_prefill(prefill: str) -> None:
    """Raise ValueError for a word that is not one of `Prefill`."""
    check_words(get_args(Prefill), prefill=prefill)


def explicit_pair(prompt: object, chosen: object, rejected: object, prefill: Prefill) -> tuple[Turns, Turns, Turns]:
    """Return prompt, chosen and rejected of a row that names its prompt.

    The responses may be written with the prompt in front of them or without.
    """
    turns = prompt_turns(prompt)
    sides = {name: answer_turns(turns, side, name) for name, side in (("chosen", chosen), ("rejected", rejected))}
    turns, sides = continued(turns, sides, prefill)
    return turns, sides["chosen"], sides["rejected"]


def continued(prompt: Turns, responses: Mapping[str, Turns], prefill: Prefill) -> tuple[Turns, dict[str, Turns]]:
    """Return a prompt and its responses, each of which continues the assistant's turn that the prompt may end with.

    `U A` and `A'` become `U` and one turn `A A'`; the texts are joined as they are, without a blank between them.

    Args:
        prompt: the turns before the responses.
        responses: name -> the turns of a response.
        prefill: what to do with a prompt that ends with the assistant's turn.

    Raises:
        RowError: if `prefill` makes it an error, or a response does not go on from it.
    """
    firsts = [turns[0] for turns in responses.values() if turns]
    if not prompt or prompt[-1]["role"] != "assistant" or not any(turn["role"] == "assistant" for turn in firsts):
        return prompt, dict(responses)
    if prefill == "error":
        raise RowError(
            PREFILL,
            "the prompt ends with the assistant's turn, and the responses begin with another; prefill=continue has "
            "them go on in that turn, else the prompt must end with the turn that they answer",
        )
    begun = prompt[-1]
    for name, turns in responses.items():
        if not turns or turns[0]["role"] != "assistant":
            raise RowError(PREFILL, f"{name} does not go on in the assistant's turn that the prompt ends with")
    return prompt[:-1], {
        name: ({**begun, **turns[0], "content": begun["content"] + turns[0]["content"]}, *turns[1:])
        for name, turns in responses.items()
    }


def answer_turns(prompt: Turns, value: object, name: str) -> Turns:
    """Return the turns that answer a prompt, which may stand in front of them."""
    if is_hh_text(value) and _begins_with(turns := hh_turns(cast(str, value), name), prompt, name):
        return turns[len(prompt) :]
    texts = cast(list[object], value) if _is_texts(value) else []
    in_front = prompt and texts[:1] == [prompt[0]["content"]]
    turns = read_turns(value, name, "user" if in_front else "assistant")
    if _begins_with(turns, prompt, name):
        return turns[len(prompt) :]
    if len(texts) > 1:
        raise RowError(
            SEVERAL_RESPONSES,
            f"{name} is a list of {len(texts)} texts without roles beside a prompt, which may be as many responses; a "
            "pair has one response a side: write the turns of a dialogue as messages with their roles, and several "
            "responses as a row each",
        )
    if prompt and turns and turns[0]["role"] in ("user", "system"):
        raise RowError(
            PROMPT_DISAGREES,
            f"{name} begins with a {turns[0]['role']} turn that is not the prompt's; if the prompt stands in "
            "both responses anyway, hide the field with columns={prompt: null}",
        )
    return turns


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in cast(Sequence[object], value))


def _begins_with(turns: Turns, prompt: Turns, name: str) -> bool:
    """Tell whether a conversation repeats the prompt and goes on after it; blanks around a turn do not count.

    Raises:
        RowError: if it says more than the prompt under another key, which would be lost with the repeated turn.
    """
    repeats = 0 < len(prompt) < len(turns) and all(
        turn["role"] == asked["role"] and turn["content"].strip() == asked["content"].strip()
        for turn, asked in zip(turns, prompt, strict=False)
    )
    for place, (turn, asked) in enumerate(zip(turns, prompt, strict=False) if repeats else ()):
        if more := [key for key, value in turn.items() if key != "content" and asked.get(key) != value]:
            raise RowError(
                PROMPT_DISAGREES,
                f"{name} repeats the prompt, and says more of turn {place} than the prompt does: {', '.join(more)}; "
                "read the prompt out of the responses with columns={prompt: null}",
            )
    return repeats


def implicit_pair(chosen: object, rejected: object) -> tuple[Turns, Turns, Turns]:
    """Return prompt, chosen and rejected of a row whose two conversations share their prompt.

    Lists of turns share their longest common prefix; each side keeps one turn at least. Two texts without marks share
    what stands before the last line break of their longest common prefix: `"Q: 2+2?\\n4"` and `"Q: 2+2?\\n5"` have the
    prompt `Q: 2+2?`. Where no line break is shared there is no prompt, and the whole texts are the responses: two
    answers that merely begin alike (`I think that ...`) are not cut in the middle of a sentence.
    """
    if isinstance(chosen, str) and isinstance(rejected, str):
        chosen, rejected = text(chosen, "chosen"), text(rejected, "rejected")
        prompt, start = _shared_lines(chosen.rstrip(), rejected.rstrip())
        sides = [read_turns(side[start:], "response", "assistant") for side in (chosen, rejected)]
        return read_turns(prompt, "prompt", "user"), sides[0], sides[1]
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise RowError(
            WRONG_TYPE,
            "without a prompt, chosen and rejected must both be text or both be lists of turns, found "
            f"{shown(chosen)} and {shown(rejected)}",
        )
    first, second = read_turns(chosen, "chosen", "user"), read_turns(rejected, "rejected", "user")
    num_shared = 0
    for turn, other in zip(first[:-1], second[:-1], strict=False):
        if turn != other:
            break
        num_shared += 1
    return first[:num_shared], first[num_shared:], second[num_shared:]


def _shared_lines(first: str, second: str) -> tuple[str, int]:
    """Return the whole lines that two texts begin with, and where the rest begins."""
    shorter = min(len(first), len(second))
    differs = next((place for place in range(shorter) if first[place] != second[place]), shorter)
    start = first.rfind("\n", 0, differs) + 1
    return first[:start].rstrip(), start
