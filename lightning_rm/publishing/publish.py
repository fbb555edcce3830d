"""`publish`: a run's model, its card and what its rewards are like, as one folder for others, whole or not at all.

It knows runs and models; no configuration of the commands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_rm.data.sets import AnySource, as_source
from lightning_rm.data.tokenize.templates import ENCODER_TEMPLATE
from lightning_rm.models.backbone.settings import dtype_of
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.options import check_options
from lightning_rm.publishing.calls import Kind
from lightning_rm.publishing.card import Card, write_card
from lightning_rm.publishing.reference import score_reference
from lightning_rm.publishing.run_facts import RunFacts, read_run
from lightning_rm.scoring.load import load_model

CARD_FILE = "README.md"
FACTS_FILE = "lightning_rm.json"
"""Beside adapters alone: what `config.json` says of a whole model's rewards."""
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
PACKAGES = ("lightning-rm", "torch", "transformers", "tokenizers", "peft")


@dataclass(frozen=True)
class PublishOptions:
    """The decisions of whoever publishes a model.

    Args:
        name: what the card calls the model in its calls, such as a hub name; None for the folder that is written.
        license: of the weights, an identifier of the Hugging Face hub: `apache-2.0`.
        data_license: of the training data.
        dtype: of the backbone's tensors; the head stays float32.
    """

    name: str | None = None
    license: str | None = None
    data_license: str | None = None
    dtype: str = "float32"


def publish(
    run: str | Path,
    out: str | Path,
    options: PublishOptions | None = None,
    *,
    weights: str = "best",
    seeds: Sequence[str | Path] = (),
    reference: AnySource | None = None,
    reference_name: str = "reference",
    adapters: tuple[RewardModel, PreTrainedTokenizerBase] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Card:
    """Write a run's model as a folder for others.

    Args:
        run: the run's folder.
        out: the folder; it is swapped whole, files in it that are not a model's stay.
        options: names, licences, dtype.
        weights: `best` or `last`; what the run measured is of its best weights.
        seeds: runs that differ from this one in their seed alone, for the spread of its figures.
        reference: pairs to score for the mean, the spread and the temperature: a file, a source, or rows in memory;
            None takes the run's validation rewards.
        reference_name: what the card calls them.
        adapters: the run's model with its adapters, to write those alone; None writes the merged model.
        progress: called with the number of the reference's responses that are scored and of all of them.

    Returns:
        What the card says.

    Raises:
        ValueError: if there is no run or no model, the adapters cannot be written alone, or options are not
            `PublishOptions`.
    """
    check_options(PublishOptions, options=options)
    options = options or PublishOptions()
    dtype = dtype_of(options.dtype)
    out = Path(out)
    facts = read_run(Path(run), [Path(other) for other in seeds])
    if adapters is not None and facts.base is None:
        raise ValueError(f"{run} began with random weights: its adapters have no base to be put on; export it whole")
    model, tokenizer = adapters or load_model(run, weights=weights)
    found = facts.reference if weights == "best" else None
    if reference is not None:
        found = score_reference(model, tokenizer, as_source(reference, "reference"), reference_name, progress)
    measured = facts.measured if weights == "best" else ()
    card = _card(facts, model, tokenizer, options, str(out), adapters is not None)
    card = replace(card, reference=found, measured=measured)

    settings = found.settings() if found is not None else {}

    def write_beside(draft: Path) -> None:
        (draft / CARD_FILE).write_text(write_card(card), encoding="utf-8")
        if adapters is not None:  # they have no config.json of their own
            (draft / FACTS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    if adapters is not None and facts.base is not None:
        base = str(Path(facts.base).resolve()) if Path(facts.base).is_dir() else facts.base
        adapters[0].save_adapters(out, base, tokenizer, dtype=dtype, write_beside=write_beside)
    else:
        model.save_pretrained(out, tokenizer, dtype=dtype, facts=settings, write_beside=write_beside)
    return card


def _card(
    facts: RunFacts,
    model: AnyRewardModel,
    tokenizer: PreTrainedTokenizerBase,
    options: PublishOptions,
    folder: str,
    adapter_alone: bool,
) -> Card:
    template: Any = tokenizer.chat_template
    kind = Kind(
        folder=options.name or folder,
        base=facts.base if adapter_alone else None,
        pad_id=model.pad_id,
        takes_pairs=template == ENCODER_TEMPLATE,
        serves=model.read_at == "last",
        num_members=model.num_rewards,
        dtype=options.dtype,
    )
    return Card(
        title=(options.name or facts.name).rpartition("/")[2],
        kind=kind,
        license=options.license,
        data_license=options.data_license,
        base=facts.base,
        base_on_hub=facts.base is not None
        and HUB_NAME.fullmatch(facts.base) is not None
        and not Path(facts.base).exists(),
        method=facts.method,
        treatments=facts.treatments,
        seeds=facts.seeds,
        settings=facts.settings,
        data=facts.data,
        template=template if isinstance(template, str) else template["default"],
        read_at=model.read_at,
        max_tokens=facts.max_tokens,
        dtype=options.dtype,
        versions={package: version(package) for package in PACKAGES},
    )
