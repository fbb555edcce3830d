"""`RewardEnsemble`: M reward models that answer as one, such as the voters that measured a data set's strength.

Disagreement among members is what a single model cannot show, and conservative aggregates of it resist
over-optimisation (Coste et al., arXiv 2310.02743; Eisenstein et al., arXiv 2312.09244). It knows reward models; not
losses or how members were trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lightning_rm.batch import RewardOutput
from lightning_rm.counts import tightest
from lightning_rm.models.ensembles.aggregate import Aggregate, aggregate
from lightning_rm.models.ensembles.alike import check_alike
from lightning_rm.models.ensembles.files import found_folders, member_folders, read_settings, write_ensemble
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.tokens import LayoutName, ReadAt, TokenBatch

Offsets = Sequence[float] | Tensor | None
"""(M,) what is taken off each member's rewards; None for 0."""

NO_LM_LOSS = "an ensemble keeps no hidden states for the LM loss: set lm_loss=0, or train each member"


class RewardEnsemble(AnyRewardModel):
    """Independent reward models as one reward model: scored, evaluated and trained like any other.

    In training, `mean` and `mean_minus_variance` reach all members, `median` and `worst` those that they pick. Members
    have no common hidden states, so there is no LM loss.

    Args:
        members: M reward models that read the same token batches.
        how: the aggregate that is the ensemble's reward.
        lam: the price of variance, for `mean_minus_variance`; Bradley-Terry rewards have a scale, so it has one too.
        offsets: (M,) taken off each member's rewards; None for 0. `centre` finds them.

    Raises:
        ValueError: if there are no members, they differ in architecture or padding token, one is not a plain
            RewardModel, there is not one offset for each, or there is no such
            aggregate.
    """

    members: Sequence[RewardModel]
    offsets: Tensor

    def __init__(
        self, members: Sequence[RewardModel], how: Aggregate = "mean", lam: float = 1.0, offsets: Offsets = None
    ) -> None:
        super().__init__()
        check_alike(members)
        aggregate(torch.zeros(1, 1), how, lam)  # a wrong setting is found here, not at the first batch
        values = torch.as_tensor([0.0] * len(members) if offsets is None else offsets, dtype=members[0].reward_dtype)
        if values.shape != (len(members),):
            raise ValueError(f"offsets has shape {tuple(values.shape)} for {len(members)} members; give one for each")
        self.members = cast(Sequence[RewardModel], nn.ModuleList(members))
        self.pad_id = members[0].pad_id
        self.lm_head = None
        self.how: Aggregate = how
        self.lam = lam
        self.facts: Mapping[str, Any] = {}
        self.register_buffer("offsets", values.detach().clone())
        self.train()

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        how: Aggregate = "mean",
        lam: float = 1.0,
        offsets: Offsets = None,
        **options: Any,
    ) -> Self:
        """Return an ensemble of reward models, each read by `RewardModel.from_pretrained`.

        Args:
            path: the members' folders or hub names, or a pattern of folders, `voters/*/best`, taken in sorted order.
            how: the aggregate.
            lam: the price of variance.
            offsets: of the members' rewards.
            **options: of `RewardModel.from_pretrained`, for every member.

        Raises:
            ValueError: if a pattern matches nothing, a member cannot be read, or members do not go together.
        """
        return cls([RewardModel.from_pretrained(one, **options) for one in found_folders(path)], how, lam, offsets)

    @classmethod
    def load(cls, folder: str | Path, **options: Any) -> Self:
        """Return the ensemble that `save_pretrained` wrote.

        Args:
            folder: with `ensemble.json` in it.
            **options: of `RewardModel.from_pretrained`, for every member.

        Raises:
            ValueError: if there is no ensemble in the folder.
        """
        stored = read_settings(folder)
        settings = {name: stored.pop(name) for name in ("how", "lam", "offsets")}
        ensemble = cls.from_pretrained(member_folders(folder), **settings, **options)
        ensemble.facts = stored
        return ensemble

    def save_pretrained(
        self,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        dtype: torch.dtype | None = None,
        facts: Mapping[str, Any] | None = None,
        write_beside: Callable[[Path], None] | None = None,
    ) -> None:
        """Write the members as `member_0`, `member_1`, ..., each a Hugging Face folder, and `ensemble.json`.

        Every rank calls it, rank 0 writes. The folder is swapped whole, so a killed run leaves no ensemble of old and
        new members; files in it that are not a model's stay. `facts` go into `ensemble.json`.
        """
        write_members = [partial(member.save_pretrained, tokenizer=tokenizer, dtype=dtype) for member in self.members]
        settings = {"how": self.how, "lam": self.lam, "offsets": self.offsets.tolist(), **(facts or {})}
        write_ensemble(folder, write_members, settings, write_beside)

    @property
    def num_members(self) -> int:
        """M; `forward` gives one reward of theirs, `votes` all."""
        return len(self.members)

    @property
    def reference_scale(self) -> tuple[float, float] | None:
        """Mean and standard deviation of its rewards on a reference set, where `ensemble.json` names them."""
        mean, std = (self.facts.get(name) for name in ("mean", "std"))
        return (float(mean), float(std)) if mean is not None and std else None

    @property
    def untrained_head(self) -> str | None:
        """Names the checkpoint of the first member whose head was never trained."""
        return next((origin for member in self.members if (origin := member.untrained_head) is not None), None)

    @property
    def hidden_size(self) -> int:
        """H, the size of a feature: the members' own.

        Raises:
            ValueError: if members have different sizes, and so no mean feature.
        """
        sizes = {member.hidden_size for member in self.members}
        if len(sizes) > 1:
            raise ValueError(f"members have the hidden sizes {sorted(sizes)}: the ensemble has rewards and no feature")
        return sizes.pop()

    @property
    def plain_models(self) -> Sequence[RewardModel]:
        """The members."""
        return self.members

    @property
    def reward_dtype(self) -> torch.dtype:
        """What rewards are computed in: the members' own."""
        return self.members[0].reward_dtype

    @property
    def read_at(self) -> ReadAt:
        """Which token of a sequence its reward is read at: the members' own."""
        return self.members[0].read_at

    @property
    def fast_layouts(self) -> tuple[LayoutName, ...]:
        """The layouts that every member honours at no cost."""
        first, *others = (member.fast_layouts for member in self.members)
        return tuple(layout for layout in first if all(layout in fast for fast in others))

    @property
    def max_tokens(self) -> int | None:
        """The longest sequence that every member has positions for; None where none names a limit."""
        return tightest(*(member.max_tokens for member in self.members))

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of every member's head."""
        return chain.from_iterable(member.head_parameters() for member in self.members)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of every member's backbone."""
        return chain.from_iterable(member.backbone_parameters() for member in self.members)

    def lm_head_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of every member's kept LM head, which no reward reaches."""
        return chain.from_iterable(member.lm_head_parameters() for member in self.members)

    def forward(self, tokens: TokenBatch, keep_hidden: bool = False) -> RewardOutput:
        """Return the aggregate of the members' rewards.

        Args:
            tokens: k responses to each of P prompts.
            keep_hidden: must be False.

        Returns:
            Rewards (k, P) in float32 and the mean of the members' features (k, P, H); H is 0 where their sizes differ.

        Raises:
            ValueError: if hidden states are asked for.
        """
        if keep_hidden:
            raise ValueError(NO_LM_LOSS)
        outputs = [member(tokens) for member in self.members]
        features: list[Tensor] = [output.feature for output in outputs]
        alike = len({feature.shape for feature in features}) == 1
        feature = torch.stack(features).mean(0) if alike else features[0][..., :0]
        return RewardOutput(self.combine(self._centred(outputs)), feature)

    def combine(self, votes: Tensor) -> Tensor:
        """Return one reward (..., P) of those of all members (..., M, P): the aggregate."""
        return aggregate(votes, self.how, self.lam)

    def lm_loss(self, output: RewardOutput, tokens: TokenBatch) -> Tensor:
        """Refuse: members have no common hidden states, so there is no such loss.

        Raises:
            ValueError: always.
        """
        raise ValueError(NO_LM_LOSS)

    def votes(self, tokens: TokenBatch) -> Tensor:
        """Return (k, M, P): every member's rewards, its offset taken off."""
        return self._centred([member(tokens) for member in self.members])

    @torch.no_grad()
    def centre(self, rewards: Tensor) -> None:
        """Move the offsets so that every member's mean over these rewards is 0.

        The Bradley-Terry loss sees differences alone, so each member's rewards have a zero of their own, drawn with its
        seed. Without a common one the worst case is always the member with the lowest zero, and the variance is mostly
        that of the zeros: both then measure offsets where disagreement is wanted. Margins of the mean stay as they are.

            ensemble.centre(score(ensemble, tokenizer, conversations, each_member=True))

        Args:
            rewards: (N, M), each member's, of responses like those that will be scored.

        Raises:
            ValueError: if there are none, or not one for each member.
        """
        if rewards.shape != (len(rewards), self.num_members) or not len(rewards):
            raise ValueError(
                f"centring takes means over responses, so it needs rewards of shape (N, {self.num_members}) with N of "
                f"1 or more, found {tuple(rewards.shape)}; score(..., each_member=True) gives them"
            )
        self.offsets += rewards.to(self.offsets).mean(0)

    def _centred(self, outputs: Sequence[RewardOutput]) -> Tensor:
        """Return (k, M, P): the members' rewards, each less its offset."""
        return torch.stack([output.reward for output in outputs], dim=1) - self.offsets[:, None]
