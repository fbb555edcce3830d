"""The language-model loss on the tokens of chosen responses, by an LM head that was kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from lightning_rm.losses import language_model_loss
from lightning_rm.tokens import TokenBatch


def text_loss(lm_head: nn.Linear, hidden: Tensor, tokens: TokenBatch, config: PreTrainedConfig) -> Tensor:
    """Return the next-token loss on the tokens of chosen responses, each predicted from the token before it.

    Args:
        lm_head: from a hidden state to the logits of all tokens.
        hidden: (R, L, H), the backbone's last hidden states.
        tokens: R rows of L tokens.
        config: the backbone's, which may scale its logits (Granite, MiniCPM3, Cohere) or cap them (Gemma 2).

    Returns:
        A float32 scalar, the mean over the tokens of `response_index`; logits exist at those alone.
    """
    before, predicted = tokens.response_index
    logits = lm_head(hidden.flatten(0, 1)[before])
    if config.model_type.startswith("cohere"):
        logits = logits * (config.logit_scale or 1.0)
    logits = logits / getattr(config, "logits_scaling", 1.0)  # Granite's and MiniCPM3's
    cap: float | None = getattr(config, "final_logit_softcapping", None)
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    return language_model_loss(logits, tokens.input_ids.flatten()[predicted])
