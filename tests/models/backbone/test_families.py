"""Every family that transformers has a sequence classifier for: trained, exported, read; or refused in a sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lightning_rm.batch import Sample
from lightning_rm.models.attention import segments
from lightning_rm.models.backbone.families import PROVEN, architecture_of
from lightning_rm.models.backbone.heads import ENCODERS
from lightning_rm.models.backbone.settings import _say_once
from lightning_rm.models.reward_model import RewardModel
from tests.families import CLASSIFIERS, family_config, is_decoder, nearly_same, older_than, table
from tests.float64 import assert_same, in_float64
from tests.tiny import PAD, gradients, laid_out, layouts_of, prompted

DECODERS = [name for name in CLASSIFIERS if is_decoder(name)]
CHANGES = {name: {"sliding_window": 64} for name in ("gemma2", "gpt_oss")}
"""Under eager attention rows pack up to the window; `test_reward_model` has what is longer."""

WEIGHT = torch.tensor([[1.0, -0.5, 2.0], [0.3, 1.5, -1.0]])


def alone(classifier: PreTrainedModel, samples: list[Sample]) -> Tensor:
    """(k, P): the classifier's own forward on each sequence by itself."""
    rows = [
        torch.stack([classifier(input_ids=torch.tensor([ids])).logits[0, 0] for ids in one.sequences])
        for one in samples
    ]
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("name", DECODERS)
def test_a_family(name: str, tmp_path: Path) -> None:
    """From a causal checkpoint: layouts are exact in rewards and gradients; a step, an export, and the same rewards."""
    rounds = (name == "gemma2" and older_than(5, 18)) or (name == "deepseek_v2" and older_than(5, 17))
    compare = nearly_same if rounds else assert_same
    if name == "zamba" and older_than(5, 11):
        pytest.skip("in transformers 5.10 it runs with its CUDA kernels alone")
    torch.manual_seed(0)
    # Mistral 4's causal model comes with images alone.
    start = AutoModelForCausalLM if name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else AutoModel
    start.from_config(family_config(name, **CHANGES.get(name, {}))).save_pretrained(tmp_path / "causal")
    model = in_float64(RewardModel.from_pretrained(tmp_path / "causal", dtype="float64", pad_id=PAD)).eval()
    samples = prompted()
    model.backbone.set_attn_implementation("sdpa" if type(model.backbone)._supports_sdpa else "eager")
    expected = alone(model.backbone, samples)
    (expected * WEIGHT).sum().backward()
    slopes = gradients(model)
    model.backbone.set_attn_implementation(model.architecture.attention)
    for layout in layouts_of(model):
        model.zero_grad()
        reward = model(laid_out(model, layout, samples)).reward
        compare(reward, expected.detach())
        (reward * WEIGHT).sum().backward()
        found = gradients(model)
        for key in slopes:
            compare(found[key], slopes[key])
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    with torch.no_grad():
        trained = model(laid_out(model, "padded", samples)).reward
        assert float((trained - expected).abs().max()) > 1e-6
        model.save_pretrained(tmp_path / "reward")
        exported = AutoModelForSequenceClassification.from_pretrained(
            tmp_path / "reward",
            dtype=torch.float64,
            attn_implementation=model.architecture.attention,
            experts_implementation="eager",
        )
        compare(alone(exported.double(), samples), trained)


def test_families_are_proven() -> None:
    """Older versions of transformers have fewer."""
    assert {family_config(name).model_type for name in DECODERS} == PROVEN & {*CLASSIFIERS}


OTHERS = [name for name in CLASSIFIERS if name not in DECODERS and name not in ENCODERS]


@pytest.mark.parametrize("name", OTHERS)
def test_other_classifiers_are_named(name: str) -> None:
    """Of a head that is not known, or images: what it is and the way out, before any weight is read."""
    config = AutoConfig.for_model(name)
    with pytest.raises(ValueError, match=r"choose a decoder, or an encoder of one of|give its text tower") as raised:
        architecture_of(config)
    assert ("reads images" in str(raised.value)) == (name in ("gemma3", "qwen3_5", "modernvbert", "ultravbert"))


@pytest.mark.parametrize("name", ["gemma4_text", "granite", "mamba"])
def test_without_a_sequence_classifier(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}': transformers .* has no sequence classifier .* trust_remote_code"):
        RewardModel.from_config({"model_type": name})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("qwen3_5_text", "linear_attention.*state"),
        ("qwen3_next", "linear_attention.*state"),
        ("minimax", "linear_attention.*state"),
        ("jamba", "state"),
        ("zamba2", "state"),
        ("falcon", "interface"),
        ("doge", "mask anew"),
        ("phimoe", "window"),
        ("qwen2_moe", "window"),
    ],
)
def test_why_rows(name: str, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    """A backbone that does not pack says why, once; asked to pack, it is an error. Of Qwen2-MoE only with windows."""
    windows = {"use_sliding_window": True, "sliding_window": 3} if name == "qwen2_moe" else {}
    architecture = architecture_of(family_config(name, **windows))
    assert not architecture.packs
    assert architecture.why_rows is not None
    assert re.search(reason, architecture.why_rows)
    _say_once.cache_clear()
    with caplog.at_level("INFO"):
        model, _ = (RewardModel.from_config(family_config(name, **windows)) for _ in range(2))
    assert [record.message for record in caplog.records if "a row of its own" in record.message] == [
        f"{name}: {architecture.why_rows}; every sequence gets a row of its own (layout=padded)"
    ]
    assert model.fast_layouts == ("padded",)
    with pytest.raises(ValueError, match="cannot keep the sequences of a row apart"):
        model(laid_out(model, "packed"))
    samples = prompted()
    with torch.no_grad():
        rows = model.eval()(laid_out(model, "padded", samples)).reward
        torch.testing.assert_close(rows, alone(model.backbone, samples), rtol=1e-3, atol=1e-4)


def test_mixtures_pack() -> None:
    for name in ("mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3", "hunyuan_v1_moe"):
        assert architecture_of(family_config(name)).packs
    assert architecture_of(family_config("phimoe", sliding_window=None)).packs
    assert architecture_of(family_config("gpt_oss")).attention == "eager"  # for its sinks


def test_the_page_of_backbones_says_what_is_so() -> None:
    """`python -m tests.families` prints the rows."""
    page = (Path(__file__).parents[3] / "docs" / "backbones.md").read_text(encoding="utf-8")
    if f"transformers {transformers.__version__.rpartition('.')[0]};" not in page:
        pytest.skip("the page is of another version of transformers")
    assert [line for line in page.splitlines() if line.startswith("| ") and "families" not in line] == table()


@pytest.mark.parametrize("way", ["_in_one_call", "_one_by_one"])
def test_values_narrower_than_keys(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latent attention's, as DeepSeek's: in one call as one by one, and never by the kernel, which wants one width."""
    config = family_config("deepseek_v3", v_head_dim=4)
    model = in_float64(RewardModel.from_config(config, dtype="float64")).eval()
    with torch.no_grad():
        expected = model(laid_out(model, "padded", prompted())).reward
        monkeypatch.setattr(segments, "_way", lambda *_: getattr(segments, way))
        assert_same(model(laid_out(model, "shared_prefix", prompted())).reward, expected)
    query = torch.zeros(1, 1, 2, 16, device="meta")
    monkeypatch.undo()
    monkeypatch.setattr(segments.varlen, "serves", lambda *_: True)
    plan = segments.Plan(torch.tensor([[[[2], [0]]]]))
    assert segments._way(query, query, plan, 0.0) is segments._without_padding
    assert segments._way(query, query[..., :8], plan, 0.0) is segments._in_one_call
