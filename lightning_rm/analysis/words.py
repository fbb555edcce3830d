"""Names as titles, axes and headings have them: metric keys in words, and a name unlike others. It knows how keys are
made, no value.
"""

from __future__ import annotations

from collections.abc import Collection

METRICS = {
    "nll": "NLL",
    "clean_accuracy": "accuracy against the truth",
    "length_accuracy": "accuracy of the longer response",
    "gold_correlation": "correlation with gold",
    "margin_std": "spread of margins",
    "score_rank_correlation": "rank correlation with scores",
    "num_pairs": "pairs",
}
"""Metric -> what people call it, where it is not the name itself with spaces."""

STAGES = {"train": "training", "train_epoch": "training", "val": "validation", "test": "test"}


def metric_words(metric: str) -> str:
    """Return a metric by its own name, or by that of a subset: `calibration error`, `easy: accuracy`."""
    *subset, name = metric.split("/")
    words = METRICS.get(name, name.replace("_", " "))
    return f"{'/'.join(subset)}: {words}" if subset else words


def key_words(key: str) -> str:
    """Return a key of a log or of results in words, with its data set.

    val/nll -> validation NLL, test/ood/accuracy -> accuracy on test/ood
    """
    stage, _, metric = key.partition("/")
    if not metric or stage not in STAGES:
        return metric_words(key)
    data_set, _, name = metric.rpartition("/")
    return f"{metric_words(name)} on {stage}/{data_set}" if data_set else f"{STAGES[stage]} {metric_words(name)}"


def titled(words: str) -> str:
    """Return words with a capital at their beginning."""
    return words[:1].upper() + words[1:]


def unlike(name: str, taken: Collection[str]) -> str:
    """Return a name that is not taken: itself, or with the first number that makes it another."""
    return next(
        one for one in (name, *(f"{name} ({number})" for number in range(2, len(taken) + 3))) if one not in taken
    )
