"""`lightning-rm export`: a run's model with its card, its rewards' facts, and its adapters alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from lightning_rm.commands.export import export_run
from lightning_rm.commands.train import train
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.losses.temperature import fit_temperature, is_limit
from lightning_rm.publishing.reference import score_reference
from lightning_rm.scoring.load import load_model
from tests.commands.test_conf import SMALL, composed
from tests.commands.test_strength import RUN
from tests.float64 import roughly, same
from tests.toy import toy_model, write_jsonl


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a run with adapters on a model of this package, in `0` and `1`."""
    folder = tmp_path_factory.mktemp("runs")
    toy_model().save_pretrained(folder / "base", world_tokenizer())
    small = [word for word in SMALL if not word.startswith("backbone")]
    lora = "{_target_: lightning_rm.models.backbone.adapters.LoraAdapter, rank: 2, alpha: 8}"
    for seed in range(2):
        words = ["backbone=hub", f"backbone.path={folder}/base", f"backbone.model.lora={lora}", f"seed={seed}"]
        train(composed(*small, *words, *RUN, f"hydra.runtime.output_dir={folder}/{seed}"))
    return folder


def exported(run: Path, out: Path, *more: str) -> dict[str, Any]:
    export_run(composed(f"run={run}", f"out={out}", *more, command="export"))
    config = out / "config.json"
    return json.loads(config.read_text()) if config.is_file() else {}


def test_an_export_has_its_card_and_its_facts(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = exported(runs / "0", out, f"seeds=[{runs}/0,{runs}/1]", "license=apache-2.0", "data_license=cc-by-4.0")
    pairs = pq.read_table(runs / "0" / "pairs" / "val_val.parquet").to_pydict()
    chosen, rejected, label = (np.array(pairs[name]) for name in ("chosen", "rejected", "label"))
    rewards = np.concatenate([chosen, rejected])
    ours = config["lightning_rm"]
    assert (config["mean"], config["std"]) == same((rewards.mean(), rewards.std()))
    assert (ours["reward_mean"], ours["reward_std"]) == (config["mean"], config["std"])
    assert ours["reference"] == {"name": "validation (val)", "num_rewards": len(rewards), "num_left_out": 0}
    fitted = fit_temperature(torch.from_numpy(chosen - rejected), torch.from_numpy(label))
    card = (out / "README.md").read_text()
    assert ours.get("temperature") == (None if is_limit(fitted) else same(fitted))
    assert (f"Temperature {fitted:.4f}" in card) == ("temperature" in ours)
    results = json.loads((runs / "0" / "results.json").read_text())
    accuracies = [json.loads((runs / str(seed) / "results.json").read_text())["val"]["accuracy"] for seed in range(2)]
    for said in (
        'license: "apache-2.0"',
        f"- Trained from: {runs}/base\n",
        "Licence of the training data: cc-by-4.0",
        "| train | 16 | 16 | none |",
        "- Method: BaselineRM",
        "- Seeds: seed 0, init_seed 0, world_seed 0",
        "- Treatments of the pairs by strength: none",
        "- `backbone.model.lora.rank`: 2",
        f"| val | 8 | {results['val']['accuracy']:.3f} |",
        f"{np.mean(accuracies):.3f} ± {np.std(accuracies, ddof=1):.3f} (2 runs)",
        f"mean {config['mean']:.4f}, standard deviation {config['std']:.4f}",
        "at most 256 tokens",
    ):
        assert said in card, said
    codes = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(codes) == 4
    rewards_of_codes = []
    for code in codes:
        ran: dict[str, Any] = {}
        exec(code, ran)
        rewards_of_codes.append(ran["reward"])
    assert rewards_of_codes == roughly([rewards_of_codes[0]] * 4)


def test_weights_are_the_runs_in_the_dtype_asked_for(runs: Path, tmp_path: Path) -> None:
    config = exported(runs / "0", tmp_path / "half", "dtype=bfloat16")
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    half = AutoModelForSequenceClassification.from_pretrained(tmp_path / "half").state_dict()
    whole = load_model(runs / "0").model.backbone.state_dict()
    assert {str(value.dtype) for name, value in half.items() if name != "score.weight"} == {"torch.bfloat16"}
    assert all(torch.equal(value, whole[name].to(value.dtype)) for name, value in half.items())


def test_a_reference_file_is_scored(runs: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", SyntheticSource(12, split="val"))
    config = exported(runs / "0", tmp_path / "out", "weights=last", f"reference={tmp_path}/pairs.jsonl")
    model, tokenizer = load_model(runs / "0", weights="last")
    expected = score_reference(model, tokenizer, FileSource(tmp_path / "pairs.jsonl"), "pairs")
    assert config["lightning_rm"]["reference"]["num_rewards"] == expected.num_rewards == 24
    assert (config["mean"], config["std"]) == (expected.mean, expected.std)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Nothing was measured." in card  # what the run measured is of other weights
    # Weights that are trained on forget what their rewards were like.
    loaded = load_model(tmp_path / "out")
    loaded.model.save_pretrained(tmp_path / "again", loaded.tokenizer)
    assert not {"mean", "std", "lightning_rm"} & json.loads((tmp_path / "again" / "config.json").read_text()).keys()


def test_adapters_alone(runs: Path, tmp_path: Path) -> None:
    """The card's own calls on the adapters give what the merged model gives."""
    exported(runs / "1", tmp_path / "whole")
    exported(runs / "1", tmp_path / "alone", "adapter=true")
    exported(runs / "1", tmp_path / "half", "adapter=true", "dtype=bfloat16")
    half = load_file(tmp_path / "half" / "adapter_model.safetensors")
    assert {value.dtype for name, value in half.items() if ".lora_" in name} == {torch.bfloat16}
    assert {value.dtype for name, value in half.items() if ".lora_" not in name} == {torch.float32}
    names = {path.name for path in (tmp_path / "alone").iterdir()}
    assert "model.safetensors" not in names
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md"} <= names
    facts, whole = (
        json.loads((tmp_path / path).read_text()) for path in ("alone/lightning_rm.json", "whole/config.json")
    )
    assert facts == {name: whole[name] for name in ("lightning_rm", "mean", "std")}
    rewards: list[float] = []
    for folder in ("whole", "alone"):
        code = re.findall(r"```python\n(.*?)```", (tmp_path / folder / "README.md").read_text(), flags=re.DOTALL)[0]
        ran: dict[str, Any] = {}
        exec(code, ran)
        rewards.append(ran["reward"])
    assert rewards[1] == roughly(rewards[0])


def test_adapters_of_a_run_that_was_not_validated_are_its_last(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "1", run)
    for path in (run / "checkpoints").glob("best*.ckpt"):
        path.unlink()
    with pytest.raises(ValueError, match="export its last weights, weights=last, or it whole"):
        exported(run, tmp_path / "out", "adapter=true")
    exported(run, tmp_path / "out", "adapter=true", "weights=last")
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_folders_that_are_not_to_be_replaced(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    exported(runs / "0", out)
    (out / "notes").write_text("mine")
    with pytest.raises(ValueError, match="is not empty; name another folder"):
        exported(runs / "1", out)
    before = (out / "model.safetensors").read_bytes()
    exported(runs / "1", out, "overwrite=true")
    assert (out / "model.safetensors").read_bytes() != before
    assert (out / "notes").read_text() == "mine"
    for folder in (runs / "0", runs, Path("/")):
        with pytest.raises(ValueError, match="you or the run are in it"):
            exported(runs / "0", folder, "overwrite=true")
    with pytest.raises(ValueError, match="is not a run"):
        exported(tmp_path, tmp_path / "other")
    with pytest.raises(ValueError, match="has no adapters of its own"):
        exported(tmp_path, tmp_path / "other", "adapter=true")


def test_the_spread_is_of_one_recipe(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "flip").mkdir()
    told = (runs / "1" / "config.yaml").read_text().replace(f"{runs}/base", "another")
    (tmp_path / "flip" / "config.yaml").write_text(told)
    with pytest.raises(ValueError, match=r"backbone\.path"):
        exported(runs / "0", tmp_path / "out", f"seeds=[{tmp_path}/flip]")
