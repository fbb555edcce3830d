"""`curate`: from raw pairs and voters to clean pairs and a report, in one call. The command and the notebook call it.

Votes lie in `OUT/votes` and stay there: another policy, or the reviews of people, cost no second forward. What is
decided depends on votes, policy and reviews alone, so that a call that was killed and made again writes the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import lightning as L
import numpy as np
from numpy.typing import NDArray

from lightning_rm.analysis.noise import wrong_labels
from lightning_rm.annotation.files import SCHEMA, check_columns
from lightning_rm.annotation.reviews import Verdict, read_reviews, verdicts, verdicts_on
from lightning_rm.annotation.voters import Voter
from lightning_rm.annotation.votes import Progress, Votes, collect_votes
from lightning_rm.curation.clean import CleanFiles, write_clean
from lightning_rm.curation.conflicts import find_conflicts
from lightning_rm.curation.decide import decide
from lightning_rm.curation.facts import Facts, collect_facts
from lightning_rm.curation.heart import by_heart
from lightning_rm.curation.made_of import check_made_of, note_made_of
from lightning_rm.curation.opinions import Opinion, opinion_of, with_opinions
from lightning_rm.curation.report import write_report
from lightning_rm.curation.result import Curated, Rules
from lightning_rm.data.batches.choice import LayoutSetting
from lightning_rm.data.rows import EXPECTED_REASONS, BadRow, PairRow, Source
from lightning_rm.data.sets import AnySource, as_source
from lightning_rm.data.sources.contamination import Benchmarks
from lightning_rm.data.sources.resampling import unit_hash
from lightning_rm.data.store.pair_rows import OtherColumns
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.tokenize.policy import TokenizePolicy
from lightning_rm.options import check_options
from lightning_rm.scoring.shards import Engine, score_shards
from lightning_rm.strength.policies import policy

USUAL_SHARE = 0.1
"""The share of the pairs to flip or to drop where no estimate can be had (arXiv 2401.06080, figure 8)."""


@dataclass(frozen=True)
class Outside:
    """A further voter, of any family, with a tokenizer of its own.

    Args:
        voter: a reward model or members.
        weight: how many times each of its votes counts.
    """

    voter: Voter
    weight: int = 1


@dataclass(frozen=True)
class Look:
    """What else to look at in the rows.

    Args:
        groups: fields of the rows to group labels by, beside subset, length and topic.
        second_label: a field with another opinion on whether chosen is better; it votes.
        benchmarks: name -> local files of benchmarks whose prompts are looked for.
    """

    groups: Sequence[str] = ("source", "annotator")
    second_label: str | None = None
    benchmarks: Mapping[str, str | Path | Sequence[str]] = field(default_factory=dict[str, str])


def curate(
    source: AnySource,
    voters: Sequence[Voter],
    out: str | Path,
    rules: Rules | None = None,
    *,
    held_out: float = 1.0,
    outside: Sequence[Outside] = (),
    judges: Sequence[Callable[[Source, Path], Opinion]] = (),
    look: Look | None = None,
    tokenize: TokenizePolicy | None = None,
    fabric: L.Fabric | None = None,
    cache_dir: str | Path | None = None,
    layout: LayoutSetting = "auto",
    batch_tokens: int | None = None,
    shard_size: int = 2000,
    engine: Engine = score_shards,
    progress: Progress | None = None,
) -> Curated | None:
    """Curate preference pairs.

    Writes `strength.parquet` (every pair with its votes), `clean.parquet` (what to train on, each row with what was
    decided and why), `set_aside.parquet` (the rest) and `report.md` with its tables and figures.

    Args:
        source: the pairs, given as `PreferenceDataModule` takes them.
        voters: models that belong together (`annotation.voters.check_voters`).
        out: a folder.
        rules: of the decisions; None for the defaults.
        held_out: the share of the prompts that the voters' training held out (its `val_fraction`), on which the share
            of wrong labels is estimated; 1 for voters that have never seen the pairs. It is not read for cross-fitted
            voters, which name their fold.
        outside: voters of other families.
        judges: further opinions: functions from the source and a folder for answers to an `Opinion`.
        look: what else to look at in the rows.
        tokenize: what to do with rows that are bad or long; None for the default.
        fabric: device and processes; every process calls this alike and the first one writes.
        cache_dir, layout, batch_tokens, shard_size, engine, progress: of scoring, as `annotate` takes them.

    Returns:
        What was decided; None on all processes but the first.

    Raises:
        ValueError: if voters do not belong together, a pair cannot be scored, a setting is wrong, or the folder holds
            what was curated from other pairs.
    """
    check_options(Rules, rules=rules)
    check_options(Look, look=look)
    check_options(TokenizePolicy, tokenize=tokenize)
    rules, look, out = rules or Rules(), look or Look(), Path(out)
    said, benchmarks = check_asked(rules, look)  # before the work
    pairs, tokenize = as_source(source), tokenize or TokenizePolicy()
    check_made_of(out, pairs)

    def accept(kept: PairDataset) -> None:
        check_columns(pairs, kept)

    def ask(asked: Sequence[Voter]) -> Votes:
        return collect_votes(
            pairs,
            asked,
            out / "votes",
            tokenize,
            fabric=fabric,
            cache_dir=cache_dir,
            layout=layout,
            batch_tokens=batch_tokens,
            shard_size=shard_size,
            engine=engine,
            progress=progress,
            accept=accept,
        )

    votes = ask(voters)
    outside_votes = [(ask([one.voter]), one.voter.name, one.weight) for one in outside]
    if fabric is not None and fabric.global_rank != 0:
        return None
    others = OtherColumns(SCHEMA.names)
    rows = _noting(pairs, others, set(votes.pairs.source_row.tolist()))
    facts = collect_facts(rows, look.groups, look.second_label, benchmarks)
    opinions = [opinion_of(found, len(facts), name, weight) for found, name, weight in outside_votes]
    opinions += [judge(pairs, out / "votes") for judge in judges]
    if look.second_label is not None:
        opinions.append(Opinion(look.second_label, facts.second_votes()[:, None]))
    row = votes.pairs.source_row
    is_new = _is_new(voters, [facts.prompt_id[one] for one in row.tolist()], held_out)
    own_mean = votes.strength.mean
    wrong = wrong_labels(own_mean[is_new])
    share = rules.share if rules.share is not None else wrong.share if wrong.is_told else USUAL_SHARE
    votes = with_opinions(votes, opinions)
    verdict = verdicts_on([facts.id[one] for one in row.tolist()], said, f"reviews={str(rules.reviews)!r}")
    decided = decide(votes, rules, share, verdict)
    note_made_of(out, pairs)
    files = CleanFiles.within(out)
    counts = write_clean(pairs, votes, decided, _not_voted(facts, votes), others, files)
    curated = Curated(
        votes=votes,
        decision=decided.decision,
        counts={name: counts[name] for name in ("kept", "flipped", "softened", "set aside")},
        share=share,
        wrong=wrong,
        by_heart=by_heart(own_mean, is_new),
        verdicts=said,
        conflicts=find_conflicts(facts.exact, facts.keys),
        facts=facts,
        is_new=is_new,
        files=files,
    )
    return replace(curated, files=(*curated.files, *write_report(curated, rules, out)))


def _noting(source: Source, others: OtherColumns, voted: set[int]) -> Iterator[PairRow | BadRow]:
    """Yield all rows, and note the fields of those that were voted on, so that the source is read once for both."""
    for number, row in enumerate(source):
        if number in voted and isinstance(row, PairRow):
            others.note(row)
        yield row


def check_asked(rules: Rules, look: Look) -> tuple[Mapping[str, Verdict], Benchmarks | None]:
    """Check the rules and what to look at before any work is done.

    Returns:
        What reviewers say, by pair id, and the prompts of benchmarks.

    Raises:
        ValueError: for an unknown policy, or a file that cannot be read.
    """
    policy(rules.policy, share=rules.share or 0.0, agree=rules.agree, temperature=rules.temperature)
    said = {} if rules.reviews is None else verdicts(read_reviews(rules.reviews))
    return said, Benchmarks(look.benchmarks) if look.benchmarks else None


def _is_new(voters: Sequence[Voter], prompt_ids: Sequence[str], held_out: float) -> NDArray[np.bool_]:
    """Return (N,), whether a pair is new to its voters: held out as `PromptSplit` holds out prompts, or by its fold."""
    if all(voter.fold is not None for voter in voters):
        return np.ones(len(prompt_ids), bool)
    return np.array([unit_hash(0, name) < held_out for name in prompt_ids], bool)


def _not_voted(facts: Facts, votes: Votes) -> dict[int, str]:
    """Return row -> why it has no votes: it cannot be read, or the voters cannot read it whole."""
    voted = {int(one) for one in votes.pairs.source_row}
    reasons = [name for name in votes.pairs.report.reasons if name not in EXPECTED_REASONS]
    known = Counter(bad.partition(": ")[0] for bad in facts.bad if bad)
    others = ", ".join(name for name in reasons if name not in known) or "left out"
    return {place: bad or others for place, bad in enumerate(facts.bad) if place not in voted}
