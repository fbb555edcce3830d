"""How much of each stage is run: `small` under ten minutes on two cores, `full` hours, `test` seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """What every world is run with.

    Args:
        worlds: how many, each with pairs, voters and test sets of its own; the spread is over them.
        pairs: of training, and for the rows of contrast and of the policy.
        test_pairs: of clean labels.
        voters: M.
        epochs: of voters, and of the rows of contrast and of the policy.
        part_epochs: of models that are trained on a part of the pairs.
        recipe_epochs: of the recipes on all pairs.
        prompts: of training, that policies answer.
        fresh_prompts: the same of the policy whose responses get fresh labels, enough for a third of the pairs.
        test_prompts: of measuring.
        rounds: of MetaRM, each on the policy of the model before.
    """

    worlds: int
    pairs: int
    test_pairs: int
    voters: int
    epochs: int
    part_epochs: int
    recipe_epochs: int
    prompts: int
    fresh_prompts: int
    test_prompts: int
    rounds: int


SIZES = {
    "test": Size(1, 60, 20, 2, 1, 1, 2, 12, 14, 3, 2),
    "small": Size(4, 1200, 400, 4, 3, 6, 3, 450, 450, 60, 2),
    "full": Size(5, 24000, 1000, 10, 2, 5, 5, 6000, 10000, 300, 3),
}
