"""`lightning-rm weigh` as a user meets it: what it says, and a training on what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_rm.commands.train import train
from lightning_rm.data.synthetic.pairs import SyntheticSource
from tests.commands.conftest import Cli
from tests.commands.test_conf import SMALL, composed
from tests.rlhf.policies import save_policy
from tests.toy import write_jsonl


def test_pairs_are_weighed_and_trained_on(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("LIGHTNING_RM_CACHE", str(tmp_path / "cache"))
    policy, reference = save_policy(tmp_path / "now", seed=1), save_policy(tmp_path / "before")
    write_jsonl(tmp_path / "pairs.jsonl", SyntheticSource(20, split="train"))
    words = [f"policy={policy}", "data=jsonl", "data.file=pairs.jsonl", "out=out.parquet", "accelerator=cpu"]
    said = cli("weigh", *words, f"reference={reference}", "power=0.5", "clip=2")
    assert said.code == 0, said.err
    for part in ("20 pairs weigh as", "are bounded by clip", "under the policy less that under the reference"):
        assert part in said.out
    again = cli("weigh", *words, f"reference={reference}")
    assert again.code == 1
    assert f"out='out.parquet' is there already, weighed for {policy}" in again.err
    typed = cli("weigh", *words, f"reference={reference}", "overwrite=true", "power=much")
    assert (typed.code, "error: power=much; give a number" in typed.err) == (1, True)
    part = cli("weigh", *words, f"reference={reference}", "overwrite=true", "shard_pairs=2.5")
    assert (part.code, "error: shard_pairs=2.5; give a whole number" in part.err) == (1, True)
    elsewhere = cli("weigh", *words, f"reference={reference}", "overwrite=true", "accelerator=tpu")
    assert (
        elsewhere.code,
        "error: accelerator=, devices= or precision= asks for what is not here" in elsewhere.err
        and "accelerator=auto, devices=1 and precision=32-true do on every machine\n" in elsewhere.err,
    ) == (1, True)
    alone = cli("weigh", *words, "reference=null", "relative=0", "power=1", "overwrite=true")
    assert "which is not an importance weight" in alone.out
    assert "few pairs have most of the weight" in alone.out
    recwarn.clear()
    trained = [*SMALL, "data=strength", f"data.file={tmp_path}/out.parquet", "data.val_fraction=0.2", "monitor=null"]
    own = [word for word in trained if not word.startswith(("data=synthetic", "data.num_"))]
    train(composed(*own, f"hydra.runtime.output_dir={tmp_path}/run", f"paths.run={tmp_path}/run"))
    assert not [warning for warning in recwarn if "a weight of their own" in str(warning.message)]
    assert (tmp_path / "run/results.json").is_file()
