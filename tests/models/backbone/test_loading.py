"""From checkpoints of every kind to a reward model, and what is said when that cannot be."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
)

from lightning_rm.data.batches.layouts import padded
from lightning_rm.models.backbone import settings
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.backbone.layers import transformer_layers
from lightning_rm.models.reward_model import RewardModel
from tests.float64 import assert_same, in_float64
from tests.tiny import CONFIGS, EOS, PAD, VOCAB, pairs, tiny_model


def config_of(name: str, **changes: Any) -> PreTrainedConfig:
    values = {"vocab_size": VOCAB, "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": 3}
    return settings.config_of({**CONFIGS[name], **values, **changes})


def save_causal(folder: Path, name: str = "llama", **changes: Any) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config_of(name, **changes)).save_pretrained(folder)
    return folder


def save_classifier(folder: Path, num_labels: int, name: str = "llama") -> Path:
    torch.manual_seed(0)
    config = config_of(name)
    config.num_labels = num_labels
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def head_of(model: RewardModel) -> list[Tensor]:
    return [parameter.detach() for parameter in model.head_parameters()]


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gpt2", "gemma3_text"])
def test_a_causal_checkpoint_gets_a_new_head(name: str, tmp_path: Path) -> None:
    save_causal(tmp_path, name)
    model = RewardModel.from_pretrained(tmp_path)
    causal = AutoModelForCausalLM.from_pretrained(tmp_path)
    expected = causal.base_model.state_dict()
    found = model.backbone.base_model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)
    assert model.backbone.config.num_labels == 1
    assert model.pad_id == PAD


def test_a_new_head_depends_on_its_seed_alone(tmp_path: Path) -> None:
    save_causal(tmp_path)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = RewardModel.from_pretrained(tmp_path, head_seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    second, other = (RewardModel.from_pretrained(tmp_path, head_seed=seed) for seed in (7, 8))
    kept = RewardModel.from_pretrained(tmp_path, head_seed=7, keep_lm_head=True)
    assert torch.equal(head_of(first)[0], head_of(second)[0])
    assert torch.equal(head_of(first)[0], head_of(kept)[0])
    assert not torch.equal(head_of(first)[0], head_of(other)[0])


def test_a_new_head_has_a_variance_of_one_over_inputs_plus_one(tmp_path: Path) -> None:
    """Stiennon et al., arXiv 2009.01325: N(0, 1 / (d + 1)), here d = 4096."""
    config = {**CONFIGS["llama"], "hidden_size": 4096, "intermediate_size": 8, "num_hidden_layers": 1}
    weight = head_of(RewardModel.from_config(config, vocab_size=VOCAB, pad_id=PAD))[0]
    assert weight.shape == (1, 4096)
    assert float(weight.var()) == pytest.approx(1 / 4097, rel=0.1)
    assert abs(float(weight.mean())) < 3 * 4097**-0.5 / 64


@pytest.mark.parametrize("name", ["llama", "bert", "roberta", "distilbert", "modernbert", "deberta-v2"])
def test_a_reward_checkpoint_keeps_its_head(name: str, tmp_path: Path) -> None:
    save_classifier(tmp_path, 1, name)
    found = RewardModel.from_pretrained(tmp_path, head_seed=5).backbone.state_dict()
    expected = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_base_encoder_keeps_its_pooler_and_one_without_gets_a_new_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoModel.from_config(config_of("bert")).save_pretrained(tmp_path / "pooled")
    AutoModelForMaskedLM.from_config(config_of("bert")).save_pretrained(tmp_path / "masked")
    pooled, masked = (RewardModel.from_pretrained(tmp_path / name, head_seed=2) for name in ("pooled", "masked"))
    weight = load_file(tmp_path / "pooled" / "model.safetensors")["pooler.dense.weight"]
    assert torch.equal(head_of(pooled)[0], weight)
    assert float(head_of(masked)[0].std()) == pytest.approx(33**-0.5, rel=0.1)
    assert torch.equal(head_of(pooled)[2], head_of(masked)[2])  # the classifier is the same draw
    assert not head_of(masked)[1].any()  # biases are 0


def test_a_pooler_of_a_bfloat16_load_is_not_rounded(tmp_path: Path) -> None:
    save_classifier(tmp_path, 1, "bert")
    model = RewardModel.from_pretrained(tmp_path, dtype=torch.bfloat16)  # or by its name
    weight = load_file(tmp_path / "model.safetensors")["bert.pooler.dense.weight"]
    assert torch.equal(head_of(model)[0], weight)
    assert model.backbone.dtype == torch.bfloat16


def test_more_than_one_label_is_an_error(tmp_path: Path) -> None:
    save_classifier(tmp_path, 2)
    with pytest.raises(ValueError, match="2 labels"):
        RewardModel.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="num_labels=1"):
        RewardModel(AutoModelForSequenceClassification.from_pretrained(tmp_path))


def test_a_model_object_is_taken_as_it_is(tmp_path: Path) -> None:
    classifier = AutoModelForSequenceClassification.from_pretrained(
        save_classifier(tmp_path, 1), dtype="float64"
    ).eval()
    tokens = padded(pairs(), "last", PAD)
    reward = RewardModel(classifier)(tokens).reward
    assert_same(reward, RewardModel.from_pretrained(tmp_path, dtype="float64").eval()(tokens).reward)


@pytest.mark.parametrize("model_type", ["t5", "albert"])
def test_an_unknown_head_lists_what_is_known(model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ValueError, match=rf"{model_type}.*a decoder.*bert"):
        RewardModel.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"{model_type}.*a decoder.*bert"):
        RewardModel.from_config({"model_type": model_type}, vocab_size=VOCAB, pad_id=PAD)


def test_a_type_that_transformers_does_not_know_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"model_type='lama' is not one that transformers knows, did you mean .*llama"):
        RewardModel.from_config({"model_type": "lama"}, vocab_size=VOCAB, pad_id=PAD)


def test_a_path_that_is_not_there_has_both_readings() -> None:
    with pytest.raises(ValueError, match=r"no folder of that name.*hub"):
        RewardModel.from_pretrained("nobody/nothing")
    with pytest.raises(ValueError, match="no such file"):
        RewardModel.from_pretrained("nothing.gguf")


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no model.*give a folder in Hugging Face format"):
        RewardModel.from_pretrained(tmp_path)
    for weights in ("last", "best"):  # a run
        (tmp_path / "model" / weights).mkdir(parents=True)
        (tmp_path / "model" / weights / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no model.*there is one in .*/model/best, .*/model/last$"):
        RewardModel.from_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="LoRA adapter alone"):
        RewardModel.from_pretrained(tmp_path)


def test_missing_weights_are_an_error(tmp_path: Path) -> None:
    save_causal(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {name: value.clone() for name, value in load_file(file).items()}  # written over below
    dropped = tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"missing: model\.layers\.1\.mlp\.up_proj\.weight"):
        RewardModel.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"missing: model\.layers\.1\.mlp\.up_proj\.weight"):
        RewardModel.from_pretrained(tmp_path, keep_lm_head=True)
    save_file({**tensors, "model.layers.1.mlp.up_proj.weight": dropped[:3].clone()}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r".*up_proj\.weight is \(3, 32\) in the file, .* says \(48, 32\); put the"):
        RewardModel.from_pretrained(tmp_path)
    file.write_bytes(file.read_bytes()[:1000])
    for keep_lm_head in (False, True):
        with pytest.raises(ValueError, match="the weights cannot be read"):
            RewardModel.from_pretrained(tmp_path, keep_lm_head=keep_lm_head)
    file.unlink()
    for keep_lm_head in (False, True):
        with pytest.raises(ValueError, match="the weights cannot be read"):
            RewardModel.from_pretrained(tmp_path, keep_lm_head=keep_lm_head)


def test_a_reward_head_that_does_not_load_is_an_error(tmp_path: Path) -> None:
    """Under another name, and not there at all."""
    file = save_classifier(tmp_path, 1) / "model.safetensors"
    tensors = load_file(file)
    head = tensors.pop("score.weight")
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"head is missing: score\.weight"):
        RewardModel.from_pretrained(tmp_path)
    save_file({**tensors, "value_head.weight": head}, file, {"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["RewardModel"]}))
    with pytest.raises(ValueError, match=r"value_head\.weight.*rename it to score\.weight"):
        RewardModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("load_sharded", [False, True])
@pytest.mark.parametrize("name", ["v_head.summary.weight", "rm_head.weight", "score.0.weight"])
def test_a_reward_head_of_another_form_is_not_replaced_unasked(name: str, load_sharded: bool, tmp_path: Path) -> None:
    """Neither beside a causal model's weights nor in a file of its own; with an LM head neither."""
    file = save_causal(tmp_path) / "model.safetensors"
    tensors, head = load_file(file), {name: torch.ones(1, 32)}
    save_file({**tensors, **head}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=rf"stored as {name}, which .* rename it to score\.weight, .* new_head=True"):
        RewardModel.from_pretrained(tmp_path, load_sharded=load_sharded)
    with pytest.raises(ValueError, match=rf"stored as {name}, which"):
        RewardModel.from_pretrained(tmp_path, keep_lm_head=True)
    assert RewardModel.from_pretrained(tmp_path, load_sharded=load_sharded, new_head=True).untrained_head is None
    save_file(tensors, file, {"format": "pt"})
    save_file(head, tmp_path / "value_head.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"stored as value_head\.safetensors, which"):
        RewardModel.from_pretrained(tmp_path, load_sharded=load_sharded)


@pytest.mark.parametrize("load_sharded", [False, True])
def test_layers_that_a_configuration_says_nothing_of_are_told(load_sharded: bool, tmp_path: Path) -> None:
    config = json.loads((save_causal(tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    with pytest.warns(UserWarning, match=r"are left out, .*: model\.layers\.1\.input_layernorm\.weight, .* 6 others;"):
        model = RewardModel.from_pretrained(tmp_path, load_sharded=load_sharded)
    assert len(model.backbone.base_model.layers) == 1


def test_weights_of_other_sizes_are_told_with_their_number(tmp_path: Path) -> None:
    """Three of each of two layers."""
    config = json.loads((save_causal(tmp_path) / "config.json").read_text())
    size = config["intermediate_size"]
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 2 * size}))
    told = rf"down_proj\.weight is \(\d+, {size}\) in the file, .* says \(\d+, {2 * size}\) \(5 others too\); put"
    with pytest.raises(ValueError, match=told):
        RewardModel.from_pretrained(tmp_path)


def test_a_size_that_is_none_names_the_folder(tmp_path: Path) -> None:
    config = json.loads((save_causal(tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": "wide"}))
    with pytest.raises(ValueError, match=r"^path=.*: its config\.json: .*'hidden_size': .* expected int, got str"):
        RewardModel.from_pretrained(tmp_path)


def test_a_padding_token_that_is_eos_is_an_error(tmp_path: Path) -> None:
    save_causal(tmp_path, pad_token_id=EOS)
    for pad_id in (None, EOS):
        with pytest.raises(ValueError, match="give pad_token="):
            RewardModel.from_pretrained(tmp_path, pad_id=pad_id)
    model = RewardModel.from_pretrained(tmp_path, pad_id=PAD)
    assert model.pad_id == model.backbone.config.pad_token_id == PAD
    embeddings: Any = model.backbone.get_input_embeddings()
    assert embeddings.padding_idx != EOS  # else the row of EOS would never be trained


def test_no_padding_token_is_an_error(tmp_path: Path) -> None:
    save_causal(tmp_path, pad_token_id=None)
    with pytest.raises(ValueError, match="no padding token; give pad_token="):
        RewardModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("pad_id", [-1, "<pad>", 2.0])
def test_what_is_no_id_pads_nothing(pad_id: Any, tmp_path: Path) -> None:
    """-1 was taken for the last row of the embeddings."""
    save_causal(tmp_path)
    with pytest.raises(ValueError, match=f"^pad_id={pad_id!r}; give "):
        RewardModel.from_pretrained(tmp_path, pad_id=pad_id)


def test_several_eos_tokens_are_all_minded(tmp_path: Path) -> None:
    save_causal(tmp_path, eos_token_id=[EOS, 5])
    with pytest.raises(ValueError, match="ends texts too"):
        RewardModel.from_pretrained(tmp_path, pad_id=5)


def test_roberta_pads_with_its_own_token(tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoModel.from_config(config_of("roberta")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="counts positions from its own padding token; set 1"):
        RewardModel.from_pretrained(tmp_path, pad_id=4)


@pytest.mark.parametrize("keep_lm_head", [False, True])
def test_a_padding_token_beyond_the_vocabulary_gets_a_row(keep_lm_head: bool, tmp_path: Path) -> None:
    save_causal(tmp_path, tie_word_embeddings=True)
    plain = RewardModel.from_pretrained(tmp_path, dtype="float64").eval()
    model = RewardModel.from_pretrained(tmp_path, dtype="float64", pad_id=VOCAB, keep_lm_head=keep_lm_head).eval()
    embeddings: Any = model.backbone.get_input_embeddings()
    assert embeddings.num_embeddings == model.backbone.config.vocab_size == VOCAB + 1
    assert model.lm_head is None or model.lm_head.weight is embeddings.weight
    expected = plain(padded(pairs(), "last", PAD)).reward
    assert_same(model(padded(pairs(), "last", VOCAB)).reward, expected)
    model.save_pretrained(tmp_path / "again")
    again = RewardModel.from_pretrained(tmp_path / "again", dtype="float64").eval()
    assert_same(again(padded(pairs(), "last", VOCAB)).reward, expected)


def test_a_padding_token_far_beyond_the_vocabulary_is_an_error(tmp_path: Path) -> None:
    """A million embeddings were added for it without a word; elsewhere it was torch's `Padding_idx must be within`, or
    nothing before the first padded batch.
    """
    save_causal(tmp_path)
    for pad_id in (VOCAB + 1, 1_000_000):
        with pytest.raises(ValueError, match=rf"^pad_id={pad_id} is not the next of .* {VOCAB} tokens.*: give {VOCAB}"):
            RewardModel.from_pretrained(tmp_path, pad_id=pad_id)
    model = RewardModel.from_pretrained(tmp_path)
    too_high = rf"^pad_id={VOCAB}: the model's {VOCAB} tokens end at {VOCAB - 1}; give"
    with pytest.raises(ValueError, match=too_high):
        RewardModel(model.backbone, VOCAB)
    with pytest.raises(ValueError, match=too_high):
        RewardModel.from_config(config_of("llama"), pad_id=VOCAB)


def test_dropout_is_set_everywhere_or_left_alone(tmp_path: Path) -> None:
    save_classifier(tmp_path, 1, "bert")
    rates = {
        dropout: {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
        for dropout in (None, 0.0, 0.3)
        for model in [RewardModel.from_pretrained(tmp_path, dropout=dropout)]
    }
    assert rates == {None: {0.1}, 0.0: {0.0}, 0.3: {0.3}}
    with pytest.raises(ValueError, match="probability"):
        RewardModel.from_pretrained(tmp_path, dropout=1.5)


def test_an_lm_head_needs_a_causal_checkpoint(tmp_path: Path) -> None:
    save_classifier(tmp_path, 1)
    with pytest.raises(ValueError, match="needs a causal checkpoint"):
        RewardModel.from_pretrained(tmp_path, keep_lm_head=True)


def test_attention_that_an_architecture_has_not_is_an_error(tmp_path: Path) -> None:
    for name, reason in (("deberta-v2", "attention of its own"), ("gemma2", "caps its attention logits")):
        with pytest.raises(ValueError, match=reason):
            tiny_model(name, attn_implementation="sdpa")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("flash_attention_2", "needs a GPU and flash-attn's package"),
        ("kernels-community/flash-attn2", "is a kernel of the hub"),
        ("flex_attention", "has no gradient on a CPU"),
    ],
)
def test_attention_that_this_machine_cannot_run_is_said(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.utils, "is_flash_attn_2_available", lambda: False)
    monkeypatch.setattr(settings, "is_kernels_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=rf"attn_implementation='{name}' {reason}.*; leave it out \(null\)"):
        RewardModel.from_pretrained(save_causal(tmp_path), pad_id=PAD, attn_implementation=name)


def test_dtype_is_one_of_three(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dtype='fp8'.*bfloat16"):
        RewardModel.from_pretrained(save_causal(tmp_path), dtype="fp8")


def test_from_config_is_seeded_and_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = tiny_model("llama", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    second, other = tiny_model("llama", seed=1).state_dict(), tiny_model("llama", seed=2).state_dict()
    for key, value in first.state_dict().items():
        assert torch.equal(value, second[key])
        assert "proj" not in key or not torch.equal(value, other[key])


def test_from_config_minds_its_settings() -> None:
    with pytest.raises(ValueError, match="num_layers"):
        RewardModel.from_config({"model_type": "llama", "num_layers": 2}, vocab_size=VOCAB, pad_id=PAD)
    with pytest.raises(ValueError, match="model_type"):
        RewardModel.from_config({"hidden_size": 2}, vocab_size=VOCAB, pad_id=PAD)
    with pytest.raises(ValueError, match="no padding token; give pad_token="):
        RewardModel.from_config(CONFIGS["llama"], vocab_size=VOCAB)


def test_loading_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_causal(tmp_path)
    capfd.readouterr()
    RewardModel.from_pretrained(tmp_path).save_pretrained(tmp_path / "out")
    assert capfd.readouterr() == ("", "")


def test_modernbert_is_read_at_its_first_token(tmp_path: Path) -> None:
    """The published base model's configuration says `mean`; a new head reads the first token, and exports say so."""
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(config_of("modernbert", classifier_pooling="mean")).save_pretrained(tmp_path)
    assert RewardModel.from_pretrained(tmp_path).backbone.config.classifier_pooling == "cls"
    classifier = AutoModelForSequenceClassification.from_config(config_of("modernbert", classifier_pooling="mean"))
    classifier.config.num_labels = 1
    with pytest.raises(ValueError, match="classifier_pooling=cls"):
        RewardModel(classifier)


REMOTE_CODE = """
from torch import nn
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForSequenceClassification(LlamaPreTrainedModel):
    config_class = OwnConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()

    def forward(self, input_ids, attention_mask):
        hidden = self.model(input_ids, attention_mask).last_hidden_state
        last = attention_mask.sum(-1) - 1
        return SequenceClassifierOutput(logits=self.score(hidden[range(len(last)), last]))
"""


def test_code_that_a_model_brings_runs_only_when_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    save_classifier(tmp_path / "model", 1)
    expected = (
        RewardModel.from_pretrained(tmp_path / "model", dtype="float64").eval()(padded(pairs(), "last", PAD)).reward
    )
    (tmp_path / "model" / "own.py").write_text(REMOTE_CODE)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    code = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnForSequenceClassification"}
    changes = {"model_type": "own", "auto_map": code, "architectures": ["OwnForSequenceClassification"]}
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ValueError, match="custom code"):
        RewardModel.from_pretrained(tmp_path / "model")
    model = RewardModel.from_pretrained(tmp_path / "model", dtype="float64", trust_remote_code=True).eval()
    assert_same(model(padded(pairs(), "last", PAD)).reward, expected)
    model.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "own.py").is_file()
    again = RewardModel.from_pretrained(tmp_path / "again", dtype="float64", trust_remote_code=True).eval()
    assert_same(again(padded(pairs(), "last", PAD)).reward, expected)
    (tmp_path / "model" / "own.py").write_text(REMOTE_CODE.replace("self.score", "self.other"))
    with pytest.raises(ValueError, match="a linear `score`"):
        RewardModel.from_pretrained(tmp_path / "model", trust_remote_code=True)


def test_weights_that_would_run_code_or_lack_a_package_are_named(tmp_path: Path) -> None:
    """What torch says of a pickle advises to run it: `weights_only=False`."""
    tiny_model().save_pretrained(tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").unlink()
    whole = io.BytesIO()
    torch.save({"weights": torch.ones(3)}, whole)
    damaged = (b"no pickle", b"", b"abc", b"\xff\xfe", b"a", whole.getvalue()[:200], b"\x80\x02}q\x00(X\x01\x00")
    for content in (pickle.dumps({"weights": os.system}), *damaged):
        (tmp_path / "a" / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(ValueError, match="the weights cannot be read") as caught:
            RewardModel.from_pretrained(tmp_path / "a")
        assert "weights_only" not in str(caught.value)
    tiny_model().save_pretrained(tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
    (tmp_path / "b" / "checksums.json").unlink()
    with pytest.raises(ValueError, match="need a package that is not installed"):
        RewardModel.from_pretrained(tmp_path / "b")


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "modernbert"])
def test_first_layers_are_frozen_and_the_others_have_the_gradients_of_the_whole(
    name: str, checkpointing: bool, tmp_path: Path
) -> None:
    save_classifier(tmp_path, 1, name)
    options: dict[str, Any] = {"dtype": "float64", "dropout": 0.0, "gradient_checkpointing": checkpointing}

    def gradients(freeze_layers: int | None) -> dict[str, Tensor]:
        model = in_float64(RewardModel.from_pretrained(tmp_path, freeze_layers=freeze_layers, **options)).train()
        batch = padded(pairs(), model.read_at, PAD)
        model(batch).reward.square().sum().backward()
        return {key: value.grad for key, value in model.named_parameters() if value.grad is not None}

    model = RewardModel.from_pretrained(tmp_path)
    whole, layers = gradients(None), transformer_layers(model.backbone)
    names = {id(value): key for key, value in model.named_parameters()}
    head = {names[id(value)] for value in model.head_parameters()}
    of_layers = [{names[id(value)] for value in layer.parameters()} for layer in layers]
    embeddings = {names[id(value)] for value in model.backbone.get_input_embeddings().parameters()}
    for number in range(len(layers) + 1):
        found = gradients(number)
        for key, gradient in found.items():
            assert_same(gradient, whole[key])
        assert not found.keys() & embeddings.union(*of_layers[:number])
        assert found.keys() & set[str]().union(*of_layers) == whole.keys() & set[str]().union(*of_layers[number:])
        assert found.keys() >= head & whole.keys()
    assert gradients(len(layers)).keys() == head & whole.keys()


def test_layers_that_are_not_there_and_adapters_do_not_go_with_freezing(tmp_path: Path) -> None:
    save_causal(tmp_path)
    for number, told in (
        (3, "has 2 layers; freeze_layers=2 trains the head alone"),
        (-1, "0 or more"),
        ("all", "0 or"),
    ):
        with pytest.raises(ValueError, match=rf"freeze_layers={number!r}[:;] .*{told}"):
            RewardModel.from_pretrained(tmp_path, freeze_layers=number)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="freeze_layers=1: an adapter freezes the whole backbone; leave one out"):
        RewardModel.from_pretrained(tmp_path, freeze_layers=1, lora=LoraAdapter())


def test_a_model_of_random_weights_has_layers_frozen_too() -> None:
    for number in range(3):
        model = tiny_model(freeze_layers=number)
        trained = {name for name, value in model.named_parameters() if value.requires_grad}
        layers = {int(name.split(".layers.")[1].split(".")[0]) for name in trained if ".layers." in name}
        assert layers == set(range(number, 2))
        assert trained >= {"backbone.score.weight"}
        assert not any("embed_tokens" in name for name in trained)
    with pytest.raises(ValueError, match="the backbone has 2 layers"):
        tiny_model(freeze_layers=3)
