from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import BadRow, PairRow
from lightning_rm.data.sources.resampling import Bootstrap, Fold, PromptShare, WithoutFold, poisson
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from tests.toy import Rows

SOURCE = SyntheticSource(400, split="train")


def test_every_prompt_is_left_out_by_one_voter_of_each_round() -> None:
    kept = [{row.id for row in WithoutFold(SOURCE, fold, 5) if isinstance(row, PairRow)} for fold in range(5)]
    missing = [{row.id for row in SOURCE} - rows for rows in kept]
    assert sum(len(rows) for rows in missing) == len(set().union(*missing)) == 400
    assert all(50 < len(rows) < 110 for rows in missing)
    prompts = {row.id: row.prompt_id for row in SOURCE}
    for fold in range(5):
        out = {prompts[row] for row in missing[fold]}
        assert not out & {prompts[row] for row in kept[fold]}
        assert all(Fold(fold, 5).holds(prompt) for prompt in out)


def test_folds_are_counted_modulo() -> None:
    assert list(WithoutFold(SOURCE, 7, 5)) == list(WithoutFold(SOURCE, 2, 5))
    assert WithoutFold(SOURCE, 1, 5).fingerprint() != WithoutFold(SOURCE, 2, 5).fingerprint()


def test_bad_rows_pass_and_left_out_rows_are_no_fault(tmp_path: Path) -> None:
    bad = BadRow("here", "missing field", "chosen")
    rows = Rows([*SOURCE, bad])
    for source in (WithoutFold(rows, 0, 2), Bootstrap(rows, 0)):
        assert list(source)[-1] == bad
    data = PreferenceDataModule(
        world_tokenizer(), train=SOURCE, cache_dir=tmp_path, resample=partial(WithoutFold, fold=0, num_folds=2)
    )
    data.setup("fit")
    report = data.reports["train"]
    assert report.read == 400
    assert report.kept + report.reasons["left out fold"] == 400


def test_a_held_out_set_is_held_out_before_resampling(tmp_path: Path) -> None:
    data = PreferenceDataModule(
        world_tokenizer(), train=SOURCE, val_fraction=0.2, cache_dir=tmp_path, resample=partial(Bootstrap, seed=1)
    )
    data.setup("fit")
    texts = [{data.datasets[name].text(i).prompt for i in range(len(data.datasets[name]))} for name in ("train", "val")]
    assert not texts[0] & texts[1]


def test_a_bootstrap_sample_has_poisson_counts() -> None:
    """Of 400 rows about 400 / e are left out, and as many rows come out as went in, within three standard errors."""
    rows = [row for row in Bootstrap(SOURCE, 3) if isinstance(row, PairRow)]
    counts = Counter(row.id.split("#")[0] for row in rows)
    assert abs(len(rows) - 400) < 3 * 20
    assert abs(400 - len(counts) - 400 / 2.718) < 3 * 9.7
    assert {row.id for row in rows} == {
        f"{name}#{copy + 1}" if copy else name for name, count in counts.items() for copy in range(count)
    }
    assert list(Bootstrap(SOURCE, 3)) == list(Bootstrap(SOURCE, 3))
    assert list(Bootstrap(SOURCE, 3)) != list(Bootstrap(SOURCE, 4))


def test_rows_of_one_id_are_drawn_one_by_one() -> None:
    """Not all or none of them: of 400 rows with one id about 400 / e are left out."""
    rows = Rows([replace(row, id="one") for row in SOURCE if isinstance(row, PairRow)])
    kept = [row for row in Bootstrap(rows, 3) if isinstance(row, PairRow)]
    assert abs(len(kept) - 400) < 3 * 20
    assert abs(400 - len({row.prompt_id for row in kept}) - 400 / 2.718) < 3 * 9.7


def test_poisson_inverts_its_distribution_function() -> None:
    """P(0) = .3679, P(<= 1) = .7358, P(<= 2) = .9197."""
    assert [poisson(u) for u in (0.0, 0.367, 0.368, 0.735, 0.736, 0.919, 0.92)] == [0, 0, 1, 1, 2, 2, 3]


def test_one_fold_is_no_fold() -> None:
    with pytest.raises(ValueError, match="2 folds at least"):
        WithoutFold(SOURCE, 0, 1)


def test_a_share_is_of_prompts_and_a_larger_one_holds_it(tmp_path: Path) -> None:
    """Of 400 prompts about the share, within three standard errors; what is left out is counted, and bad rows pass."""
    prompts = {
        share: {row.prompt_id for row in PromptShare(SOURCE, share) if isinstance(row, PairRow)} for share in (0.1, 0.4)
    }
    assert prompts[0.1] < prompts[0.4]
    every = {row.prompt_id for row in SOURCE}
    for share, found in prompts.items():
        assert abs(len(found) - share * len(every)) < 3 * (share * (1 - share) * len(every)) ** 0.5
    assert list(PromptShare(SOURCE, 1.0)) == list(SOURCE)
    assert list(PromptShare(Rows([BadRow("here", "missing field", "chosen")]), 0.001)) != []
    assert PromptShare(SOURCE, 0.1).fingerprint() != PromptShare(SOURCE, 0.1, seed=1).fingerprint()
    data = PreferenceDataModule(
        world_tokenizer(), train=SOURCE, val_fraction=0.2, cache_dir=tmp_path, resample=partial(PromptShare, share=0.4)
    )
    data.setup("fit")
    report, held_out = data.reports["train"], data.reports["val"]
    assert report.kept + report.reasons["left out by share"] == report.read == 400 - held_out.kept
    for share in (0, 1.5, "0.5", float("nan")):
        with pytest.raises(ValueError, match="it is a share of the prompts, above 0 and up to 1"):
            PromptShare(SOURCE, share)  # pyright: ignore[reportArgumentType]
