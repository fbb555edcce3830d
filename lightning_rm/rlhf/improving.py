"""From a round's samples and rewards to the text that its policy learns. It knows files of responses; no policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lightning_rm.counts import check_positive, given
from lightning_rm.data.rows import BadRow, GroupRow
from lightning_rm.data.sources.groups import GroupFile
from lightning_rm.rlhf.choosing import Choice, Choose, choose_responses, shaped
from lightning_rm.rlhf.reward_function import RewardFunction
from lightning_rm.told import object_of


@dataclass(frozen=True)
class Said:
    """What a policy said, as `lightning-rm sample` wrote it.

    Args:
        groups: P prompts with k responses each.
        finished: (P, k), whether the policy ended them.
    """

    groups: list[GroupRow]
    finished: list[list[bool]]

    def texts(self) -> list[str]:
        """Return the P k responses."""
        return [response[-1]["content"] for group in self.groups for response in group.responses]


@dataclass(frozen=True)
class Shaping:
    """How the rewards of a round are shaped for its policy.

    Args:
        normalize: take off their mean over the round's samples, and divide by their standard deviation.
        clip: then bound them to [-clip, clip]; None for no bounds (arXiv 2401.06080 has 0.8).
        unfinished: the final reward of a response that was cut off; None keeps its own.
        empty: the final reward of a response without words; None keeps its own.
        overlong: the reward of a response that the model cannot read whole; None leaves it out.

    Raises:
        ValueError: if clip is not above 0.
    """

    normalize: bool = True
    clip: float | None = None
    unfinished: float | None = None
    empty: float | None = None
    overlong: float | None = None

    def __post_init__(self) -> None:
        check_positive(**given(clip=self.clip))

    def scale(self, rewards: Iterable[float | None]) -> tuple[float, float]:
        """Return the mean and standard deviation to normalise by, of a round's own samples; (0, 1) for none.

        Rewards that are all equal have no spread: they are divided by 1.
        """
        known = [reward for reward in rewards if reward is not None]
        if not self.normalize or not known:
            return 0.0, 1.0
        return float(np.mean(known)), float(np.std(known)) or 1.0

    def bounds(self) -> tuple[float, float] | None:
        """Return the lowest and the highest reward."""
        return None if self.clip is None else (-self.clip, self.clip)

    def apply(
        self,
        rewards: Sequence[float | None],
        responses: Sequence[str],
        finished: Sequence[bool],
        scale: tuple[float, float] | None = None,
    ) -> list[float | None]:
        """Return n rewards as the policy gets them.

        Args:
            rewards: of the model, as they are; None for what it cannot read whole.
            responses: their texts.
            finished: whether the policy ended them.
            scale: mean and standard deviation to normalise by; None for those of these rewards.
        """
        mean, std = self.scale(rewards) if scale is None else scale
        low, high = self.bounds() or (-np.inf, np.inf)
        normal = [
            self.overlong if reward is None else float(np.clip((reward - mean) / std, low, high)) for reward in rewards
        ]
        return shaped(normal, responses, finished, unfinished=self.unfinished, empty=self.empty)


def said_groups(path: Path) -> Said:
    """Read a file of responses.

    Raises:
        ValueError: if a row cannot be read.
    """
    groups: list[GroupRow] = []
    for row in GroupFile(path):
        if isinstance(row, BadRow):
            raise ValueError(f"{row.origin}: {row.detail}")
        groups.append(row)
    with path.open(encoding="utf-8", errors="surrogatepass") as file:
        told = [object_of(line, path) for line in file if line.strip()]
    return Said(groups, [row.get("finished", [True] * len(row["responses"])) for row in told])


def rewards_of(said: Said, rewards: RewardFunction) -> list[float | None]:
    """Return (P k) rewards of everything that was said."""
    asked = [group for group in said.groups for _ in group.responses]
    return rewards(
        [group.prompt for group in asked],
        said.texts(),
        tools=[group.tools for group in asked],
        chat_template_kwargs=[group.chat_template_kwargs for group in asked],
    )


def choose_for_policy(
    said: Said, rewards: RewardFunction, choose: Choose, seed: int, shaping: Shaping
) -> tuple[Choice, dict[str, Any]]:
    """Choose what the policy of a round is to learn, by its shaped rewards.

    Args:
        said: the round's samples.
        rewards: of the round's model, as they are; `overlong=None`.
        choose: which responses of a prompt.
        seed: of what is drawn.
        shaping: of the rewards.

    Returns:
        The choice, and counts for the round's record.
    """
    plain = rewards_of(said, rewards)
    mean, std = shaping.scale(plain)
    finished = [ended for group in said.finished for ended in group]
    given = shaping.apply(plain, said.texts(), finished)
    rest = iter(given)
    by_group = [list(islice(rest, len(group.responses))) for group in said.groups]
    choice = choose_responses(said.groups, by_group, choose, seed)
    return choice, {
        "num_groups": choice.num_groups,
        "num_equal_groups": choice.num_equal,
        "num_chosen": len(choice.pairs),
        "num_not_learned": choice.num_not_learned,
        "num_left_out": choice.num_left_out,
        "num_unfinished": finished.count(False),
        "num_empty": sum(not text.strip() for text in said.texts()),
        "reward_mean": mean,
        "reward_std": std,
    }
