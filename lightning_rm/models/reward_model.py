"""`RewardModel`: a Hugging Face sequence classifier with one label, read where a `TokenBatch` says.

The backbone runs once over the token grid, the head sees the hidden states at `reward_index` and nothing else. It knows
tensors and one backbone; not layouts, losses or how it is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lightning_rm.batch import RewardOutput
from lightning_rm.models.attention.last_layer import (
    DEEPEST,
    LastLayer,
    choose_last_layer,
    compute_where_read,
    tell_where_read,
)
from lightning_rm.models.attention.masks import attention_mask
from lightning_rm.models.backbone import settings
from lightning_rm.models.backbone.adapter_export import export_adapters
from lightning_rm.models.backbone.adapters import Adapter, LoraAdapter, is_wrapped, one_adapter
from lightning_rm.models.backbone.build import build_pretrained, build_random
from lightning_rm.models.backbone.checkpoint import Checkpoint
from lightning_rm.models.backbone.export import export
from lightning_rm.models.backbone.families import architecture_of
from lightning_rm.models.backbone.fast import fast_layouts
from lightning_rm.models.backbone.folder import is_members
from lightning_rm.models.backbone.heads import Architecture, head_modules, head_tensors, widen_head
from lightning_rm.models.backbone.kernels import compile_layers
from lightning_rm.models.backbone.layers import transformer_layers
from lightning_rm.models.backbone.longrope import scale_by_sequence, scaled
from lightning_rm.models.backbone.new_head import NewHead
from lightning_rm.models.backbone.partitions import shape_of
from lightning_rm.models.backbone.positions import longest_sequence
from lightning_rm.models.backbone.routing import hear_routers, hearing, routing_of
from lightning_rm.models.backbone.text import text_loss
from lightning_rm.models.backbone.trainable import make_trainable
from lightning_rm.models.backbone.unread import Unread, read_shards
from lightning_rm.models.probe import hold_to_layouts
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.tokens import LayoutName, ReadAt, TokenBatch


class RewardModel(AnyRewardModel):
    """A backbone and a head: tokens to one float32 reward a response.

    Most users call `from_pretrained` or `from_config`.

    Args:
        backbone: a sequence classifier of transformers with one label. The head is taken to float32 in place.
        pad_id: the padding token; None takes the backbone configuration's.
        lm_head: the language-model head of a causal checkpoint, for `lm_loss`.
        last_layer: `where_read`, the last layer computed at the tokens that are read, or `whole`; None for where it is
            read in a backbone of up to `last_layer.DEEPEST` layers. Rewards and gradients are the same.
        router_loss: weight of the router loss of a mixture of experts (`losses.router`); its last layer is computed
            whole, unless `last_layer` says otherwise.
        architecture: how the backbone is read; None for what its family says.

    Raises:
        ValueError: if the backbone is no sequence classifier, or peft has wrapped its head; if the architecture is not
            supported, or the backbone has more than one label or another pooling, or can only compute its last layer
            whole.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        pad_id: int | None = None,
        lm_head: nn.Linear | None = None,
        last_layer: LastLayer | None = None,
        router_loss: float = 0.0,
        architecture: Architecture | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, PreTrainedModel):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user's own
            raise ValueError(
                f"backbone is of the type {type(backbone).__name__}; give a sequence classifier of transformers. "
                "Adapters of peft's are put on by RewardModel.from_pretrained(PATH, adapter=LoraConfig(...)), and a "
                "model of another kind inherits from lightning_rm.models.protocol.AnyRewardModel"
            )
        config = backbone.config
        self.architecture: Architecture = architecture or architecture_of(config, remote=backbone.is_remote_code())
        if wrapped := [name for name, part in head_modules(backbone, self.architecture).items() if is_wrapped(part)]:
            raise ValueError(
                f"{' and '.join(wrapped)} of the backbone is wrapped by peft, and no export would be read again: give "
                "the path of the model as it was, RewardModel.from_pretrained(PATH, adapter=LoraConfig(...))"
            )
        if config.num_labels != 1:
            raise ValueError(f"the backbone has {config.num_labels} labels, a reward model has one; set num_labels=1")
        if getattr(config, "classifier_pooling", "cls") != "cls":
            raise ValueError("the backbone pools over tokens, and a reward is read at one; set classifier_pooling=cls")
        self.pad_id = settings.choose_pad(config, self.architecture, pad_id)
        config.pad_token_id = self.pad_id
        config.problem_type = "regression"
        self.backbone = backbone
        self.lm_head = lm_head
        self.router_loss = router_loss
        hear_routers(backbone, router_loss)
        scale_by_sequence(backbone)
        self.last_layer: LastLayer = self._last_layer("whole" if router_loss and last_layer is None else last_layer)
        self._is_hooked = False
        self.feature_dropout: nn.Module = nn.Identity()  # `dropout.add_dropout` puts another here
        self.offload_activations = False
        self.unread: Unread | None = None  # weights that are still to be read
        self._num_added = 0  # embeddings that the checkpoint did not have
        self._new_head: NewHead | None = None
        widen_head(backbone, self.architecture)
        # Transformers loads in evaluation mode, and trainers keep the mode they find: dropout would be off in training.
        self.train()

    def forward(self, tokens: TokenBatch, keep_hidden: bool = False) -> RewardOutput:
        """Return rewards of every response in a batch.

        Args:
            tokens: R rows of L tokens, k responses to each of P prompts.
            keep_hidden: whether every hidden state is given back too, for `lm_loss`.

        Returns:
            Rewards (k, P) in `reward_dtype`, features (k, P, H) in the backbone's dtype; hidden (R, L, H) if asked for.

        Raises:
            ValueError: if rows hold several sequences and the backbone cannot keep them apart.
        """
        with hearing() as heard:
            hidden = self._hidden(tokens, everywhere=keep_hidden)
        feature = self.feature_dropout(hidden.flatten(0, 1)[tokens.reward_index])
        if self.reward_dtype not in (torch.float32, torch.float64):
            raise ValueError(
                "the head is not in float32 any more, so rewards would be rounded: use the trainer's precision "
                "bf16-mixed, which keeps weights in float32; not bf16-true"
            )
        with torch.autocast(feature.device.type, enabled=False):
            reward = self.architecture.reward(self.backbone, feature.to(self.reward_dtype).flatten(0, 1))
        # A copy of k x P numbers: FSDP2 hangs its hook on what is returned, which must not be a view.
        reward = reward.view(tokens.reward_index.shape).clone()
        routing = routing_of(heard, self.backbone.config, tokens, self.router_loss)
        return RewardOutput(reward, feature, hidden if keep_hidden else None, routing)

    def _hidden(self, tokens: TokenBatch, everywhere: bool) -> Tensor:
        """(R, L, H): the backbone's last hidden states, everywhere or right where they are read."""
        mask = attention_mask(
            tokens,
            self.backbone.config,
            packs=self.architecture.packs,
            causal=self.causal,
            dtype=self.backbone.dtype,
        )
        if tokens.read_cells is not None and not everywhere and self.last_layer == "where_read":
            if not self._is_hooked:  # not before adapters are in
                compute_where_read(transformer_layers(self.backbone)[-1])
                self._is_hooked = True
            tell_where_read(mask, tokens.read_cells, tokens.input_ids.shape)
        offload = self.offload_activations and torch.is_grad_enabled()
        keeping = save_on_cpu(pin_memory=tokens.input_ids.is_cuda) if offload else nullcontext()
        with keeping, scaled(tokens, self.steady_tokens):
            outputs = self.backbone.base_model(
                input_ids=tokens.input_ids,
                attention_mask=mask,
                position_ids=tokens.position_ids + self._first_position,
                use_cache=False,
            )
        return cast(Tensor, outputs.last_hidden_state)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        pad_id: int | None = None,
        dtype: str | torch.dtype = "float32",
        attn_implementation: str | None = None,
        head_seed: int = 0,
        gguf_file: str | None = None,
        trust_remote_code: bool = False,
        gradient_checkpointing: bool = False,
        dropout: float | None = None,
        keep_lm_head: bool = False,
        lora: LoraAdapter | None = None,
        adapter: Adapter | None = None,
        load_in_4bit: bool = False,
        new_head: bool = False,
        liger: bool = False,
        compile: bool = False,
        last_layer: LastLayer | None = None,
        router_loss: float = 0.0,
        average: bool = False,
        load_sharded: bool = False,
        offload_activations: bool = False,
        freeze_layers: int | None = None,
    ) -> Self:
        """Return a reward model from a causal, base or masked language model (a new head) or a reward model (its head
        kept).

        Args:
            path: a folder, a hub name or a `.gguf` file.
            tokenizer: its padding token becomes the model's, and embeddings are added for tokens it added.
            pad_id: the padding token's id, where no tokenizer is given or another is wanted.
            dtype: of the backbone: `float32`, `bfloat16`, `float16` or `float64`; the head's is `reward_dtype`.
            attn_implementation: `sdpa`, `eager` or another; None for SDPA where the architecture has it.
            head_seed: of a new head's weights; see `heads.init_head`.
            gguf_file: the name of a GGUF file within `path`.
            trust_remote_code: whether the model may run code that it brings.
            gradient_checkpointing: compute each layer again in the backward pass instead of keeping its activations.
            dropout: for all of the backbone's and the head's dropouts; None keeps the checkpoint's own.
            keep_lm_head: keep a causal checkpoint's LM head, for `lm_loss`; it is not exported.
            lora: adapters to train in place of the backbone's weights: LoRA.
            adapter: the same by a configuration of peft's that acts within layers: `LoraConfig(use_dora=True)`.
            load_in_4bit: QLoRA, the frozen backbone in 4 bits; with LoRA by `lora` or `adapter`; needs CUDA and
                bitsandbytes.
            new_head: draw a new head even where the checkpoint brings one.
            liger: run norms, MLPs and rotary embeddings by Liger's kernels; needs a GPU and liger-kernel.
            compile: have torch compile all layers, but the last where it is computed where it is read.
            last_layer: `where_read`, `whole` or None for what the depth calls for, as the class says.
            router_loss: weight of the router loss of a mixture of experts, as the class says.
            average: of a folder that `MemberRewardModel` wrote: read the members' average, which lies beside them.
            load_sharded: leave the weights on the disk until `sharding.shard`, where each rank reads its own part.
            offload_activations: keep what `gradient_checkpointing` keeps in the host's memory, not the device's.
            freeze_layers: train neither the embeddings nor the first so many layers, which have no backward pass then;
                as many as there are trains the head alone. None trains all.

        Raises:
            ValueError: if the checkpoint cannot be loaded, has more than one label or an unknown architecture, lacks
                weights, has no padding token apart from eos, or is of members and `average` is not set; if
                `freeze_layers` is more than there are, or an adapter freezes all of them.
        """
        checkpoint = Checkpoint.at(path, gguf_file, trust_remote_code=trust_remote_code)
        if is_members(path) and not average:
            raise ValueError(
                f"{path} holds several members on one backbone, and a RewardModel is one: read all of them with "
                "lightning_rm.load_model, or their average with average=True"
            )
        if compile and gradient_checkpointing:
            raise ValueError("torch compiles nothing of a layer that gradient_checkpointing runs again; leave one out")
        chosen = one_adapter(lora, adapter)
        built = build_pretrained(
            checkpoint,
            tokenizer=tokenizer,
            pad_id=pad_id,
            dtype=dtype,
            attn_implementation=attn_implementation,
            head_seed=head_seed,
            dropout=dropout,
            keep_lm_head=keep_lm_head,
            adapter=chosen,
            load_in_4bit=load_in_4bit,
            new_head=new_head,
            liger=liger,
            load_sharded=load_sharded,
        )
        if offload_activations and not gradient_checkpointing:
            raise ValueError("offload_activations moves what gradient_checkpointing keeps; set both")
        model = cls(built.backbone, built.pad_id, built.lm_head, last_layer, router_loss)
        model.unread, model.offload_activations = built.unread, offload_activations
        model._num_added = built.num_added
        hold_to_layouts(model)
        make_trainable(
            model.backbone, model.architecture, model.lm_head, chosen, head_seed, gradient_checkpointing, freeze_layers
        )
        if built.no_head_in is not None:
            model.remember_new_head(built.no_head_in)
        if compile:
            model.compile_backbone()
        return model

    @classmethod
    def from_config(
        cls,
        config: PreTrainedConfig | Mapping[str, Any],
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        vocab_size: int | None = None,
        pad_id: int | None = None,
        seed: int = 0,
        dtype: str | torch.dtype = "float32",
        attn_implementation: str | None = None,
        gradient_checkpointing: bool = False,
        keep_lm_head: bool = False,
        lora: LoraAdapter | None = None,
        adapter: Adapter | None = None,
        last_layer: LastLayer | None = None,
        router_loss: float = 0.0,
        freeze_layers: int | None = None,
    ) -> Self:
        """Return a reward model with random weights, all drawn from the seed: for tiny models and tests.

        Args:
            config: of transformers, or a mapping with `model_type` and sizes.
            tokenizer: gives vocabulary size, padding token and eos, where they are not given.
            vocab_size: the number of token ids.
            pad_id: the padding token's id.
            seed: of all weights; the global random state is left as it is.
            keep_lm_head: add an LM head, for `lm_loss`; it is not exported.
            dtype, attn_implementation, gradient_checkpointing, lora, adapter, last_layer, router_loss, freeze_layers:
                as in `from_pretrained`.

        Raises:
            ValueError: if the configuration has an unknown architecture or setting, or no padding token apart from eos;
                of `freeze_layers` as in `from_pretrained`.
        """
        built = build_random(
            config,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            pad_id=pad_id,
            seed=seed,
            dtype=dtype,
            attn_implementation=attn_implementation,
            keep_lm_head=keep_lm_head,
        )
        model = cls(built.backbone, built.pad_id, built.lm_head, last_layer, router_loss)
        hold_to_layouts(model)
        chosen = one_adapter(lora, adapter)
        make_trainable(
            model.backbone, model.architecture, model.lm_head, chosen, seed, gradient_checkpointing, freeze_layers
        )
        return model

    @property
    def reward_dtype(self) -> torch.dtype:
        """What rewards are computed in, the head's dtype: float32, or float64 over a backbone in float64."""
        return next(self.head_parameters()).dtype

    @property
    def untrained_head(self) -> str | None:
        """Names the checkpoint that brought no head, while the head is still the random one drawn in its place.

        None once a step has changed the head, and for heads that were asked for: `new_head=True`, `from_config`.
        """
        if self._new_head is not None and not self._new_head.is_still(self.head_parameters()):
            self._new_head = None
        return None if self._new_head is None else self._new_head.origin

    def remember_new_head(self, origin: str) -> None:
        """Remember that the head, as it is now, was drawn because `origin` has none; see `untrained_head`."""
        self._new_head = NewHead.of(origin, self.head_parameters())

    def read_weights(self, device: torch.device | str = "cpu") -> None:
        """Read weights that `load_sharded` left on the disk: of a sharded model this rank's part, else all."""
        if self.unread is not None:
            read_shards(self.backbone, self.unread, torch.device(device))
            self.unread = None

    @property
    def read_at(self) -> ReadAt:
        """Which token of a sequence a layout must point `reward_index` at."""
        return self.architecture.read_at

    @property
    def causal(self) -> bool:
        """Whether a token sees what stands before it alone: decoders, except those made bidirectional."""
        return self.read_at == "last" and not getattr(self.backbone.config, "use_bidirectional_attention", False)

    @property
    def fast_layouts(self) -> tuple[LayoutName, ...]:
        """The layouts worth choosing between; see `backbone.fast.fast_layouts`."""
        return fast_layouts(self.backbone, self.architecture, self.causal)

    @property
    def reference_scale(self) -> tuple[float, float] | None:
        """Mean and standard deviation of its rewards on a reference set, where its configuration names them."""
        mean, std = (getattr(self.backbone.config, name, None) for name in ("mean", "std"))
        return (float(mean), float(std)) if mean is not None and std else None

    @property
    def plain_models(self) -> Sequence[RewardModel]:
        """The models with a backbone that answer: this one, or an ensemble's members."""
        return [self]

    @property
    def hidden_size(self) -> int:
        """H, the size of a feature: what the head's first matrix reads. OPT-350M's is half its layers' width."""
        return next(shape[1] for shape in map(shape_of, self.head_parameters()) if len(shape) == 2)

    @property
    def max_tokens(self) -> int | None:
        """The longest sequence the backbone has positions for; None where its configuration names no limit."""
        limit = longest_sequence(self.backbone.config)
        return limit if limit is None else limit - self._first_position

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters that make a reward of a feature."""
        return (parameter for _, parameter in head_tensors(self.backbone, self.architecture))

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Return all other parameters, adapters and a kept LM head among them."""
        head = {id(parameter) for parameter in self.head_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in head)

    def compile_backbone(self) -> None:
        """Have torch compile the layers in place, but the last where it is computed where it is read.

        Raises:
            ValueError: if there is no compiler.
        """
        layers = transformer_layers(self.backbone)
        compile_layers(layers if self.last_layer == "whole" else layers[:-1])

    def lm_head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of a kept LM head that are not the backbone's too: its embeddings may be tied to it."""
        if self.lm_head is not None:
            backbone = {id(parameter) for parameter in self.backbone.parameters()}
            yield from (parameter for parameter in self.lm_head.parameters() if id(parameter) not in backbone)

    def lm_loss(self, output: RewardOutput, tokens: TokenBatch) -> Tensor:
        """Return the next-token loss on the tokens of chosen responses, each predicted from the token before it.

        Args:
            output: what `forward(tokens, keep_hidden=True)` gave.
            tokens: the same batch.

        Returns:
            A float32 scalar, the mean over the tokens of `response_index`; logits exist at those alone.

        Raises:
            ValueError: if the model kept no LM head, or the output no hidden states.
        """
        if self.lm_head is None:
            raise ValueError("the LM loss needs an LM head: load a causal checkpoint with keep_lm_head=True")
        if output.hidden is None:
            raise ValueError("the LM loss needs every hidden state: call the model with keep_hidden=True")
        return text_loss(self.lm_head, output.hidden, tokens, self.backbone.config)

    def save_pretrained(
        self,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        dtype: torch.dtype | None = None,
        facts: Mapping[str, Any] | None = None,
        write_beside: Callable[[Path], None] | None = None,
    ) -> None:
        """Write a folder that `AutoModelForSequenceClassification.from_pretrained` reads, with our rewards.

        Every rank calls it, rank 0 writes. See `export.export`.
        """
        export(self.backbone, folder, tokenizer, dtype=dtype, facts=facts, write_beside=write_beside)

    def save_adapters(
        self,
        folder: str | Path,
        base: str,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        dtype: torch.dtype | None = None,
        write_beside: Callable[[Path], None] | None = None,
    ) -> None:
        """Write the adapters and the head alone as a folder that peft reads, to be put on `base` again.

        The adapters are written in their own dtype, or in another; the head in its own.

        Raises:
            ValueError: if the model has no adapters, or embeddings that `base` has not.
        """
        if self._num_added:
            raise ValueError(
                f"the tokenizer has tokens that {base} has no embeddings for ({self._num_added}), and adapters alone "
                "would not bring them; export the model whole, without adapter=true"
            )
        export_adapters(self.backbone, folder, base, tokenizer, dtype=dtype, write_beside=write_beside)

    def save_policy(self, folder: str | Path, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Write the language model as a folder that `AutoModelForCausalLM.from_pretrained` reads: a policy.

        Raises:
            ValueError: if the model kept no LM head.
        """
        if self.lm_head is None:
            return super().save_policy(folder, tokenizer)
        export(self.backbone, folder, tokenizer, self.lm_head)

    @property
    def _first_position(self) -> int:
        return self.pad_id + 1 if self.architecture.positions_after_pad else 0

    def _last_layer(self, wanted: LastLayer | None, deepest: float = DEEPEST) -> LastLayer:
        """Return where the last layer is computed.

        That is what is wanted, or, for None, where it is read in a backbone of up to `deepest` layers.
        """
        config = self.backbone.config
        # Transformers chunks a feed-forward over tokens of a row, which only rows have.
        can = self.architecture.packs and not getattr(config, "chunk_size_feed_forward", 0)
        num_layers = len(transformer_layers(self.backbone)) if can else 0
        return choose_last_layer(wanted, config.model_type, num_layers, deepest)
