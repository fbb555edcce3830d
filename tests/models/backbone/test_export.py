"""The exported folder: read by transformers with no further arguments, it gives our rewards."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils import prune
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, modeling_utils

from lightning_rm import folder_drafts
from lightning_rm.batch import Sample
from lightning_rm.data.batches.layouts import padded
from lightning_rm.models.backbone import export
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.backbone.layers import transformer_layers
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.reward_model import RewardModel
from tests.families import nearly_same, older_than
from tests.float64 import assert_same, in_float64
from tests.tiny import CONFIGS, EOS, PAD, conversation, tiny_model

SEQUENCES = [conversation(6), conversation(11), conversation(8)[:-1]]
"""Two end in EOS, all have one in the middle, the last ends in another token."""


def our_rewards(model: RewardModel) -> Tensor:
    with torch.no_grad():
        return model(padded([Sample([ids]) for ids in SEQUENCES], model.read_at, model.pad_id)).reward[0]


def assert_same_weights(found: RewardModel, expected: RewardModel) -> None:
    """Bit for bit, dtypes included."""
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[key].dtype == theirs[key].dtype and torch.equal(ours[key], theirs[key]) for key in ours)


def their_rewards(folder: Path, side: str, **options: Any) -> Tensor:
    """Transformers' own, on one padded batch."""
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, **options).eval()
    width = max(map(len, SEQUENCES))
    rows = torch.tensor(
        [[PAD] * (width - len(ids)) + ids if side == "left" else ids + [PAD] * (width - len(ids)) for ids in SEQUENCES]
    )
    mask = (rows != PAD).long()
    positions = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if classifier.config.model_type == "gpt2" else {}
    with torch.no_grad():
        return classifier(input_ids=rows, attention_mask=mask, **positions).logits[:, 0]


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_gives_our_rewards(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    expected = our_rewards(model)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [type(model.backbone).__name__]
    assert config["architectures"][0].endswith("ForSequenceClassification")
    assert config["id2label"] == {"0": "LABEL_0"}
    assert config["problem_type"] == "regression"
    assert config["pad_token_id"] == PAD != config["eos_token_id"]
    assert config["dtype"] == "float64"
    assert "_attn_implementation" not in config
    tensors = load_file(tmp_path / "model.safetensors")
    assert not [key for key in tensors if "lm_head" in key]
    if model.read_at == "last":
        assert tensors["score.weight"].shape == (1, 32)
    # An encoder reads its first token, which padding on the left moves away.
    compare = nearly_same if name == "gemma2" and older_than(5, 18) else assert_same
    compare(their_rewards(tmp_path, "right"), expected)
    if model.read_at == "last":
        # Padding moves the positions along, and transformers has their angles in float32, of which others are rounded.
        torch.testing.assert_close(their_rewards(tmp_path, "left"), expected, rtol=1e-7, atol=1e-7)
    loaded: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not loaded[1]["missing_keys"]  # what transformers would newly initialise
    assert not loaded[1]["unexpected_keys"]
    again = in_float64(RewardModel.from_pretrained(tmp_path, dtype="float64").eval())
    assert_same_weights(again, model)
    assert_same(our_rewards(again), expected)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_merged_adapters_give_the_same_rewards(name: str, tmp_path: Path) -> None:
    model = tiny_model(name, lora=LoraAdapter(rank=4, alpha=16))
    before = our_rewards(model)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=0.05)
    expected = our_rewards(model)
    assert (expected - before).abs().max() > 1e-3
    model.save_pretrained(tmp_path)
    assert_same(their_rewards(tmp_path, "right"), expected)
    assert load_file(tmp_path / "model.safetensors").keys() == tiny_model(name).backbone.state_dict().keys()
    assert_same(our_rewards(model), expected)


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_bfloat16_backbone_keeps_its_float32_head(name: str, tmp_path: Path) -> None:
    model = tiny_model(name, dtype="bfloat16")
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    dtypes = {key: value.dtype for key, value in load_file(tmp_path / "model.safetensors").items()}
    head = {key for key in dtypes if key.startswith(tuple(f"{part}." for part in model.architecture.head))}
    assert {key for key, dtype in dtypes.items() if dtype == torch.float32} == head
    again = RewardModel.from_pretrained(tmp_path, dtype="bfloat16").eval()
    assert_same_weights(again, model)
    assert_same(our_rewards(again.double()), our_rewards(model.double()))  # in bfloat16 some processors round anew
    upcast = RewardModel.from_pretrained(tmp_path, dtype="float64").eval()
    assert_same(their_rewards(tmp_path, "right", dtype="float64"), our_rewards(upcast))


def test_a_kept_lm_head_is_left_out(tmp_path: Path) -> None:
    AutoModelForCausalLM.from_config(tiny_model("llama").backbone.config).save_pretrained(tmp_path / "causal")
    model = RewardModel.from_pretrained(tmp_path / "causal", dtype="float64", keep_lm_head=True).eval()
    model.save_pretrained(tmp_path / "reward")
    plain = RewardModel.from_pretrained(tmp_path / "causal", dtype="float64").eval()
    plain.save_pretrained(tmp_path / "plain")
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("reward", "plain"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert_same(their_rewards(tmp_path / "reward", "right"), our_rewards(model))


def test_an_earlier_export_is_replaced_and_other_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    monkeypatch.setattr(export, "SHARD_SIZE", "20KB")
    tiny_model("llama", seed=1).save_pretrained(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    (folder / "notes.txt").write_text("mine")
    monkeypatch.setattr(export, "SHARD_SIZE", "5GB")
    model = tiny_model("llama", seed=2)
    model.save_pretrained(folder)
    names = ["checksums.json", "config.json", "model.safetensors", "notes.txt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert_same(their_rewards(folder, "right"), our_rewards(model))


@pytest.mark.parametrize("shard", [1, 2, 3])
def test_a_kill_between_shards_leaves_the_old_model(
    shard: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL as soon as the n-th file of weights is written."""
    folder = tmp_path / "model"
    monkeypatch.setattr(export, "SHARD_SIZE", "20KB")
    old = tiny_model("llama", seed=1)
    old.save_pretrained(folder)
    new = tiny_model("llama", seed=2)
    written: list[str] = []

    def save(tensors: Any, path: Any, *args: Any, **options: Any) -> None:
        save_file(tensors, path, *args, **options)
        written.append(str(path))
        if len(written) == shard:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        modeling_utils.safe_save_file = save
        new.save_pretrained(folder)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert_same_weights(RewardModel.from_pretrained(folder, dtype="float64"), old)
    new.save_pretrained(folder)
    assert_same_weights(RewardModel.from_pretrained(folder, dtype="float64"), new)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_kill_leaves_members_with_their_average(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    old = MemberRewardModel.of(tiny_model("llama", seed=1), Members(num_members=2))
    old.save_pretrained(folder)
    child = os.fork()
    if child == 0:
        folder_drafts._flush = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
        MemberRewardModel.of(tiny_model("llama", seed=2), Members(num_members=3)).save_pretrained(folder)
        os._exit(0)
    os.waitpid(child, 0)
    found, expected = MemberRewardModel.load(folder, dtype="float64").state_dict(), old.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items() if name.startswith("heads."))


def test_sharded_files_give_the_same_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "SHARD_SIZE", "20KB")
    model = tiny_model("llama")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert_same(their_rewards(tmp_path, "right"), our_rewards(model))


def test_pooling_at_the_last_attended_token_is_what_a_server_reads() -> None:
    """vLLM and SGLang take the last token's hidden state of an unpadded sequence and apply `score`."""
    model = tiny_model("qwen3")
    backbone: Any = model.backbone
    for ids, reward in zip(SEQUENCES, our_rewards(model), strict=True):
        hidden = backbone.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        assert_same(backbone.score(hidden)[0], reward)


def test_the_tokenizer_travels_along_and_must_pad_alike(tmp_path: Path) -> None:
    from lightning_rm.data.synthetic.tokenizer import world_tokenizer

    tokenizer = world_tokenizer()
    model = RewardModel.from_config(CONFIGS["llama"], tokenizer=tokenizer)
    model.save_pretrained(tmp_path, tokenizer)
    assert (tmp_path / "tokenizer.json").is_file()
    assert model.backbone.config.vocab_size == len(tokenizer)
    other = RewardModel.from_config(CONFIGS["llama"], vocab_size=len(tokenizer), pad_id=len(tokenizer) - 1)
    with pytest.raises(ValueError, match="one padding token"):
        other.save_pretrained(tmp_path, tokenizer)


def test_export_trains_on_and_scores_a_content_eos(tmp_path: Path) -> None:
    """A sequence of one EOS, and EOS twice at the end: the last attended token is read."""
    model = tiny_model("llama")
    model.save_pretrained(tmp_path)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    for ids in ([EOS], [5, EOS, EOS], [7, EOS, 9]):
        ours = model(padded([Sample([ids, conversation(12)])], "last", PAD)).reward[0, 0]
        rows = torch.tensor([ids + [PAD] * 3])
        theirs = classifier(input_ids=rows, attention_mask=(rows != PAD).long()).logits[0, 0]
        assert_same(ours, theirs)


def test_a_weight_that_is_computed_from_others_is_not_exported(tmp_path: Path) -> None:
    """Transformers would find no such weight, and draw one."""
    model = tiny_model("qwen3")
    layer = cast(Any, transformer_layers(model.backbone)[0]).mlp.up_proj
    prune.l1_unstructured(layer, "weight", 0.5)
    told = r"layers\.0\.mlp\.up_proj\.weight is no weight of the model, .*up_proj\.weight_orig stands there\)"
    with pytest.raises(ValueError, match=told):
        model.save_pretrained(tmp_path / "model")
    assert not [*tmp_path.iterdir()]
    prune.remove(layer, "weight")
    model.save_pretrained(tmp_path / "model")
