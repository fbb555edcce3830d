"""Score conversations with a reward model: the same ids as in training, any order, any number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lightning_rm.batch import Sample
from lightning_rm.data.batches.choice import LayoutSetting, choose_layout
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.rows import Message
from lightning_rm.data.tokenize.pairs import encode_conversation
from lightning_rm.models.backbone.contexts import evaluating
from lightning_rm.models.ensembles.members import MemberRewardModel
from lightning_rm.models.reward_model import RewardModel


@torch.inference_mode()
def score(
    model: RewardModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    *,
    batch_size: int = 32,
    layout: LayoutSetting = "auto",
    tools: Sequence[Mapping[str, Any]] = (),
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> Tensor:
    """Rewards of whole conversations, each ending with the response that is scored.

    Args:
        model: put into evaluation mode for the call and back.
        tokenizer: the model's own.
        conversations: N lists of turns.
        batch_size: conversations a forward.
        layout: how they are laid out; the rewards are the same. `auto` takes what the model honours, for decoders
            `shared_prefix`: conversations that begin alike are scored together, the prompt of sixteen responses once.
        tools: tool definitions handed to the chat template for every conversation, as a row's `tools` are.
        chat_template_kwargs: further arguments handed to the chat template, as a row's are: one that is None is left
            out.

    Returns:
        (N,) float32 rewards on the CPU, in the order given; (N, M) of a model of M members. Nothing is truncated.

    Raises:
        ValueError: if a conversation is longer than the model's context.
    """
    arguments = {name: value for name, value in (chat_template_kwargs or {}).items() if value is not None}
    encoded = [encode_conversation(tokenizer, conversation, tools, arguments) for conversation in conversations]
    for number, ids in enumerate(encoded):
        if model.max_tokens is not None and len(ids) > model.max_tokens:
            raise ValueError(
                f"conversation {number} has {len(ids)} tokens and the model reads {model.max_tokens}; cut its prompt"
            )
    laid = choose_layout(layout, model.fast_layouts).layout
    alike = encoded if laid == "shared_prefix" else [[len(ids)] for ids in encoded]
    order = sorted(range(len(encoded)), key=alike.__getitem__)
    members = (model.num_members,) if isinstance(model, MemberRewardModel) else ()
    rewards = torch.empty(len(encoded), *members, dtype=model.reward_dtype)
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            samples = [Sample([encoded[number]]) for number in numbers]
            tokens = LAYOUTS[laid](samples, model.read_at, model.pad_id)
            rewards[numbers] = model(tokens.to(model.device)).reward[0].movedim(-1, 0).cpu()
    return rewards
