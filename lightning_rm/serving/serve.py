"""`serve` and `reward_app`: a reward model over HTTP, from a folder or from a notebook.

    serve("runs/baseline/0")                                  # until Ctrl-C
    with background_server(reward_app(model, tokenizer)) as url: ...   # beside other cells

It knows a reward model and the scoring engine; the paths and forms are elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fastapi import FastAPI
from torch import nn
from transformers import PreTrainedTokenizerBase

from lightning_rm.counts import check_counts, given, tightest
from lightning_rm.data.batches.choice import LayoutSetting
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.options import check_options
from lightning_rm.scoring.engine import Rewards, batch_budget, score_sequences
from lightning_rm.scoring.load import load_model
from lightning_rm.scoring.reference import reference_scale
from lightning_rm.serving.app import make_app
from lightning_rm.serving.encode import Limits
from lightning_rm.serving.server import run_server
from lightning_rm.serving.service import Served, Service


@dataclass(frozen=True)
class ServeOptions:
    """How a model is served.

    Args:
        name: the model's name in answers, and one that requests may use; None for its folder.
        api_key: required as `Authorization: Bearer KEY`; None for no key.
        max_items: the most texts of a request.
        max_tokens: the most tokens of a text; None for the model's own limit.
        max_body_bytes: the largest body of a request.
        batch_tokens: the most tokens that are scored together; None for what suits the device.
        layout: how they are laid out; the rewards are the same.
        normalize: subtract the reference mean from every reward and divide by the reference spread, both from the
            export.

    Raises:
        ValueError: for a limit that is not a whole number from 1, or a key that is empty or not a text.
    """

    name: str | None = None
    api_key: str | None = None
    max_items: int = 1024
    max_tokens: int | None = None
    max_body_bytes: int = 16 * 2**20
    batch_tokens: int | None = None
    layout: LayoutSetting = "auto"
    normalize: bool = False

    def __post_init__(self) -> None:
        check_counts(1, max_items=self.max_items, max_body_bytes=self.max_body_bytes)
        check_counts(1, **given(max_tokens=self.max_tokens, batch_tokens=self.batch_tokens))
        if self.normalize not in (True, False):
            raise ValueError(f"normalize={self.normalize}; give true or false")
        if self.api_key is not None and not isinstance(self.api_key, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(
                "api_key is a number, or true or false, which another text may stand for too; give it in quotes, on a "
                "command line in two, 'api_key=\"KEY\"', or as LIGHTNING_RM_API_KEY"
            )
        if self.api_key is not None and not self.api_key.strip():
            raise ValueError("api_key is empty: give a key, or null for a server that asks for none")


def reward_app(
    model: AnyRewardModel,
    tokenizer: PreTrainedTokenizerBase,
    options: ServeOptions | None = None,
    names: Sequence[str] = (),
) -> FastAPI:
    """Return the application that serves a model: any ASGI server runs it.

    Args:
        model: put into evaluation mode while it scores.
        tokenizer: the model's own.
        options: limits, key, name.
        names: further names that requests may use for the model.

    Raises:
        ValueError: if rewards are to be normalised and the model's export has no reference rewards, or options are not
            `ServeOptions`.
    """
    check_options(ServeOptions, options=options)
    options = options or ServeOptions()
    budget = batch_budget(model, options.batch_tokens)

    def score(sequences: Sequence[Sequence[int]]) -> Rewards:
        return score_sequences(model, sequences, layout=options.layout, batch_tokens=budget)

    config = model.plain_models[0].backbone.config
    limit = tightest(options.max_tokens, model.max_tokens)
    mean, std = reference_scale(model) if options.normalize else (0.0, 1.0)
    given = options.name or (names[0] if names else config.model_type)
    served = Served(
        score,
        tokenizer,
        tuple(dict.fromkeys([given, *names])),
        Limits(options.max_items, limit, min(_vocabulary(one) for one in model.plain_models)),
        cast("dict[int, str]", config.id2label)[0],
        mean,
        std,
    )
    return make_app(Service(served, budget), options.api_key, options.max_body_bytes)


def serve(
    model: str | Path | AnyRewardModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    options: ServeOptions | None = None,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve a reward model until Ctrl-C or SIGTERM; what is in flight is answered first.

    Args:
        model: a run, a folder or a hub name, as `load_model` reads it; or a model.
        tokenizer: the model's own, where a model is given.
        host: to listen at; `0.0.0.0` for all of the machine's addresses.
        port: to listen at; 0 for a free one.
        options: limits, key, name.
        ready: called with the server's address once it listens.

    Raises:
        ValueError: if there is no model, a model comes without its tokenizer, or nothing can listen at the address.
    """
    names: tuple[str, ...] = ()
    if isinstance(model, str | Path):
        names = tuple(dict.fromkeys([str(model), str(Path(model).resolve())]))
        model, tokenizer = load_model(model, tokenizer=tokenizer)
    if tokenizer is None:
        raise ValueError("a model is served with its tokenizer; give tokenizer=")
    run_server(reward_app(model, tokenizer, options, names), host, port, ready)


def _vocabulary(model: RewardModel) -> int:
    """Return the number of token ids that a model has embeddings for."""
    return cast(nn.Embedding, model.backbone.get_input_embeddings()).num_embeddings
