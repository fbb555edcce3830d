"""What this package takes for granted of other libraries and they do not promise: one assertion each.

After an upgrade, what fails here says what broke. Every private name that the package uses of others is named here:
the last test looks for them.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import os
import pkgutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import datasets
import lightning as L
import pytest
import torch
from huggingface_hub import constants
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch.callbacks import LearningRateFinder, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.tuner.tuning import Tuner
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from torch import nn
from torch.nn.attention.varlen import varlen_attn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainingArguments,
)
from transformers.integrations.liger import apply_liger_kernel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.hub import cached_file

from lightning_rm.commands._entry import BARS
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.seams import OWN_WAY, library_of
from lightning_rm.data.tokenize.templates import render
from lightning_rm.loggers import Utf8Files
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.backbone.families import classifier_class, is_proven
from lightning_rm.models.backbone.layers import transformer_layers
from lightning_rm.models.backbone.merging import ADAPTER
from lightning_rm.models.backbone.routers import logits_index, routers_of
from lightning_rm.models.dropout import without_dropout
from lightning_rm.models.reward_model import RewardModel
from tests.families import family_config, older_than
from tests.syntax import PACKAGE, package
from tests.tiny import CONFIGS, PACKING, PAD, VOCAB, conversation, laid_out, tiny_model
from tests.toy import toy_trainer

OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
"""Documented, though they begin with an underscore."""


# Lightning


@pytest.fixture
def trainer(tmp_path: Path) -> L.Trainer:
    return toy_trainer(tmp_path)


def test_lightning_counts_batches_as_resume_corrects_them(trainer: L.Trainer) -> None:
    """`callbacks.resume` rewrites a checkpoint's counts, and `_batches_that_stepped`."""
    loops = trainer.fit_loop.state_dict()
    names = ["epoch_progress", "epoch_loop.batch_progress", "epoch_loop.val_loop.batch_progress"]
    for name in names:
        assert {"ready", "started", "processed", "completed"} <= loops[name]["current"].keys() | {"started"}
        assert loops[name]["current"].keys() == loops[name]["total"].keys()
    assert "is_last_batch" in loops["epoch_loop.batch_progress"]
    assert "_batches_that_stepped" in loops["epoch_loop.state_dict"]


def test_lightning_takes_a_count_back_on_restart(trainer: L.Trainer) -> None:
    total = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
    total.ready, total.completed = 3, 2
    total.reset_on_restart()
    assert total.ready == 2
    total.load_state_dict({"ready": 5, "completed": 4})
    assert (total.ready, total.completed) == (5, 4)
    assert trainer.fit_loop.epoch_loop.restarting is False


def test_lightning_says_where_in_the_epoch_it_stands(trainer: L.Trainer) -> None:
    """`PreferenceDataModule` plans the rest of an epoch by it, `PairwiseRM` tells by it whether a batch is open."""
    assert trainer.fit_loop.batch_idx == -1
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    assert progress.processed == progress.started == 0


def test_lightning_keeps_what_it_is_given_under_these_names(trainer: L.Trainer) -> None:
    """They are set, not declared."""
    undeclared: Any = trainer
    assert undeclared.log_every_n_steps == 50
    assert isinstance(undeclared.callbacks, list)
    assert undeclared.accumulate_grad_batches == 1
    assert set(trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}) == {"rank", "num_replicas"}


def test_lightning_sets_the_epoch_of_a_batch_samplers_sampler() -> None:
    class Sampler:
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    class Batches:
        sampler = Sampler()

        def __iter__(self) -> Iterator[list[int]]:
            return iter([[0]])

        def __len__(self) -> int:
            return 1

    loader = DataLoader([0], batch_sampler=Batches())
    _set_sampler_epoch(loader, 3)
    assert Batches.sampler.epoch == 3


def test_lightning_asks_all_ranks_for_a_signal_by_this_method(trainer: L.Trainer) -> None:
    """`callbacks.stop` puts another in the place of `_broadcast_sigterm_tensor`."""
    loop = trainer.fit_loop.epoch_loop
    assert callable(loop._broadcast_sigterm_tensor)
    assert "self._broadcast_sigterm_tensor()" in inspect.getsource(type(loop))


def test_lightnings_strategy_reads_its_sizes_when_it_starts(trainer: L.Trainer) -> None:
    """`FSDP2Strategy` sets `_data_parallel_size` before."""
    assert ModelParallelStrategy(data_parallel_size=3)._data_parallel_size == 3
    assert "_data_parallel_size" in inspect.getsource(ModelParallelStrategy.setup_environment)


def test_lightnings_csv_logger_keeps_its_writer_here(tmp_path: Path) -> None:
    """`ResumableCSVLogger` reads `_experiment`, and gives the writer the columns that the file has."""
    logger = CSVLogger(tmp_path)
    assert logger._experiment is None
    assert logger.experiment is logger._experiment
    assert logger.experiment._fs.protocol == Utf8Files.protocol  # `tests/test_encoding.py` has what it is asked for
    assert isinstance(logger.experiment, ExperimentWriter)
    assert logger.experiment.metrics_keys == []
    assert Path(logger.experiment.metrics_file_path).name == ExperimentWriter.NAME_METRICS_FILE


def test_lightning_clips_by_its_plainest_plugin() -> None:
    """Mixed precision refuses fused optimizers in bfloat16, too, where it has no scaler."""
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    plugin = MixedPrecision("bf16-mixed", "cpu")
    assert plugin.scaler is None
    Precision.clip_gradients(plugin, torch.optim.SGD([weight], lr=1.0), 1.0)
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]), atol=1e-5, rtol=0)  # it adds 1e-6 to the norm


# Transformers


def test_transformers_configuration_names_the_attention_that_runs() -> None:
    """`_attn_implementation`; there is no public name."""
    assert tiny_model("llama", attn_implementation="eager").backbone.config._attn_implementation == "eager"


def test_transformers_hands_a_mask_of_four_dimensions_to_attention_as_it_is() -> None:
    """It carries segments and where a grid is read, and is known by its identity."""
    seen: list[Any] = []

    def attend(module: nn.Module, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> Any:
        seen.append((attention_mask, module.is_causal, {"dropout", "scaling"} <= options.keys()))
        return sdpa_attention_forward(module, query, key, value, None, **options)

    AttentionInterface.register("contract", attend)
    AttentionMaskInterface.register("contract", sdpa_mask)
    mask = torch.zeros(1, 1, 2, 0, dtype=torch.long)
    for name in ("llama", "gpt2", "gpt_neox", "mistral", "gemma3_text"):
        backbone = tiny_model(name).backbone
        backbone.set_attn_implementation("contract")
        seen.clear()
        backbone.base_model(input_ids=torch.tensor([conversation(9)]), attention_mask=mask, use_cache=False)
        assert len(seen) == 2
        assert all(handed is mask and causal and told for handed, causal, told in seen), name


def test_transformers_keeps_what_this_list_names_in_float32(tmp_path: Path) -> None:
    """`_keep_in_fp32_modules_strict`, by which a head is loaded unrounded."""
    tiny_model("llama").save_pretrained(tmp_path)
    read = partial(AutoModelForSequenceClassification.from_pretrained, tmp_path, dtype=torch.bfloat16)
    assert read().score.weight.dtype == torch.bfloat16
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.PreTrainedModel._keep_in_fp32_modules_strict", {"score"})
        model = read()
    assert (model.score.weight.dtype, model.dtype) == (torch.float32, torch.bfloat16)


def test_transformers_names_weights_of_old_checkpoints_that_are_not_missed() -> None:
    """`_keys_to_ignore_on_load_unexpected`, regular expressions."""
    assert "^mtp.*" in classifier_class(AutoConfig.for_model("qwen3_next"))._keys_to_ignore_on_load_unexpected


def test_transformers_says_of_a_class_what_its_layers_can() -> None:
    """`_supports_sdpa` and `_is_stateful`, and the interface that its module's attention goes through."""
    said = {
        name: (kind._supports_sdpa, kind._is_stateful, hasattr(sys.modules[kind.__module__], "ALL_ATTENTION_FUNCTIONS"))
        for name in ("llama", "gemma2", "jamba", "falcon")
        for kind in [classifier_class(AutoConfig.for_model(name))]
    }
    # Gemma 2 caps its logits, which SDPA cannot: transformers up to 5.17 does not say so.
    assert said == {
        "llama": (True, False, True),
        "gemma2": (older_than(5, 18), False, True),
        "jamba": (True, True, True),
        "falcon": (True, False, False),
    }


def test_transformers_says_which_modules_are_routers() -> None:
    """`_can_record_outputs`: the class, and which of its outputs are the scores of all experts."""
    for name, index in (("mixtral", 0), ("jetmoe", 4), ("minimax", 0)):
        backbone = RewardModel.from_config(family_config(name)).backbone
        routers = routers_of(backbone)
        assert len(routers) == (4 if name == "jetmoe" else 2), name  # JetMoE's attention has experts, too
        assert logits_index(backbone) == index
    assert routers_of(tiny_model("llama").backbone) == {}


def test_transformers_runs_experts_one_by_one_when_told() -> None:
    """`_experts_implementation`: float64 is known to no other."""
    model = RewardModel.from_config(family_config("mixtral"), dtype="float64")
    assert model.backbone.config._experts_implementation == "eager"
    assert model(laid_out(model)).reward.isfinite().all()


def test_transformers_layers_are_those_that_it_checkpoints() -> None:
    """FSDP2 shards by them, MetaRM asks them whether they run twice."""
    for name in PACKING:
        layers = transformer_layers(tiny_model(name).backbone)
        assert all(isinstance(layer, GradientCheckpointingLayer) for layer in layers), name
        assert not any(layer.gradient_checkpointing for layer in layers), name


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "deberta-v2", "starcoder2", "opt"])
def test_a_checkpointed_layer_drops_nothing_where_it_is_asked_to(name: str) -> None:
    """By `_gradient_checkpointing_func` transformers runs a layer now and once more later; OPT's layer itself drops.

    MetaRM's difference loss is computed so.
    """
    config = family_config("opt").to_dict() if name == "opt" else {**CONFIGS[name], "vocab_size": VOCAB}
    own = RewardModel.from_config(config, pad_id=PAD).backbone.config.to_dict()
    config |= {key: 0.4 for key, value in own.items() if "drop" in key and isinstance(value, float | int | None)}
    model = RewardModel.from_config(config, pad_id=PAD, gradient_checkpointing=True)
    weight, tokens = next(model.backbone_parameters()), laid_out(model)
    with without_dropout(model):
        found = model(tokens).reward
        (slope,) = torch.autograd.grad(found.sum(), weight)
        assert any(part.training and isinstance(part, GradientCheckpointingLayer) for part in model.modules())
    assert all(part.training for part in model.modules())
    assert not torch.equal(model(tokens).reward, found)
    expected = model.eval()(tokens).reward
    assert torch.equal(expected, found)
    assert torch.equal(torch.autograd.grad(expected.sum(), weight)[0], slope)


def test_transformers_names_the_base_of_a_classifier() -> None:
    """A causal checkpoint's base is put there."""
    for name in CONFIGS:
        backbone = tiny_model(name).backbone
        assert getattr(backbone, backbone.base_model_prefix) is backbone.base_model, name
        assert not backbone.is_remote_code()
        assert is_proven(backbone.config)


def test_transformers_takes_ligers_options_as_a_dict() -> None:
    assert list(inspect.signature(apply_liger_kernel).parameters) == ["model", "kernel_config"]


def test_fast_tokenizers_do_with_a_text_what_the_tokenizers_library_does() -> None:
    """`data.tokenize.seams` cuts texts of no class that has one of these of its own."""
    assert {name for kind in PreTrainedTokenizerFast.__mro__ for name in vars(kind)} >= OWN_WAY
    tokenizer, texts = world_tokenizer(), ["", " a  b\n", "unheard é 😀", "<eos>a<eos>"]
    called: Any = tokenizer(texts, add_special_tokens=False)
    assert [found.ids for found in library_of(tokenizer).encode_batch_fast(texts, add_special_tokens=False)] == called[
        "input_ids"
    ]


@pytest.mark.parametrize("is_prompt", [False, True])
def test_a_template_is_rendered_without_copies_as_apply_chat_template_renders_it(is_prompt: bool) -> None:
    """`templates.render` calls the template that `_compile_jinja_template` gives for plain turns."""
    tokenizer = world_tokenizer()
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}|{{ m.content | trim }}|{{ tools is none }}]"
        "{% if not loop.last %}{% continue %}{% endif %}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ raise_exception('no') if messages | length > 3 else '>' }}{% endif %}"
    )
    turns = [{"role": role, "content": f" {role} {{{{ x }}}} é\n"} for role in ("system", "user", "assistant")]
    for count in (1, 2, 3):
        whole: Any = tokenizer.apply_chat_template(turns[:count], tokenize=False, add_generation_prompt=is_prompt)
        assert render(tokenizer, cast(Any, turns[:count]), is_prompt=is_prompt) == whole


# peft, datasets, Liger


def test_pefts_layers_and_their_names() -> None:
    """Merging and exporting adapters reads them from a state dict."""
    model = tiny_model("gpt2", lora=LoraAdapter(rank=2, alpha=8))
    name, layer = next((n, m) for n, m in model.backbone.named_modules() if isinstance(m, LoraLayer))
    assert (layer.scaling[ADAPTER], layer.r[ADAPTER], layer.lora_alpha[ADAPTER]) == (4.0, 2, 8)
    assert layer.fan_in_fan_out  # GPT-2's matrices stand on their heads
    state = model.backbone.state_dict()
    assert {f"{name}.base_layer.weight", f"{name}.lora_A.{ADAPTER}.weight", f"{name}.lora_B.{ADAPTER}.weight"} <= set(
        state
    )


def test_peft_expands_weights_of_four_bits() -> None:
    layer = nn.Linear(2, 2)
    assert torch.equal(dequantize_module_weight(layer), layer.weight)


def test_bitsandbytes_calls_a_weight_of_four_bits_so() -> None:
    assert pytest.importorskip("bitsandbytes").nn.Params4bit.__name__ == "Params4bit"


def test_datasets_know_their_content_by_a_fingerprint() -> None:
    """`_fingerprint`: another content, another string."""
    one, other = (datasets.Dataset.from_dict({"text": [text]}) for text in "ab")
    assert isinstance(one._fingerprint, str)
    assert one._fingerprint != other._fingerprint


def test_ligers_table_of_architectures() -> None:
    patches = pytest.importorskip("liger_kernel.transformers.monkey_patch")
    assert "llama" in patches.MODEL_TYPE_TO_APPLY_LIGER_FN


# Torch


def test_torch_marks_a_module_that_it_compiles() -> None:
    """`_compiled_call_impl`, asked by what does not go with compiled layers."""
    layer = nn.Linear(2, 2)
    assert layer._compiled_call_impl is None
    layer.compile()
    assert layer._compiled_call_impl is not None


def test_torchs_limit_of_recompilation_is_the_compilers() -> None:
    # pytest would restore the option by deleting it, which hides it from all that follows.
    with torch.compiler.config.patch(recompile_limit=77):
        assert torch._dynamo.config.recompile_limit == 77


def test_torchs_schedules_keep_the_last_rates_here() -> None:
    """`_last_lr` is what a schedule says its rate is; a resumed run puts its own there."""
    schedule = torch.optim.lr_scheduler.LambdaLR(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0), lambda _: 1.0)
    schedule._last_lr = [5.0]
    assert schedule.get_last_lr() == [5.0]


def test_torchs_fused_steps_read_whether_something_was_infinite() -> None:
    """`found_inf` leaves a step out without a wait for the device."""
    weight = nn.Parameter(torch.ones(2))
    optimizer: Any = torch.optim.AdamW([weight], lr=0.1, fused=True)
    weight.grad = torch.ones(2)
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert torch.equal(weight, torch.ones(2))
    optimizer.found_inf = torch.tensor(0.0)
    optimizer.step()
    assert not torch.equal(weight, torch.ones(2))


def test_torchs_variable_length_attention_is_called_so() -> None:
    """That it computes what is wanted is asked on the device, by `varlen.is_right`."""
    names = list(inspect.signature(varlen_attn).parameters)
    assert names[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert {"scale", "window_size"} <= set(names)


def test_torchs_weak_dictionary_knows_a_tensor_by_its_identity() -> None:
    known, first = WeakTensorKeyDictionary(), torch.zeros(1)
    known[first] = "first"
    assert first in known
    assert torch.zeros(1) not in known
    del first
    assert len(known) == 0


def test_a_copied_module_has_its_hooks_and_marks() -> None:
    """A copy of a hooked last layer reads where it is told."""
    layer = nn.Linear(1, 1, bias=False)
    layer.mark = True
    layer.register_forward_hook(lambda module, args, output: output + 1)
    twin = copy.deepcopy(layer)
    assert twin.mark
    assert torch.equal(twin(torch.ones(1, 1)), layer(torch.ones(1, 1)))
    assert torch.equal(twin(torch.zeros(1, 1)), torch.ones(1, 1))


def test_weights_and_buffers_come_after_the_meta_device() -> None:
    """`_apply` is how a module moves; `_init_weights` computes the buffers that no file has; checkpoints of shards are
    asked for by `_save_distributed_checkpoint`, and a missing file is None, not an error."""
    with torch.device("meta"):
        config = AutoConfig.for_model("llama", hidden_size=8, num_attention_heads=2, num_hidden_layers=1, vocab_size=4)
        model = AutoModelForSequenceClassification.from_config(config)
    rotary = model.model.rotary_emb
    rotary._apply(lambda value: torch.full_like(value, torch.nan, device="cpu"))
    model._init_weights(rotary)
    assert rotary.inv_freq.tolist() == pytest.approx([1.0, 0.01])
    assert ModelParallelStrategy(save_distributed_checkpoint=False)._save_distributed_checkpoint is False
    missing: dict[str, Any] = {"_raise_exceptions_for_missing_entries": False}
    assert cached_file(str(Path(__file__).parent), "none", **missing) is None


# All of them


def test_wandb_logger_keeps_what_it_starts_a_run_with() -> None:
    """`_wandb_init`: a run is made quiet by it."""
    assert {"_wandb_init", "_id", "_offline"} <= WandbLogger(offline=True, name="a").__dict__.keys()
    assert WandbLogger(offline=True)._wandb_init["resume"] == "allow"  # a run of a known id goes on


def test_lightning_keeps_averaged_weights_in_a_copy_and_swaps_them_in() -> None:
    """`callbacks.averages` swaps them for what is exported, and back."""
    callback = WeightAveraging()
    assert callback._average_model is None
    module, average = L.LightningModule(), L.LightningModule()
    module.weight, average.weight = (nn.Parameter(torch.tensor(value)) for value in (1.0, 2.0))
    callback._average_model = AveragedModel(average)
    callback._swap_models(module)
    assert (module.weight.item(), callback._average_model.module.weight.item()) == (2.0, 1.0)


def test_a_tuner_marks_the_search_that_ends_its_fit(tmp_path: Path) -> None:
    """`_early_exit`, by which it is told from a callback that searches within a run."""
    assert not LearningRateFinder()._early_exit
    seen: list[bool] = []

    class Seen(L.LightningModule):
        def setup(self, stage: str) -> None:
            callbacks: list[Any] = self.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
            seen.extend(one._early_exit for one in callbacks if isinstance(one, LearningRateFinder))
            raise KeyboardInterrupt

    trainer = L.Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_checkpointing=False)
    module = Seen()
    module.training_step = module.configure_optimizers = lambda *_: None
    with suppress(KeyboardInterrupt, SystemExit):
        Tuner(trainer).lr_find(module, DataLoader([0]), update_attr=False)
    assert seen == [True]


def test_settings_of_transformers_trainers_keep_how_many_gpus_there_are(tmp_path: Path) -> None:
    """`_n_gpu`, which `n_gpu` gives: where it is above one their trainers are `nn.DataParallel`."""
    settings = TrainingArguments(str(tmp_path), use_cpu=True)
    assert settings.n_gpu == settings._n_gpu
    settings._n_gpu = 8
    assert settings.n_gpu == 8


def test_a_thread_ends_its_process() -> None:
    """`os._exit`, which is public for all its name: whatever the main thread waits for."""
    if (child := os.fork()) == 0:
        threading.Thread(target=os._exit, args=(7,)).start()
        signal.pause()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_every_private_name_of_others_is_named_here() -> None:
    """By the package's syntax trees, and for attributes of `self` by the bases that the package does not define."""
    files = package().values()
    own = {name for nodes in files for name in defined(nodes)}
    used = {name for nodes in files for name in private_names(nodes)} - own - OF_NAMED_TUPLES
    used |= {name for module in modules() for name in inherited_names(module)}
    here = Path(__file__).read_text()
    assert {"_attn_implementation", "_experiment", "_keep_in_fp32_modules_strict"} <= used
    assert [name for name in sorted(used) if name not in here] == []


def defined(nodes: list[ast.AST]) -> Iterator[str]:
    """Names that a file gives to functions, classes, variables, and attributes of `self` and `cls`."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            yield node.attr


def private_names(nodes: list[ast.AST]) -> Iterator[str]:
    """Names with one underscore before them: attributes, keys, and what `getattr` and its kin are asked for."""
    constants = {
        target.id: node.value.value
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in nodes:
        name: Any = None
        if isinstance(node, ast.Attribute):
            name = node.attr
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            name = node.slice.value
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr"):
            asked = node.args[1]
            name = asked.value if isinstance(asked, ast.Constant) else constants.get(getattr(asked, "id", ""))
        if isinstance(name, str) and name.startswith("_") and not name.startswith("__") and not name.endswith("_"):
            yield name


def modules() -> Iterator[ModuleType]:
    """Every module of the package that can be imported here; some need an extra."""
    for found in pkgutil.walk_packages([str(PACKAGE)], "lightning_rm."):
        try:
            yield importlib.import_module(found.name)
        except ImportError:
            continue


def inherited_names(module: ModuleType) -> Iterator[str]:
    """Private attributes of `self` in a module's classes that a base of another library has, too."""
    for cls in vars(module).values():
        if inspect.isclass(cls) and cls.__module__ == module.__name__ and "__wrapped__" not in vars(cls):
            others = [base for base in cls.__mro__ if base.__module__.split(".")[0] in ("lightning", "torch")]
            if others:
                yield from attributes(cls) & {name for base in others for name in attributes(base)}


@cache
def attributes(cls: type) -> set[str]:
    """Private attributes of `self`, and private methods, in the source of a class; none where there is no source."""
    try:
        tree = ast.parse(inspect.cleandoc(f"\n{inspect.getsource(cls)}"))
    except OSError:
        return set()
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_self(node.value)}
    found |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def test_libraries_leave_their_bars_out_by_these_variables() -> None:
    assert hasattr(datasets.config, BARS[0])
    assert hasattr(constants, BARS[1])
