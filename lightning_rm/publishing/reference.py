"""The rewards of a reference set, scored for an export. It knows a model and rows of pairs; no run and no folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.rows import BadRow, PairRow
from lightning_rm.data.tokenize.pairs import encode_conversation
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.publishing.facts import Reference
from lightning_rm.scoring.engine import score_sequences


def score_reference(
    model: AnyRewardModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[PairRow | BadRow],
    name: str,
    progress: Callable[[int, int], None] | None = None,
) -> Reference:
    """Score both responses of every pair.

    Args:
        model: whose rewards they are; members count as their mean.
        tokenizer: the model's own.
        rows: pairs, such as a `FileSource`.
        name: of the set.
        progress: called with the number of responses scored and of all responses.

    Returns:
        Their mean, spread and temperature, and how many pairs were left out because the model does not read their
        length.

    Raises:
        ValueError: for a row that cannot be read, by its line, and if no pair is left.
    """
    sequences: list[list[int]] = []
    labels: list[float] = []
    num_left_out = 0
    for row in rows:
        if isinstance(row, BadRow):
            raise ValueError(f"{row.origin}: {row.reason}: {row.detail}")
        both = [
            encode_conversation(tokenizer, (*row.prompt, *response), row.tools, row.chat_template_kwargs)
            for response in (row.chosen, row.rejected)
        ]
        if model.max_tokens is not None and max(map(len, both)) > model.max_tokens:
            num_left_out += 1
            continue
        sequences += both
        labels.append(row.label)
    if not labels:
        raise ValueError(f"the reference set {name} has no pair that the model reads; {num_left_out} are too long")
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done += number
        if progress is not None:
            progress(done, len(sequences))

    rewards = score_sequences(model, sequences, progress=advance).mean(1)
    found = Reference.of_pairs(name, rewards[::2], rewards[1::2], np.asarray(labels))
    return found.without(num_left_out)
