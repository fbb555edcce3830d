"""Cheap voters: M reward models on one backbone, trained and scored together in one pass.

Members differ in their head alone, or also in low-rank adapters on the backbone's last layers, where the backbone
itself is frozen: the mean and spread of their margins are what M full reward models are trained for otherwise, at about
the cost of one. It knows a reward model and its files; not losses or how members are trained.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lightning_rm.batch import RewardOutput
from lightning_rm.models.attention.last_layer import LastLayer
from lightning_rm.models.backbone.export import export
from lightning_rm.models.backbone.folder import MEMBERS_FILE, is_members
from lightning_rm.models.backbone.heads import Architecture, head_tensors
from lightning_rm.models.ensembles.member_heads import MemberHeads
from lightning_rm.models.ensembles.member_lora import MemberLora
from lightning_rm.models.ensembles.member_settings import Members
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.tokens import TokenBatch
from lightning_rm.told import object_of

__all__ = ["MemberRewardModel", "Members"]


class MemberRewardModel(RewardModel):
    """M reward models on one backbone: tokens to M float32 rewards a response.

    Most users call `from_pretrained`, `from_config` or `load`. Heads are new, whatever the checkpoint holds: members
    that began as one would stay alike.

    Args:
        backbone: as `RewardModel`'s. Its own head is a mould for the members' and is not trained.
        pad_id: as `RewardModel`'s.
        lm_head: as `RewardModel`'s.
        members: how many and which; None for ten heads.
        last_layer: as `RewardModel`'s; members with adapters compute the last layer M times, and None is `where_read`.
        architecture: as `RewardModel`'s.

    Raises:
        ValueError: as `RewardModel`'s; and if adapters cannot be put into the backbone.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        pad_id: int | None = None,
        lm_head: nn.Linear | None = None,
        members: Members | None = None,
        last_layer: LastLayer | None = None,
        architecture: Architecture | None = None,
    ) -> None:
        super().__init__(backbone, pad_id, lm_head, last_layer, architecture=architecture)
        self.members = Members() if members is None else members
        if self.members.lora_layers:
            self.last_layer = self._last_layer(last_layer, deepest=math.inf)
        if lm_head is not None and self.members.lora_layers:
            raise ValueError(
                "members with adapters have no common hidden states for an LM loss; leave keep_lm_head out"
            )
        self.heads = MemberHeads(backbone, self.architecture, self.members.seeds)
        self.members.freeze(self)
        self.lora: MemberLora | None = None
        if self.members.lora_layers:
            layers, rank, alpha = self.members.lora_layers, self.members.rank, self.members.alpha
            self.lora = MemberLora(backbone, self.architecture, layers, rank, alpha, self.members.seeds)

    @classmethod
    def of(cls, model: RewardModel, members: Members | None = None, last_layer: LastLayer | None = None) -> Self:
        """Put members on a reward model's backbone, which they take over; its head is dropped."""
        if model.router_loss:
            raise ValueError("members of one backbone do not train its routers; set router_loss=0")
        model.read_weights()
        made = cls(model.backbone, model.pad_id, model.lm_head, members, last_layer, model.architecture)
        made.offload_activations = model.offload_activations
        return made

    @classmethod
    def from_pretrained(cls, path: str | Path, *, members: Members | None = None, **options: Any) -> Self:
        """Put members on a pretrained backbone; `options` are `RewardModel.from_pretrained`'s."""
        model = cls.of(RewardModel.from_pretrained(path, **options), members, options.get("last_layer"))
        model.remember_new_head(f"path={str(path)!r}")
        return model

    @classmethod
    def from_config(
        cls, config: PreTrainedConfig | Mapping[str, Any], *, members: Members | None = None, **options: Any
    ) -> Self:
        """Put members on a backbone with random weights; `options` are `RewardModel.from_config`'s."""
        return cls.of(RewardModel.from_config(config, **options), members, options.get("last_layer"))

    @classmethod
    def load(cls, folder: str | Path, **options: Any) -> Self:
        """Return the members that `save_pretrained` wrote; `options` are `RewardModel.from_pretrained`'s.

        Raises:
            ValueError: if the folder holds no members, or those of other weights than its average.
        """
        path = Path(folder) / MEMBERS_FILE
        if not is_members(folder):
            raise ValueError(
                f"{folder} holds no {MEMBERS_FILE}, so no members; read it with RewardModel.from_pretrained"
            )
        with safe_open(path, "pt") as file:
            members = _members_of(file.metadata() or {}, path)
            names: list[str] = list(file.keys())
            stored: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
        average = RewardModel.from_pretrained(folder, average=True, **options)
        for name, value in head_tensors(average.backbone, average.architecture):
            mean = stored[f"heads.{name}"].mean(0)
            if value.shape != mean.shape or not torch.allclose(value.cpu(), mean.to(value.dtype), atol=1e-5):
                raise ValueError(
                    f"{path} is not of the weights beside it: another model was saved there since; delete "
                    f"{MEMBERS_FILE} and read the folder with RewardModel.from_pretrained, or save the members again"
                )
        model = cls.of(average, members, options.get("last_layer"))
        model._restore(stored)
        return model

    @property
    def num_members(self) -> int:
        """M."""
        return self.members.num_members

    @property
    def num_rewards(self) -> int:
        """M: every response has a reward of each member."""
        return self.num_members

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of all members' heads, member by member."""
        return self.heads.parameters()

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Return all other parameters, the members' adapters among them; not the backbone's own head, which nobody
        trains.
        """
        mould = {id(parameter) for parameter in super().head_parameters()}
        return (parameter for parameter in super().backbone_parameters() if id(parameter) not in mould)

    def member_adapters(self) -> Sequence[tuple[nn.Module, nn.Module]]:
        """Return the backbone's modules that members adapt, each with its adapter."""
        named = {} if self.lora is None else self.lora.by_name()
        return [(self.backbone.get_submodule(name), adapter) for name, adapter in named.items()]

    def forward(self, tokens: TokenBatch, keep_hidden: bool = False) -> RewardOutput:
        """Return every member's rewards of every response in a batch.

        Args:
            tokens: R rows of L tokens, k responses to each of P prompts.
            keep_hidden: whether every hidden state is given back too; members with adapters have M and give none.

        Returns:
            Rewards (k, M, P) in `reward_dtype` and features (k, P, H), for members with adapters the mean of theirs.

        Raises:
            ValueError: if rows hold several sequences and the backbone cannot keep them apart.
        """
        hidden = self._hidden(tokens, everywhere=keep_hidden)
        views = 1 if self.lora is None else self.num_members
        feature = self.feature_dropout(hidden.reshape(views, -1, hidden.shape[-1])[:, tokens.reward_index])
        if self.reward_dtype not in (torch.float32, torch.float64):
            raise ValueError("the heads are not in float32 any more; use the trainer's precision bf16-mixed")
        with torch.autocast(feature.device.type, enabled=False):
            of_members = feature.to(self.reward_dtype).expand(self.num_members, *feature.shape[1:]).flatten(1, 2)
            reward = self.heads.rewards(self.backbone, self.architecture, of_members)
        reward = reward.view(self.num_members, *tokens.reward_index.shape).transpose(0, 1).contiguous()
        return RewardOutput(reward, feature.mean(0), hidden if keep_hidden and self.lora is None else None)

    def member(self, member: int) -> RewardModel:
        """Return one member alone, its adapters merged: a reward model with weights of its own and no LM head.

        Raises:
            ValueError: if there is no such member.
        """
        if not 0 <= member < self.num_members:
            raise ValueError(f"member={member}: there are {self.num_members}, counted from 0")
        alone = self._alone(member, shares=False)
        cast(nn.Module, alone).requires_grad_(True)
        return RewardModel(alone, self.pad_id, architecture=self.architecture).train(self.training)

    def save_pretrained(
        self,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        dtype: torch.dtype | None = None,
        facts: Mapping[str, Any] | None = None,
        write_beside: Callable[[Path], None] | None = None,
    ) -> None:
        """Write the members' average as a plain Hugging Face folder, and the members beside it for `load`.

        The average is of the weights, heads and merged adapters. Where members differ in a linear head alone, as all
        decoders' are, it gives exactly the mean of their rewards; the head of an encoder has a layer between, and the
        average of such heads is not a head of the members' kind: export a `member` there. Every rank calls this, rank 0
        writes.
        """
        tensors = {name: value.detach().cpu().contiguous() for name, value in self._stored().items()}

        def write_members(draft: Path) -> None:
            save_file(tensors, draft / MEMBERS_FILE, {"members": json.dumps(asdict(self.members))})
            if write_beside is not None:
                write_beside(draft)

        export(self._alone(None), folder, tokenizer, dtype=dtype, facts=facts, write_beside=write_members)

    def _hidden(self, tokens: TokenBatch, everywhere: bool) -> Tensor:
        """(R, L, H), or (M * R, L, H) member by member where members have adapters."""
        with nullcontext() if self.lora is None else self.lora.on(self.backbone):
            return super()._hidden(tokens, everywhere)

    @torch.no_grad()
    def _alone(self, member: int | None, shares: bool = True) -> PreTrainedModel:
        """Return a classifier with one member's weights or (None) the average; what it shares is not copied."""
        weights = {
            name: value.mean(0) if member is None else value[member] for name, value in self.heads.stacked().items()
        } | ({} if self.lora is None else self.lora.merged(self.backbone, member))
        backbone = cast(nn.Module, self.backbone)
        shared = {id(value): value for name, value in backbone.named_parameters() if shares and name not in weights}
        alone = copy.deepcopy(backbone, cast("dict[int, Any]", shared))
        alone.load_state_dict(weights, strict=False)
        return cast(PreTrainedModel, alone)

    def _stored(self) -> dict[str, Tensor]:
        """Return what `load` needs beyond the average: each member's tensors, and the weights that adapters are added
        to.
        """
        tensors = {f"heads.{name}": value for name, value in self.heads.stacked().items()}
        for name, adapter in ({} if self.lora is None else self.lora.by_name()).items():
            tensors |= {f"lora.{name}.down": adapter.down, f"lora.{name}.up": adapter.up}
            tensors[f"base.{name}.weight"] = self.backbone.get_parameter(f"{name}.weight")
        return tensors

    @torch.no_grad()
    def _restore(self, stored: dict[str, Tensor]) -> None:
        """Take over what `_stored` gave."""
        self.heads.restore({name: stored[f"heads.{name}"] for name in self.heads.names})
        for name, value in self._stored().items():
            if not name.startswith("heads."):
                value.copy_(stored[name])


def _members_of(metadata: Mapping[str, str], path: Path) -> Members:
    try:
        return Members(**object_of(metadata["members"], path))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} does not say what its members are ({error}); save them again") from error
