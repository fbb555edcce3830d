"""The paper's claims a to i, each a pure function from the figures of worlds to a verdict.

The paper's own numbers are of arXiv 2401.06080 and 2405.00438, on 7B parameters and HH-RLHF; what is looked for here is
their shape. It knows the stages' figures; no file and no page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import SupportsFloat

import numpy as np

from paper_parts.stages import CONTRASTS, Figures
from paper_parts.verdicts import Verdict, part

World = Mapping[str, Figures]
"""Stage -> its figures."""
Worlds = Sequence[World]

ENTROPY = float(-(0.2 * np.log(0.2) + 0.8 * np.log(0.8)))
DENOISERS = ("flip", "flip_margin", "soft_label_margin")


def each(worlds: Worlds, figure: Callable[[World], SupportsFloat]) -> list[float]:
    """A number of every world that has run what it needs."""
    found: list[float] = []
    for world in worlds:
        try:
            found.append(float(figure(world)))
        except KeyError:
            continue
    return found


def share_of_negative(worlds: Worlds) -> Verdict:
    def gap(world: World) -> float:
        return world["strength"]["share_negative"] - world["strength"]["share_wrong"]

    says = "share of negative strengths less share of wrong labels, within .05"
    return Verdict(
        "a",
        "As many negative strengths as wrong labels",
        "25 % of HH-RLHF's strengths are negative, about its share of wrong labels",
        (part(says, each(worlds, gap), -0.05, 0.05),),
    )


def spread_is_u_shaped(worlds: Worlds) -> Verdict:
    def ratio(world: World, place: int) -> float:
        std = world["strength"]["group_std"]
        return std[place] / float(np.mean(std[5:15]))

    return Verdict(
        "b",
        "Voters disagree most at both ends",
        "the spread of the votes is .33 in the weakest twentieth, .21 at the least, .56 in the strongest",
        (
            part("weakest twentieth over the middle half, above 1.1", each(worlds, lambda w: ratio(w, 0)), 1.1),
            part("strongest twentieth over the middle half, above 1.1", each(worlds, lambda w: ratio(w, -1)), 1.1),
        ),
    )


def labels_follow_strength(worlds: Worlds) -> Verdict:
    def clean(world: World) -> list[float]:
        return world["strength"]["group_clean"]

    def rises(world: World) -> float:
        return float(np.corrcoef(np.arange(20), np.argsort(np.argsort(clean(world), kind="stable")))[0, 1])

    return Verdict(
        "c",
        "The stronger a pair, the likelier its label is right",
        "a second label agrees with .16 of the weakest, .54 near 0 and .96 of the strongest",
        (
            part("labels right in the weakest twentieth, below .3", each(worlds, lambda w: clean(w)[0]), high=0.3),
            part("labels right in the strongest twentieth, above .9", each(worlds, lambda w: clean(w)[-1]), 0.9),
            part("rank correlation of group and share, above .9", each(worlds, rises), 0.9),
        ),
    )


def deciles_alone(worlds: Worlds) -> Verdict:
    def alone(world: World) -> list[float]:
        return world["deciles"]["alone"]

    return Verdict(
        "d",
        "The weakest fifth teaches the opposite, and the strongest tenth is not the best",
        "trained on a decile alone: .33 .35 | .45 .56 | .65 .68 .68 .68 .67 | .66",
        (
            part("better of the two weakest, below .5", each(worlds, lambda w: max(alone(w)[:2])), high=0.5),
            part("mean of the next two, within .1 of .5", each(worlds, lambda w: np.mean(alone(w)[2:4])), 0.4, 0.6),
            part(
                "deciles 6 to 9 on average less the last, above 0",
                each(worlds, lambda w: np.mean(alone(w)[5:9]) - alone(w)[9]),
                0.0,
            ),
        ),
    )


def turned_round(worlds: Worlds) -> Verdict:
    def gain(world: World, place: int) -> float:
        return world["deciles"]["turned"][place] - world["deciles"]["alone"][place]

    return Verdict(
        "e",
        "Turned round, the weakest fifth is worth training on",
        "flipped: .33 becomes .67, and .35 becomes .65",
        (
            part("weakest decile: gain above .2", each(worlds, lambda w: gain(w, 0)), 0.2),
            part("second: gain above .2", each(worlds, lambda w: gain(w, 1)), 0.2),
            part("the worse of both flipped, above .5", each(worlds, lambda w: min(w["deciles"]["turned"])), 0.5),
        ),
    )


def soft_margin_on_top(worlds: Worlds) -> Verdict:
    def ahead(other: str) -> list[float]:
        return each(worlds, lambda w: w["top"]["soft_margin"] - w["top"][other])

    return Verdict(
        "f",
        "Soft labels with a margin are best on the strongest tenth",
        "baseline .659, margin .669, soft .667, soft + margin .683; the loss of soft labels ends at .50, H(.2)",
        (
            part("soft + margin less the baseline, above 0", ahead("baseline"), 0.0),
            part("less the margin alone, above 0", ahead("margin"), 0.0),
            part("less soft labels alone, above 0", ahead("soft"), 0.0),
            part(
                "training loss of soft labels less H(.2), within .05",
                each(worlds, lambda w: w["top"]["soft_loss"] - ENTROPY),
                -0.05,
                0.05,
            ),
        ),
    )


def recipes_keep_accuracy(worlds: Worlds) -> Verdict:
    def after(world: World, name: str, epoch: int) -> float:
        return world[f"recipe_{name}"]["after_epoch"][epoch]

    def denoisers(world: World) -> float:
        return float(np.mean([after(world, name, -1) for name in DENOISERS]))

    def keeps(world: World) -> float:
        fall = float(np.mean([after(world, name, -1) - after(world, name, 0) for name in DENOISERS]))
        return fall - (after(world, "baseline", -1) - after(world, "baseline", 0))

    return Verdict(
        "g",
        "On all pairs the recipes keep what the baseline loses after its first epoch",
        "baseline .827, then .803 on clean labels; flip .819, flip + margin .825, soft label + margin .826 at the end",
        (
            part(
                "baseline at the end less after epoch 1, below 0",
                each(worlds, lambda w: after(w, "baseline", -1) - after(w, "baseline", 0)),
                high=0.0,
            ),
            part(
                "margin less baseline at the end, above 0",
                each(worlds, lambda w: after(w, "margin", -1) - after(w, "baseline", -1)),
                0.0,
            ),
            part(
                "flip, flip + margin, soft label + margin on average less baseline at the end, above 0",
                each(worlds, lambda w: denoisers(w) - after(w, "baseline", -1)),
                0.0,
            ),
            part("their change since epoch 1 less the baseline's, above 0", each(worlds, keeps), 0.0),
        ),
    )


def meta_over_rounds(worlds: Worlds) -> Verdict:
    def ahead(figure: Callable[[Figures], float]) -> list[float]:
        return each(worlds, lambda w: figure(w["policy_meta_1"]) - figure(w["policy_baseline"]))

    return Verdict(
        "h",
        "MetaRM tells the policy's responses apart again, at no cost, and gains over rounds",
        "differences of rewards grow, accuracy on labelled pairs stays, and wins rise for three to four rounds",
        (
            part("difference of rewards on the policy's responses, less the baseline's, above 0",
                 ahead(lambda row: row["policy_64"]["difference"]), 0.0),
            part("rank correlation with gold there, less the baseline's, above 0",
                 ahead(lambda row: row["policy_64"]["gold_correlation"]), 0.0),
            part("accuracy on clean pairs less the baseline's, within .02",
                 ahead(lambda row: row["clean"]), -0.02, 0.02),
            part("gold of the best of 64 in its second round less its first, above 0",
                 each(worlds, lambda w: w["policy_meta_2"]["gold"]["64"] - w["policy_meta_1"]["gold"]["64"]), 0.0),
        ),
    )  # fmt: skip


def contrast_separates(worlds: Worlds) -> Verdict:
    def figure(world: World, name: str, what: str) -> float:
        return world[f"contrast_{name}"][what]

    def ahead(world: World, others: Sequence[str], what: str = "accuracy") -> float:
        return figure(world, "simcse", what) - float(np.mean([figure(world, other, what) for other in others]))

    rest = [name for name in CONTRASTS if name not in ("simcse", "two_views")]
    return Verdict(
        "i",
        "SimCSE on responses is the best contrast, and moves chosen and rejected apart",
        "features of chosen and rejected overlap less; of the four contrasts SimCSE on responses is best",
        (
            part("SimCSE's accuracy less the baseline's, above 0", each(worlds, lambda w: ahead(w, ["baseline"])), 0.0),
            part("less that of the two views alone, above 0", each(worlds, lambda w: ahead(w, ["two_views"])), 0.0),
            part("less the mean of the three others, above 0", each(worlds, lambda w: ahead(w, rest)), 0.0),
            part(
                "separation of features less the baseline's, above 0",
                each(worlds, lambda w: ahead(w, ["baseline"], "separation")),
                0.0,
            ),
        ),
    )


CLAIMS: tuple[Callable[[Worlds], Verdict], ...] = (
    share_of_negative,
    spread_is_u_shaped,
    labels_follow_strength,
    deciles_alone,
    turned_round,
    soft_margin_on_top,
    recipes_keep_accuracy,
    meta_over_rounds,
    contrast_separates,
)
