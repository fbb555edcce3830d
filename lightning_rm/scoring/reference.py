"""The scale of a model's rewards: their mean and spread on a reference set, as its folder names them."""

from __future__ import annotations

from lightning_rm.models.protocol import AnyRewardModel


def reference_scale(model: AnyRewardModel) -> tuple[float, float]:
    """Read the mean and standard deviation of a model's rewards on its reference set.

    Raises:
        ValueError: if its folder names none: `lightning-rm export reference=...` writes them.
    """
    if model.reference_scale is None:
        raise ValueError(
            "normalize: the model's config.json has no mean and std of reference rewards; export it with "
            "lightning-rm export run=RUN out=FOLDER reference=FILE"
        )
    return model.reference_scale
