"""`Members`: how the members on one backbone differ, and what of the backbone they train.

It knows numbers and a reward model's layers; not how members answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from lightning_rm.counts import check_counts, check_numbers, given
from lightning_rm.models.backbone.layers import parameters_before, transformer_layers
from lightning_rm.models.reward_model import RewardModel


@dataclass(frozen=True)
class Members:
    """How members differ, and what of the backbone they train.

    Args:
        num_members: M.
        lora_layers: 0 for members that differ in their head alone; n for adapters of their own on every linear layer of
            the backbone's last n layers too. With adapters the backbone is frozen.
        rank: of the adapters.
        alpha: the numerator of their scale, `alpha / rank`.
        freeze_backbone: train the heads alone.
        freeze_layers: train the layers after the first n, the embeddings frozen too; None trains all. Frozen layers
            have no backward pass.
        seed: of the members' heads and adapters.

    Raises:
        ValueError: for a number below its range, or two settings that say what is trained.
    """

    num_members: int = 10
    lora_layers: int = 0
    rank: int = 8
    alpha: float = 16
    freeze_backbone: bool = False
    freeze_layers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(1, num_members=self.num_members, rank=self.rank)
        check_counts(0, lora_layers=self.lora_layers, seed=self.seed, **given(freeze_layers=self.freeze_layers))
        check_numbers(0, alpha=self.alpha)
        if self.freeze_layers is not None and (self.lora_layers or self.freeze_backbone):
            other = "lora_layers" if self.lora_layers else "freeze_backbone"
            raise ValueError(f"{other} freezes the whole backbone; leave freeze_layers out")

    @property
    def seeds(self) -> list[int]:
        """One for each member, whatever their number."""
        return [self.seed * 1000 + member for member in range(self.num_members)]

    def freeze(self, model: RewardModel) -> None:
        """Freeze what is not trained of a reward model's backbone.

        Raises:
            ValueError: if `freeze_layers` leaves no layer to train.
        """
        parameters = model.backbone_parameters()
        if self.freeze_layers is not None:
            layers = transformer_layers(model.backbone)
            if self.freeze_layers >= len(layers):
                raise ValueError(
                    f"freeze_layers={self.freeze_layers}: the backbone has {len(layers)} layers; give fewer, or "
                    "freeze_backbone=True"
                )
            parameters = parameters_before(model.backbone, self.freeze_layers)
        elif not (self.freeze_backbone or self.lora_layers):
            return
        for parameter in parameters:
            parameter.requires_grad_(False)
