"""What torch's variable-length attention is documented to compute, for machines without it."""

from __future__ import annotations

import torch
from torch import Tensor


def kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    most_queries: int,
    most_keys: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    aligned: str = "end",
) -> Tensor:
    """(T, heads, d): each query sees keys from `left` before its own to `right` after it, -1 for all.

    The last query of a sequence is the last key's; with `aligned="start"` the first query is the first key's, as in
    flash attention before 2.1.
    """
    assert query_ends.dtype == key_ends.dtype == torch.int32
    assert int(query_ends.diff().max()) == most_queries
    assert int(key_ends.diff().max()) == most_keys
    assert enable_gqa or query.shape[1] == key.shape[1]
    left, right = window_size
    groups = query.shape[1] // key.shape[1]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    outputs: list[Tensor] = []
    for n in range(len(query_ends) - 1):
        q = query[query_ends[n] : query_ends[n + 1]]
        k = key[key_ends[n] : key_ends[n + 1]].repeat_interleave(groups, dim=1)
        v = value[key_ends[n] : key_ends[n + 1]].repeat_interleave(groups, dim=1)
        after = torch.arange(len(k)) - torch.arange(len(q))[:, None] - (len(k) - len(q) if aligned == "end" else 0)
        whole = len(k) + len(q)
        seen = (after >= -(left if left >= 0 else whole)) & (after <= (right if right >= 0 else whole))
        assert seen.any(dim=1).all()
        logits = torch.einsum("qhd,khd->hqk", q, k) * scale
        outputs.append(torch.einsum("hqk,khd->qhd", logits.masked_fill(~seen, -torch.inf).softmax(-1), v))
    return torch.cat(outputs)
