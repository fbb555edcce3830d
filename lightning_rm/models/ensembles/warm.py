"""WARM: reward models averaged in their weights (Ramé et al., arXiv 2401.12187), at the price of one at use.

Members must share their pre-trained backbone *and* the head they started from: models trained from different random
weights lie in different basins, and their average is a model of nothing. `weight_cosine` shows it beforehand,
`check_average` says afterwards whether it went well. Unlike an ensemble, an average shows no disagreement. It knows
weights; not batches or files.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from lightning_rm.models.backbone.export import whole_state
from lightning_rm.models.backbone.heads import head_tensors
from lightning_rm.models.backbone.merging import adapted_layers, merge_adapters
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.precision import wide

FREE_SETTINGS = {"_name_or_path", "architectures", "dtype", "quantization_config", "transformers_version", "use_cache"}
"""What configurations may differ in, beside dropouts, while equal weights mean an equal function."""


@dataclass(frozen=True)
class WeightCosine:
    """How alike members' weights are: the mean cosine over pairs of members, of all matrices as one vector.

    Members trained from one model are near 1; models from different random weights near 0. A backbone near 1 and a head
    near 0 are members of one backbone with heads of their own (another `head_seed`): WARM trains one head first and
    starts every member from it.

    Args:
        backbone: of the backbones' matrices; vectors are left out, since every norm's gain is near 1.
        head: of the heads' matrices.
    """

    backbone: float
    head: float


@dataclass(frozen=True)
class AverageCheck:
    """Whether the average of weights keeps what its members know.

    Args:
        average: the average's accuracy.
        mean: the mean of the members' accuracies.
        lowest: the worst member's.
        highest: the best member's.
        holds: whether `average >= mean`; False if one of them is NaN.
    """

    average: float
    mean: float
    lowest: float
    highest: float
    holds: bool


def average_weights(members: Sequence[AnyRewardModel]) -> RewardModel:
    """Return the uniform average of members' weights, as a plain reward model (arXiv 2401.12187, section 3).

    Adapters are merged into their weights first. Sums are made in float32, and each tensor keeps member 0's dtype;
    settings that are not weights, such as dropout, are member 0's too. Members are left as they are, and an LM head
    that they kept is left out.

    Args:
        members: M reward models from one initialisation; see `weight_cosine`.

    Returns:
        A new reward model on member 0's device, all its weights trainable, in member 0's mode.

    Raises:
        ValueError: if there are no members, one is in 4 bits or is not a plain RewardModel, or they differ in
            architecture, padding token, a setting of the configuration, or a tensor's name or shape.
    """
    plain = _plain(members)
    states = _states(plain)
    average = copy.deepcopy(plain[0])
    average.lm_head = None
    backbone = cast(nn.Module, average.backbone)
    for name, layer in list(adapted_layers(backbone)):
        backbone.set_submodule(name, layer.get_base_layer())
    backbone.requires_grad_(True)
    with torch.no_grad():
        for name, tensor in backbone.state_dict().items():
            if tensor.is_floating_point():
                # A running mean: unlike a sum that is divided, it gives a tensor that all members share bit for bit.
                mean = wide(states[0][name])
                for number, state in enumerate(states[1:], start=2):
                    mean = mean + (state[name].to(mean) - mean) / number
                tensor.copy_(mean)
    return average


def weight_cosine(members: Sequence[AnyRewardModel]) -> WeightCosine:
    """Say how alike members' weights are, before they are averaged.

    Args:
        members: M reward models, M at least 2.

    Raises:
        ValueError: if there are fewer than two members, or `average_weights` would refuse them.
    """
    if len(members) < 2:
        raise ValueError(f"a cosine is between two members and there are {len(members)}; give at least two")
    plain = _plain(members)
    states = _states(plain)
    heads = {name for name, _ in head_tensors(plain[0].backbone, plain[0].architecture)}
    gram = {part: torch.zeros(len(members), len(members), dtype=torch.float64) for part in (True, False)}
    for name, tensor in states[0].items():
        if tensor.is_floating_point() and tensor.ndim >= 2:
            rows = torch.stack([wide(state[name].to(tensor.device)).flatten() for state in states])
            gram[name in heads] += (rows @ rows.T).double().cpu()
    backbone, head = (_mean_cosine(gram[part]) for part in (False, True))
    return WeightCosine(backbone, head)


def check_average(average_accuracy: float, member_accuracies: Sequence[float]) -> AverageCheck:
    """Tell whether an average is as accurate as its members are on average: the paper's linear mode connectivity.

    Args:
        average_accuracy: of `average_weights`, on pairs that no member was trained on.
        member_accuracies: of its members, on the same pairs.

    Raises:
        ValueError: if there are no members.
    """
    if not member_accuracies:
        raise ValueError("member_accuracies is empty; give the accuracy of every member that was averaged")
    mean = sum(member_accuracies) / len(member_accuracies)
    return AverageCheck(
        average_accuracy, mean, min(member_accuracies), max(member_accuracies), holds=average_accuracy >= mean
    )


def _mean_cosine(gram: Tensor) -> float:
    """Return the mean over pairs, from (M, M) inner products."""
    norm = gram.diagonal().sqrt()
    cosine = gram / (norm[:, None] * norm)
    pairs = torch.ones_like(gram, dtype=torch.bool).triu(1)
    return float(cosine[pairs].mean())


def _plain(members: Sequence[AnyRewardModel]) -> list[RewardModel]:
    """Return the members, once it is sure that each has weights of its own."""
    plain: list[RewardModel] = []
    for number, member in enumerate(members):
        if type(member) is not RewardModel:
            raise ValueError(
                f"member {number} is a {type(member).__name__} and not a plain RewardModel; give plain ones, such as "
                "an export that is read back"
            )
        plain.append(member)
    return plain


@torch.no_grad()
def _states(members: Sequence[RewardModel]) -> list[dict[str, Tensor]]:
    """Return every member's tensors with adapters merged, once it is sure that they can be averaged."""
    if not members:
        raise ValueError("an average needs members; give at least one reward model")
    settings: list[dict[str, object]] = []
    for number, member in enumerate(members):
        if any(type(parameter).__name__ == "Params4bit" for parameter in member.parameters()):
            raise ValueError(f"member {number} is in 4 bits; save_pretrained it and average what is read back")
        settings.append(_settings(member))
        first, other = settings[0], settings[-1]
        for name in sorted(first.keys() | other.keys(), key=lambda name: (name != "model_type", name)):
            if first.get(name) != other.get(name):
                raise ValueError(
                    f"member {number} has {name}={other.get(name)!r} and member 0 has {first.get(name)!r}; "
                    "only models of one architecture and tokenizer have an average"
                )
    states = [merge_adapters(cast(nn.Module, member.backbone), whole_state(member.backbone)) for member in members]
    for number, state in enumerate(states):
        for name in sorted(states[0].keys() | state.keys()):
            shapes = [tuple(one[name].shape) if name in one else None for one in (states[0], state)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"member {number} has {name} of shape {shapes[1]} and member 0 of {shapes[0]}; "
                    "only models of one architecture and size have an average"
                )
    return states


def _settings(member: RewardModel) -> dict[str, object]:
    """Return what of a member's configuration says which function its weights are."""
    config = cast(dict[str, object], member.backbone.config.to_dict())
    named = {name: value for name, value in config.items() if name not in FREE_SETTINGS and "drop" not in name}
    return {**named, "pad_id": member.pad_id}
