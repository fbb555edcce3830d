"""The last layer, computed where it is read.

A reward is read at one token of its sequence. What the last layer makes of every other token is needed as keys and
values alone: its queries, the projection of its attention and its MLP are computed for tokens that nobody reads. Here
they run only at the tokens that are read; rewards and gradients stay what they are. That saves about five sixths of one
layer of the model.

It works from outside on plain models of transformers: within the last layer, modules that work token by token see the
tokens that are read and no others, and what they give is put back where it was, zeros elsewhere. Which tokens those are
travels with the attention mask, so that it is there when gradient checkpointing runs the layer again. It knows modules
and tensors.
"""

from __future__ import annotations

import threading
from typing import Any, Literal, NamedTuple, cast, get_args

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from lightning_rm.counts import given
from lightning_rm.options import check_words

LastLayer = Literal["where_read", "whole"]
"""Where a backbone's last layer is computed."""

DEEPEST = 16
"""Layers of the deepest backbone whose last layer is computed where it is read unasked. Five sixths of one layer count
less the more layers there are. Of a step on one CPU core (Llama layers 256 wide, shared beginnings of HH-RLHF's
lengths) that is 27 % of 2 layers, 17 % of 4, 7 % of 8, 6 % of 12, 4 % of 16, 3 % of 22 and 2 % of 28, medians of ten
turns. Beyond 16 the gain is hardly more than turns differ from one another; the model is left as it is."""

TOKEN_WISE = frozenset(
    {
        *("q_proj", "o_proj", "mlp"),  # Llama, Mistral, Qwen, Gemma, OLMo, Phi (o_proj, mlp), Starcoder
        *("c_proj", "dense"),  # GPT-2 (its keys are in c_attn), GPT-NeoX (query_key_value)
        *("query", "intermediate", "output"),  # BERT, RoBERTa, ELECTRA
        *("q_lin", "out_lin", "ffn"),  # DistilBERT
        "Wo",  # ModernBERT (Wqkv)
    }
)
"""Names of modules that work token by token and have no part in keys and values. A layer that names them otherwise
is computed whole."""


class Cells(NamedTuple):
    """Where a grid is read.

    Args:
        read: (U,) long, distinct flat positions, ascending.
        shape: (R, L), the grid's.
    """

    read: Tensor
    shape: tuple[int, ...]


class _Now(threading.local):
    """The cells for the last layer that runs in this thread; one value is enough, as none runs inside another."""

    cells: Cells | None = None


_CELLS: Any = WeakTensorKeyDictionary()
"""The `Cells` of each forward by its attention mask, kept for as long as the mask exists."""

_NOW = _Now()

_HOOKING = threading.Lock()
"""Held while hooks are added, so that only one of two threads whose first forwards coincide adds them."""

_TOLD = "told_where_read"
"""The attribute of modules that are told where they are read; a copy of one is told, too."""


def choose_last_layer(
    wanted: LastLayer | None, model_type: str, num_layers: int, deepest: float = DEEPEST
) -> LastLayer:
    """Choose where a last layer is computed: as wanted, or, for None, where it is read in up to `deepest` layers.

    Args:
        wanted: `where_read`, `whole` or None.
        model_type: the backbone's, as its configuration has it.
        num_layers: layers of a backbone that can compute its last one where it is read; 0 for one that cannot.
        deepest: layers of the deepest backbone that does so unasked.

    Raises:
        ValueError: if `wanted` is not one of the words, or this backbone cannot compute its last layer where it is
            read.
    """
    check_words(get_args(LastLayer), **given(last_layer=wanted))
    if wanted == "where_read" and not num_layers:
        raise ValueError(f"last_layer=where_read: {model_type} computes all of it here; set last_layer=whole")
    if wanted is not None:
        return wanted
    return "where_read" if 0 < num_layers <= deepest else "whole"


def tell_where_read(mask: Tensor, read: Tensor, shape: tuple[int, ...]) -> None:
    """Note where the last hidden states of a forward that is about to run are read.

    Args:
        mask: what the backbone is handed as its attention mask, and hands on to its layers as it is. Where it makes
            one of its own of it, everything is computed.
        read: (U,) long, distinct flat positions of the grid, ascending; on the grid's device.
        shape: (R, L), the grid's.
    """
    _CELLS[mask] = Cells(read, shape)


def carry(mask: Tensor, other: Tensor) -> Tensor:
    """Return `other`, a mask for the same grid, once what is known of `mask` is noted for it too."""
    if mask in _CELLS:
        _CELLS[other] = _CELLS[mask]
    return other


def compute_where_read(layer: nn.Module) -> None:
    """Hook into a backbone's last layer, in place and once: it computes what is read, in forwards that say where."""
    with _HOOKING:
        if not _is_told(layer) and _hook_into(layer):
            layer.register_forward_hook(_forget, always_call=True)


def cells_of(module: nn.Module) -> Cells | None:
    """Return where a module that is running in this thread is read; None for everywhere."""
    return _NOW.cells if _is_told(module) else None


def _is_told(module: nn.Module) -> bool:
    return hasattr(module, _TOLD)


def _hook_into(module: nn.Module) -> bool:
    """Hook into a module and its parts that work token by token; tell whether it has such parts.

    The cells come with the mask, and attention is the first to be handed it. That also holds where a layer is computed
    again in the backward pass by its `forward`, without the layer's own hooks, as transformers does.
    """
    found = False
    for name, part in module.named_children():
        if name in TOKEN_WISE:
            part.register_forward_pre_hook(_gather)
            part.register_forward_hook(_put_back)
            found = True
        else:
            found |= _hook_into(part)
    if found:
        module.register_forward_pre_hook(_note, with_kwargs=True)
        setattr(module, _TOLD, True)
    return found


def _note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    masks = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value in _CELLS]
    _NOW.cells = _CELLS[masks[0]] if masks else None


def _forget(*_: Any) -> None:
    _NOW.cells = None


def _gather(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Cut each input (V * R, L, H), a grid repeated for V members, to the cells that are read: (V, U, H)."""
    if _NOW.cells is None:
        return args
    read, shape = _NOW.cells
    return tuple(value.unflatten(0, (-1, shape[0])).flatten(1, 2).index_select(1, read) for value in args)


def _put_back(_: nn.Module, args: tuple[Tensor, ...], output: Any) -> Any:
    """Put (V, U, H) back into (V * R, L, H), zero at cells that are not read.

    Of several outputs, as experts give, it takes the first.
    """
    if _NOW.cells is None:
        return output
    if isinstance(output, tuple):
        hidden, *others = cast("tuple[Tensor, ...]", output)
        return _on_grid(hidden, _NOW.cells), *others
    return _on_grid(output, _NOW.cells)


def _on_grid(hidden: Tensor, cells: Cells) -> Tensor:
    read, (rows, columns) = cells
    whole = hidden.new_zeros(hidden.shape[0], rows * columns, hidden.shape[2])
    return whole.index_copy(1, read, hidden).view(-1, columns, hidden.shape[2])
