"""The model card: what a stranger must know of a reward model, as the README.md of its folder.

A pure function from facts to text. What is not known is said to be unknown, never left out. It knows no files and no
model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_rm.markup import escaped_markdown, fenced, markdown_table
from lightning_rm.publishing.calls import Kind, python_calls, server_lines
from lightning_rm.publishing.facts import Interval, Reference

UNKNOWN = "unknown"
ROUNDED = "; vLLM and SGLang compute in 16 bits, which rounds rewards, unless `--dtype float32` is given"


@dataclass(frozen=True)
class Measured:
    """One test set's figures.

    Args:
        name: of the set.
        num_pairs: in it, or responses by themselves.
        accuracy: with its interval over pairs; None where no response is preferred over another.
        over_runs: mean and standard deviation of the accuracies of runs that differ in their seed alone; None for one.
        num_runs: how many they are.
        others: further figures by name, such as `nll` and `length_accuracy`.
    """

    name: str
    num_pairs: int
    accuracy: Interval | None
    over_runs: tuple[float, float] | None = None
    num_runs: int = 1
    others: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class Card:
    """All that a card says.

    Args:
        title: of the model.
        kind: for its calls.
        license: of the weights, an identifier of the Hugging Face hub.
        data_license: of the training data.
        base: the model that it was trained from.
        base_on_hub: whether that is its name on the hub, which refuses a card that names a folder as `base_model`.
        method: what trained it, such as `module=baseline`.
        treatments: of the training pairs by strength, each name with its options.
        seeds: name -> value.
        settings: further settings of the run by dotted key.
        data: one report a data set, as `DataReport` has it: name, read, kept, reasons, changes.
        measured: what was measured, set by set.
        reference: its rewards on a reference set.
        template: its chat template.
        read_at: the token that the reward is read at, `last` or `first`.
        max_tokens: the longest conversation that it was trained on.
        dtype: of the weights.
        versions: of the packages that wrote the folder.
    """

    title: str
    kind: Kind
    license: str | None = None
    data_license: str | None = None
    base: str | None = None
    base_on_hub: bool = True
    method: str | None = None
    treatments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    seeds: Mapping[str, object] = field(default_factory=dict[str, object])
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    data: Sequence[Mapping[str, Any]] = ()
    measured: Sequence[Measured] = ()
    reference: Reference | None = None
    template: str = ""
    read_at: str = "last"
    max_tokens: int | None = None
    dtype: str = "float32"
    versions: Mapping[str, str] = field(default_factory=dict[str, str])


def write_card(card: Card) -> str:
    """Return the card as Markdown, with the fields that the Hugging Face hub reads in front."""
    parts = [_front(card), f"# {card.title}", _intro(card), _use(card), _data(card), _training(card)]
    parts += [_measured(card), _rewards(card), _limits(card)]
    return "\n\n".join(parts) + "\n"


def _front(card: Card) -> str:
    lines = [
        "---",
        f"license: {_yaml(card.license or UNKNOWN)}",
        "library_name: transformers" if card.kind.base is None else "library_name: peft",
        "pipeline_tag: text-classification",
    ]
    if card.base is not None and card.base_on_hub:
        lines.append(f"base_model: {_yaml(card.base)}")
    return "\n".join([*lines, "tags: [reward-model, rlhf, lightning-rm]", "---"])


def _intro(card: Card) -> str:
    what = "Adapters and the head of a reward model" if card.kind.base else "A reward model"
    lines = [
        f"{what}: a conversation in, one number out, higher for a better last turn. Weights in {card.dtype}.",
        "",
        f"- Licence of the weights: {card.license or UNKNOWN}",
        f"- Licence of the training data: {card.data_license or UNKNOWN}",
        f"- Trained from: {card.base or 'random weights'}",
    ]
    if card.kind.num_members > 1:
        lines += [
            "",
            f"It is {card.kind.num_members} members on one backbone, which lightning_rm reads from "
            "`members.safetensors`. The weights that transformers and servers read are the members' average: where "
            "members differ in a linear head alone it gives the mean of their rewards, else another reward, and what "
            "was measured here is not of it.",
        ]
    return "\n".join(lines)


def _use(card: Card) -> str:
    lines = [
        "## Use",
        "",
        f"{_same(card.kind)} The chat template writes every special token and the tokenizer adds none, "
        f"whether it is asked to or not. The reward is read at the {card.read_at} token; the template is never to be "
        "changed, and no generation prompt added.",
    ]
    for heading, code in python_calls(card.kind):
        lines += ["", f"**{heading}**", "", fenced(code, "python")]
    if card.kind.base is None:
        served = "**Served**; TEXT is what the chat template wrote" + (ROUNDED if card.kind.serves else "")
        lines += ["", served, "", fenced(server_lines(card.kind), "bash")]
    return "\n".join([*lines, "", "The chat template:", "", fenced(card.template, "jinja")])


def _same(kind: Kind) -> str:
    if kind.num_members == 1:
        return "All of these give the same reward."
    return (
        "lightning_rm gives the mean over members, all others the reward of the members' average, which is the same "
        "where members differ in a linear head alone."
    )


def _data(card: Card) -> str:
    lines = ["## Data", ""]
    if not card.data:
        return "\n".join([*lines, "What was read and kept was not recorded by this run."])
    table = [["set", "rows read", "kept", "left out", "kept, but changed"]]
    for report in card.data:
        counts = (_counts(report.get(name) or {}) for name in ("reasons", "changes"))
        table.append([escaped_markdown(report["name"]), f"{report['read']:,}", f"{report['kept']:,}", *counts])
    return "\n".join([*lines, markdown_table(table)])


def _training(card: Card) -> str:
    lines = ["## Training", "", f"- Method: {card.method or UNKNOWN}"]
    told = [f"{name} ({_options(options)})" if options else name for name, options in card.treatments.items()]
    lines.append(f"- Treatments of the pairs by strength: {', '.join(told) or 'none'}")
    lines.append(f"- Seeds: {', '.join(f'{name} {value}' for name, value in card.seeds.items()) or UNKNOWN}")
    lines += [f"- `{name}`: {value}" for name, value in card.settings.items()]
    written = ", ".join(f"{name} {version}" for name, version in card.versions.items())
    return "\n".join([*lines, f"- Written with: {written or UNKNOWN}"])


def _measured(card: Card) -> str:
    lines = ["## Measured", ""]
    if not card.measured:
        return "\n".join([*lines, "Nothing was measured."])
    names = sorted({name for measured in card.measured for name in measured.others})
    over = any(measured.over_runs for measured in card.measured)
    table = [["set", "pairs", "accuracy", "95 % interval", *(["over seeds"] if over else []), *names]]
    for measured in card.measured:
        cells = [escaped_markdown(measured.name), f"{measured.num_pairs:,}", "n/a", "n/a"]
        if measured.accuracy is not None:
            value, low, high = measured.accuracy
            cells[2:] = f"{value:.3f}", f"{low:.3f} to {high:.3f}"
        if measured.over_runs is not None:
            mean, spread = measured.over_runs
            cells.append(f"{mean:.3f} ± {spread:.3f} ({measured.num_runs} runs)")
        elif over:
            cells.append("one run")
        cells += [f"{measured.others[name]:.3f}" if name in measured.others else "" for name in names]
        table.append(cells)
    lines += [
        markdown_table(table),
        "",
        "Intervals are Wilson's, of pairs taken as independent: pairs of one prompt are not, so they are narrow.",
    ]
    if over:
        lines += ["", "Over seeds: mean and sample standard deviation of runs that differ in their seed."]
    return "\n".join(lines)


def _rewards(card: Card) -> str:
    lines = ["## Rewards", ""]
    if card.reference is None:
        return "\n".join([*lines, "No reference set was scored: mean, spread and temperature are unknown."])
    found = card.reference
    place = (
        "`config.json` has them as `mean` and `std` (OpenRLHF's `--reward.normalize_enable` and `lightning-rm serve "
        "normalize=true` read those), and under `lightning_rm` with what follows."
        if card.kind.base is None
        else "`lightning_rm.json` has them, and what follows."
    )
    lines.append(
        f"On {found.num_rewards:,} responses of the set {escaped_markdown(found.name)}: mean {found.mean:.4f}, "
        f"standard deviation {found.std:.4f}. {place}"
    )
    if found.num_left_out:
        lines += ["", f"{found.num_left_out:,} pairs of the set are too long for the model and left out."]
    if found.temperature is not None:
        lines += [
            "",
            f"Temperature {found.temperature:.4f}, fitted there: the probability that one response is preferred over "
            "another to the same prompt is sigmoid((reward - other reward) / temperature).",
        ]
    return "\n".join(lines)


def _limits(card: Card) -> str:
    longest = f"{card.max_tokens:,} tokens" if card.max_tokens else "an unknown number of tokens"
    return "\n".join(
        [
            "## Limits",
            "",
            "- Rewards compare responses to one prompt. They have no zero and no unit, and say little across prompts.",
            f"- Conversations were at most {longest} long in training; longer ones are outside of what it has seen.",
            "- It has learned what its data prefers, annotators' errors and a bias for length included: compare the "
            "accuracy with that of choosing the longer response (`length_accuracy`), where it is given.",
            "- A policy that is trained on it finds what it overrates. Watch another judge, and stop early.",
            "- It says nothing of a conversation whose last turn is not the assistant's.",
        ]
    )


def _counts(counts: Mapping[str, int]) -> str:
    return "; ".join(f"{escaped_markdown(what)} {count:,}" for what, count in counts.items()) or "none"


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items() if name != "_target_")


def _yaml(text: str) -> str:
    """Return a text as YAML reads it: of JSON's escapes it takes those of half a character each for two characters."""
    return json.dumps(text, ensure_ascii=False)
