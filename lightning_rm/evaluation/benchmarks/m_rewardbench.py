"""M-RewardBench (Gureja et al., arXiv 2410.15522): RewardBench in 23 languages. It knows no model.

Every language is scored as RewardBench is; the mean is over all languages but English.
"""

from __future__ import annotations

import re

import numpy as np

from lightning_rm.data.formats.fields import BAD_VALUE, Raw, RowError
from lightning_rm.evaluation.benchmarks.benchmark import OVERALL, Benchmark, Means, pair_columns
from lightning_rm.evaluation.benchmarks.reading import HubPart, one_of
from lightning_rm.evaluation.benchmarks.rewardbench import SPELLED, SUBSETS, pair_item, section_scores
from lightning_rm.evaluation.items import Floats, Item

ENGLISH = "eng_Latn"
LANGUAGES = (
    "arb_Arab",
    "zho_Hans",
    "zho_Hant",
    "ces_Latn",
    "nld_Latn",
    "fra_Latn",
    "deu_Latn",
    "ell_Grek",
    "heb_Hebr",
    "hin_Deva",
    "ind_Latn",
    "ita_Latn",
    "jpn_Jpan",
    "kor_Hang",
    "pes_Arab",
    "pol_Latn",
    "por_Latn",
    "ron_Latn",
    "rus_Cyrl",
    "spa_Latn",
    "tur_Latn",
    "ukr_Cyrl",
    "vie_Latn",
)


def read_row(part: str, raw: Raw, origin: str) -> Item:
    """Return a pair of RewardBench's form whose subset is called `source`; a file or folder is named after its
    language.
    """
    found = re.findall(r"[a-z]{3}_[A-Z][a-z]{3}", str(raw.get("language") or part))
    if not found:
        raise RowError(BAD_VALUE, f"the path {part!r} names no language, such as fra_Latn")
    language = one_of(found[-1], [*LANGUAGES, ENGLISH], "the language")
    source = raw.get("source", raw.get("subset"))
    source = one_of(SPELLED.get(str(source), source), list(SUBSETS), "field 'source'")
    # One question in many languages is not independent evidence: its items are drawn together.
    shared = f"{source}/{raw['id']}" if raw.get("id") is not None else None
    return pair_item(raw, origin, f"{language}:{source}", cluster=shared)


def combine(means: Means) -> dict[str, Floats]:
    """Return a score per language, the mean of the sections it has; `overall` is over all languages but English."""
    by_language: dict[str, dict[str, Floats]] = {}
    for name, mean in means.items():
        language, _, subset = name.partition(":")
        by_language.setdefault(language, {})[subset] = mean
    sections: dict[str, Floats] = {}
    details: dict[str, Floats] = {}
    for language in sorted(by_language):
        scores = section_scores(by_language[language])
        sections[language] = np.mean(list(scores.values()), axis=0)
        details |= {f"{language}/{name}": score for name, score in scores.items()}
    return {**average(sections), **details}


def average(languages: Means) -> dict[str, Floats]:
    """Return language scores with their mean and spread without English, and how far they fall below English.

    fra .80, deu .76, zho_Hans .70, zho_Hant .74 and English .85 have the mean .75, a drop of .10 / .85 = .118.
    """
    others = [score for name, score in languages.items() if name != ENGLISH]
    if not others:
        return dict(languages)
    mean = np.mean(others, axis=0)
    found = {**languages, OVERALL: mean, "overall/std": np.std(others, axis=0)}
    if ENGLISH in languages:
        found["overall/below English"] = np.asarray((languages[ENGLISH] - mean) / languages[ENGLISH])
    return found


M_REWARDBENCH = Benchmark(
    name="m_rewardbench",
    title="M-RewardBench",
    aggregate="mean over languages without English",
    hub=tuple(
        HubPart(language, "CohereLabsCommunity/multilingual-reward-bench", "test", language) for language in LANGUAGES
    ),
    read_row=read_row,
    columns=pair_columns,  # one per language and subset, such as `fra_Latn:hep-cpp`
    combine=combine,
    categories=LANGUAGES,
    expected=dict.fromkeys(LANGUAGES, None),
)
