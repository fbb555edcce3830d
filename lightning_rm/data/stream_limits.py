"""What may be asked of streamed pairs. It knows settings; nothing is read."""

from __future__ import annotations

from collections.abc import Sized

from lightning_rm.data.batches.orders import Order


def check_streamed(
    order: Order,
    *,
    batch_pairs: int | None,
    treatments: Sized = (),
    resample: object = None,
    decontaminate: object = None,
    responses: object = None,
    val_fraction: float = 0.0,
) -> None:
    """Check that nothing is asked of streamed pairs that only all of them together could tell.

    Raises:
        ValueError: if something is.
    """
    asked = {
        f"order={order}": order not in ("length", "random")
        and "only orders random and length are known before all pairs are; take order=random",
        "batch_tokens": batch_pairs is None
        and "how many batches of a budget there are is known when all are tokenised; set batch_pairs",
        "treatments": bool(treatments)
        and "quantiles of strength are of all pairs; read the shards whole, data=jsonl data.file=*.parquet",
        "resample": resample is not None and "folds and bootstrap samples are of a whole set; read it with data=jsonl",
        "decontaminate": bool(decontaminate)
        and "what is left out would change the number of pairs that an epoch is planned by; read the shards whole, "
        "data=jsonl data.file=*.parquet",
        "responses": responses is not None
        and "groups of responses are dealt to the steps of an epoch of known pairs; read them with data=jsonl",
        f"val_fraction={val_fraction:g}": val_fraction > 0
        and "prompts that are held out would have to be found in all shards; name val files, data.val_file=...",
    }
    for what, why in asked.items():
        if why:
            raise ValueError(f"{what} with streamed shards: {why}")
