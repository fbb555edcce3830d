"""The figures of the page: what came out here, mean and spread over worlds, beside the paper's numbers, dashed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_rm.analysis.page.blocks import Drawing
from lightning_rm.analysis.plots.strength import draw_strengths
from lightning_rm.analysis.plots.style import BLUE, GREY, OTHERS, one_panel
from paper_parts.claims import Worlds
from paper_parts.stages import CONTRASTS, RECIPES, SHARES, TOP
from paper_parts.world import Floats

PAPER_MEANS = "-1.23 -.60 -.35 -.18 -.05 .07 .18 .28 .39 .49 .60 .72 .85 .98 1.15 1.34 1.58 1.88 2.32 3.44"
PAPER_ALONE = (0.327, 0.347, 0.446, 0.561, 0.653, 0.680, 0.683, 0.682, 0.674, 0.659)
PAPER_TOP = (0.659, 0.669, 0.667, 0.683)
PAPER_TURNED = (0.666, 0.648)
"""Read off its Figs 2, 4, 5 and 6."""
PAPER_STD = {0: 0.33, 1: 0.25, 2: 0.23, 3: 0.22, 4: 0.21, 12: 0.26, 15: 0.31, 18: 0.41, 19: 0.555}
PAPER_AGREES = {-1.2: 0.25, -0.3: 0.41, 0.0: 0.50, 0.5: 0.70, 1.0: 0.78, 1.6: 0.86, 2.9: 0.93}
PAPER_ENDS = {
    "baseline": (0.827, 0.803),
    "flip": (0.825, 0.819),
    "margin": (0.830, 0.817),
    "flip_margin": (0.828, 0.825),
    "soft_label_margin": (0.830, 0.826),
}
"""Fig 8, where both labels agree: at its peak, near the end of the first epoch, and at step 8,000, in the second."""


def of(worlds: Worlds, stage: str, figure: Callable[[Any], Any]) -> Floats:
    """(W, ...) of the worlds that have run a stage; empty where none has."""
    return np.array([figure(world[stage]) for world in worlds if stage in world], np.float64)


def line(axes: Axes, x: Sequence[float] | Floats, values: Floats, label: str, color: str = BLUE) -> None:
    """Mean over worlds, with a bar of one standard deviation where there are several."""
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else None
    axes.errorbar(x, values.mean(axis=0), spread, color=color, marker="o", markersize=4, capsize=3, label=label)


def papers(axes: Axes, points: Mapping[float, float], label: str = "the paper", color: str = GREY) -> None:
    axes.plot(list(points), list(points.values()), color=color, linestyle="--", marker="s", markersize=3, label=label)


def distribution(worlds: Worlds) -> list[Drawing]:
    """Fig 1."""
    mean = next(world["strength"]["mean"] for world in worlds if "strength" in world)
    return [drawing("fig_1", lambda axes: draw_strengths(axes, mean), "Fig 1: strengths of the first world's pairs")]


def groups(worlds: Worlds) -> list[Drawing]:
    """Fig 2."""
    place = (np.arange(20) + 0.5) / 20

    def means(axes: Axes) -> None:
        line(axes, place, of(worlds, "strength", lambda s: s["group_mean"]), "here")
        papers(axes, dict(zip(place.tolist(), map(float, PAPER_MEANS.split()), strict=True)))
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set(xlabel="pairs by strength, weakest first", ylabel="mean of the votes")

    def spreads(axes: Axes) -> None:
        line(axes, place, of(worlds, "strength", lambda s: s["group_std"]), "here")
        papers(axes, {float(place[group]): value for group, value in PAPER_STD.items()})
        axes.set(xlabel="pairs by strength, weakest first", ylabel="standard deviation of the votes")
        axes.set_ylim(bottom=0)

    said = "Fig 2: {} of the votes by twentieth of the pairs"
    return [drawing("fig_2_mean", means, said.format("mean")), drawing("fig_2_std", spreads, said.format("spread"))]


def agreement(worlds: Worlds) -> list[Drawing]:
    """Fig 3."""

    def draw(axes: Axes) -> None:
        mean = of(worlds, "strength", lambda s: s["group_mean"]).mean(axis=0)
        line(axes, mean, of(worlds, "strength", lambda s: s["group_clean"]), "labels that are right, here")
        papers(axes, PAPER_AGREES, "GPT-4 agrees, the paper")
        axes.set(xlabel="mean strength of the group", ylabel="share of labels", ylim=(0, 1.05))

    return [drawing("fig_3", draw, "Fig 3: how often the label is right, by strength")]


def deciles(worlds: Worlds) -> list[Drawing]:
    """Figs 4 and 5."""

    def draw(axes: Axes) -> None:
        line(axes, range(10), of(worlds, "deciles", lambda d: d["alone"]), "here")
        line(axes, range(2), of(worlds, "deciles", lambda d: d["turned"]), "here, labels turned round", OTHERS[1])
        papers(axes, dict(enumerate(PAPER_ALONE)))
        papers(axes, dict(enumerate(PAPER_TURNED)), "the paper, turned round", OTHERS[0])
        axes.axhline(0.5, color=GREY, linestyle=":", linewidth=1.2)
        axes.set(xlabel="decile trained on, weakest first", ylabel="accuracy", ylim=(0, 1))

    return [
        drawing("fig_4_5", draw, "Figs 4 and 5: each decile alone; labels to test on are clean here, not in the paper")
    ]


def top(worlds: Worlds) -> list[Drawing]:
    """Fig 6."""

    def draw(axes: Axes) -> None:
        line(axes, range(len(TOP)), of(worlds, "top", lambda t: [t[name] for name in TOP]), "here")
        papers(axes, dict(enumerate(PAPER_TOP)))
        axes.set_xticks(range(len(TOP)), [told(name) for name in TOP])
        axes.set(ylabel="accuracy")

    return [drawing("fig_6", draw, "Fig 6: four objectives on the strongest decile alone")]


def separations(worlds: Worlds) -> list[Drawing]:
    """Fig 11, as a number."""
    names = [n for n in ("baseline", *CONTRASTS) if all(f"contrast_{n}" in world for world in worlds)]

    def draw(axes: Axes) -> None:
        values = np.stack([of(worlds, f"contrast_{name}", lambda c: c["separation"]) for name in names], axis=1)
        line(axes, range(len(names)), values, "here")
        axes.set_xticks(range(len(names)), [told(name).replace(" ", "\n", 2) for name in names])
        axes.set(ylabel="squared distance of means\nover variance within")
        axes.set_ylim(bottom=0)

    said = "Fig 11, a number: how far apart features of chosen and rejected lie; the paper's SimCSE moves them apart"
    return [drawing("fig_11", draw, said)]


def prefixes(worlds: Worlds) -> list[Drawing]:
    """Figs 21 and 22."""

    def draw(axes: Axes) -> None:
        line(axes, SHARES, of(worlds, "prefixes", lambda p: p["weak"]), "from the weak end")
        line(axes, SHARES, of(worlds, "prefixes", lambda p: p["strong"]), "from the strong end", OTHERS[0])
        axes.axhline(0.5, color=GREY, linestyle=":", linewidth=1.2)
        axes.set(xlabel="share of the pairs trained on", ylabel="accuracy", ylim=(0, 1))

    said = "Figs 21 and 22: growing parts; the paper's from the weak end need much good data to recover, from the "
    return [drawing("fig_21_22", draw, said + "strong end accuracy does not fall")]


def recipes(worlds: Worlds) -> list[Drawing]:
    """Figs 7 and 8."""
    found: list[Drawing] = []
    for number, name in enumerate(RECIPES):
        here = of(worlds, f"recipe_{name}", lambda r: r["after_epoch"])
        if name == "baseline" or not here.size:
            continue

        def draw(axes: Axes, name: str = name, here: Floats = here, color: str = OTHERS[number - 1]) -> None:
            base = of(worlds, "recipe_baseline", lambda r: r["after_epoch"])
            line(axes, range(1, base.shape[1] + 1), base, "baseline", BLUE)
            line(axes, range(1, here.shape[1] + 1), here, told(name), color)
            papers(axes, dict(zip((1, 2), PAPER_ENDS["baseline"], strict=True)), "baseline, the paper", GREY)
            axes.set_xticks(range(1, base.shape[1] + 1))
            papers(axes, dict(zip((1, 2), PAPER_ENDS[name], strict=True)), "the recipe, the paper", color)
            axes.set(xlabel="epochs", ylabel="accuracy on clean labels")

        found.append(drawing(f"fig_8_{name}", draw, f"Fig 8: {told(name)}, all pairs"))
    return found


def over_optimised(worlds: Worlds) -> list[Drawing]:
    """Gold and its correlation as n grows, by row."""
    names = {"baseline": BLUE, "meta_1": OTHERS[2], "flip": OTHERS[1], "fresh": OTHERS[4], "flip_fresh": OTHERS[0]}
    policy_n = (4, 16, 64)

    def gold(axes: Axes) -> None:
        for name, color in names.items():
            values = of(worlds, f"policy_{name}", lambda p: [p["gold"][str(n)] for n in (1, *policy_n)])
            if values.size:
                line(axes, (1, *policy_n), values, told(name), color)
        powers_axis(axes, (1, *policy_n))
        axes.set(xlabel="n", ylabel="gold of the best of n by its own rewards")

    def order(axes: Axes) -> None:
        for name, color in names.items():
            values = of(worlds, f"policy_{name}", lambda p: [p[f"policy_{n}"]["gold_correlation"] for n in policy_n])
            if values.size:
                line(axes, policy_n, values, told(name), color)
        axes.axhline(0, color=GREY, linestyle=":", linewidth=1.2)
        powers_axis(axes, policy_n)
        axes.set(xlabel="n of the first model's policy", ylabel="rank correlation with gold")

    return [
        drawing("policy_gold", gold, "What each model makes of base responses: gold of the best of n"),
        drawing("policy_order", order, "How each model orders the responses of the first model's policy"),
    ]


def powers_axis(axes: Axes, ticks: Sequence[int]) -> None:
    """A logarithmic axis that names these numbers alone, in digits."""
    axes.set_xscale("log")
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.minorticks_off()


def told(name: str) -> str:
    """A row's name in words."""
    words = {"fresh": "a third of the labels fresh", "flip_fresh": "fresh and flip", "flip_negative": "flip below 0"}
    words |= {"meta_1": "MetaRM", "meta_2": "MetaRM, second round", "meta_3": "MetaRM, third round"}
    words |= {"two_views": "two views", "simcse": "SimCSE", "simcse_diff": "SimCSE on differences"}
    words |= {"swav": "SwAV", "swav_diff": "SwAV on differences"}
    words |= {
        "flip_margin": "flip + margin",
        "soft_label_margin": "soft label + margin",
        "soft_margin": "soft + margin",
    }
    return words.get(name, name)


def drawing(name: str, draw: Callable[[Axes], None], caption: str) -> Drawing:
    figure: Figure = one_panel(draw, (5.4, 3.8))
    return Drawing(name, figure, caption)


FIGURES: dict[str, Sequence[tuple[Sequence[str], Callable[[Worlds], list[Drawing]]]]] = {
    "a": [(["strength"], distribution)],
    "b": [(["strength"], groups)],
    "c": [(["strength"], agreement)],
    "d": [(["deciles"], deciles), (["prefixes"], prefixes)],
    "f": [(["top"], top)],
    "g": [(["recipe_baseline"], recipes)],
    "h": [(["policy_baseline"], over_optimised)],
    "i": [(["contrast_baseline"], separations)],
}
"""Claim -> the stages that a world needs, and the figures."""


def figures_of(letter: str, worlds: Worlds) -> list[Drawing]:
    """The figures of a claim, over the worlds that have what they need."""
    found: list[Drawing] = []
    for needs, draw in FIGURES.get(letter, ()):
        ready = [world for world in worlds if all(stage in world for stage in needs)]
        found += draw(ready) if ready else []
    return found
