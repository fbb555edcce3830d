"""A policy improved by TRL's GRPO or RLOO on our rewards: the trainers are TRL's own, and so are their options.

TRL is an extra: `pip install 'lightning-rm[rlhf]'`. This file knows TRL's public classes and rewards; no round.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from lightning_rm.checksums import write_checksums
from lightning_rm.data.rows import GroupRow
from lightning_rm.drafts import write_json_lines
from lightning_rm.folder_drafts import folder_draft
from lightning_rm.models.backbone.folder import is_of_model
from lightning_rm.rlhf.improving import Shaping
from lightning_rm.rlhf.policy import load_policy
from lightning_rm.rlhf.prompts import Prompt, heeding_generation_prompt
from lightning_rm.rlhf.reward_function import RewardFunction

Trainer = Literal["GRPO", "RLOO"]

OURS = {"report_to": "none", "save_strategy": "no", "bf16": False, "gradient_checkpointing": False}
"""Settings that differ from TRL's defaults, for a stage that keeps its own record and begins anew after a kill."""


@dataclass
class PolicyRewards:
    """The callable that TRL asks: a round's rewards, shaped, and counts of what was asked.

    Args:
        rewards: of the round's model, as they are; `overlong=None`.
        shaping: of the rewards.
        scale: mean and standard deviation that normalise them.
        ends: tokens that end a response.
        group_size: completions of a prompt, which TRL hands over side by side.
        counts: of all calls: completions, those that were cut off, are empty or too long, groups, and groups whose
            rewards are all equal, which have no gradient.
    """

    rewards: RewardFunction
    shaping: Shaping
    scale: tuple[float, float]
    ends: Sequence[int]
    group_size: int
    counts: dict[str, int] = field(default_factory=dict[str, int])
    __name__ = "reward_model"  # TRL logs by it

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        **columns: Any,
    ) -> list[float | None]:
        """Answer TRL's call.

        Args:
            prompts: n prompts, lists of messages.
            completions: n lists of one message.
            completion_ids: n lists of tokens, the end among them where there is one.
            columns: the data set's other columns.

        Returns:
            n rewards; None for a completion that is left out.
        """
        plain = self.rewards(prompts, completions, **columns)
        texts = [str(completion[-1]["content"]) for completion in completions]
        finished = [bool(ids) and ids[-1] in self.ends for ids in completion_ids]
        given = self.shaping.apply(plain, texts, finished, self.scale)
        groups = [given[start : start + self.group_size] for start in range(0, len(given), self.group_size)]
        for name, number in (
            ("num_responses", len(given)),
            ("num_unfinished", finished.count(False)),
            ("num_empty", sum(not text.strip() for text in texts)),
            ("num_left_out", given.count(None)),
            ("num_groups", len(groups)),
            ("num_equal_groups", sum(len(set(group)) == 1 for group in groups)),
        ):
            self.counts[name] = self.counts.get(name, 0) + number
        return given


def train_by_trl(
    trainer: Trainer,
    policy: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    groups: Sequence[GroupRow],
    rewards: PolicyRewards,
    out: Path,
    *,
    options: Mapping[str, Any],
    chat_template_kwargs: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    seed: int = 0,
) -> dict[str, Any]:
    """Improve a policy, and write it as a Hugging Face folder.

    With `beta` above 0 TRL's reference is the policy as it is given.

    Args:
        trainer: whose: `GRPO` or `RLOO`.
        policy: a folder or hub name.
        tokenizer: the policy's; TRL writes prompts by its chat template, up to where sampling begins a response.
        groups: the prompts; their responses are not read.
        rewards: what TRL asks.
        out: a folder, swapped whole at the end. TRL's log lies beside it, in `trl_log.jsonl`.
        options: of TRL's own configuration, vLLM's among them.
        chat_template_kwargs: further arguments for the policy's chat template, of all prompts; a prompt's own go before
            them.
        dtype: of the policy.
        seed: of TRL's sampling and order.

    Returns:
        Counts for the round's record.

    Raises:
        ValueError: if TRL is not installed, or does not know an option, or prompts have different template arguments.
    """
    told = one_template(chat_template_kwargs, groups)
    options = {"seed": seed, "num_generations": rewards.group_size, **told, **options}
    check_options(trainer, options)
    rows = [
        {"prompt": [dict(message) for message in group.prompt]}
        | ({"chat_template_kwargs": dict(group.chat_template_kwargs)} if group.chat_template_kwargs else {})
        for group in groups
    ]
    writes = copy.copy(tokenizer)
    writes.chat_template = heeding_generation_prompt(tokenizer, groups[0].prompt)
    with tempfile.TemporaryDirectory() as scratch:
        loop = getattr(import_module("trl"), f"{trainer}Trainer")(
            model=load_policy(policy, dtype=dtype).train(),
            reward_funcs=rewards,
            args=on_one_device(_config_class(trainer)(output_dir=scratch, **{**OURS, **options})),
            train_dataset=Dataset.from_list(rows),
            processing_class=writes,
        )
        loop.train()
        with folder_draft(out) as draft:
            loop.save_model(str(draft))
            # A pickle of TRL's settings, which differ by their scratch folder: the same policy has the same files.
            (draft / "training_args.bin").unlink(missing_ok=True)
            tokenizer.save_pretrained(draft)
            write_checksums(draft, is_of_model)
    log: list[dict[str, Any]] = loop.state.log_history
    write_json_lines(out.parent / "trl_log.jsonl", log)
    return {
        "num_steps": loop.state.global_step,
        **rewards.counts,
        "reward_mean": rewards.scale[0],
        "reward_std": rewards.scale[1],
    }


def one_template(arguments: Mapping[str, Any] | None, prompts: Iterable[Prompt | GroupRow]) -> dict[str, Any]:
    """Return TRL's option for what all prompts hand to the chat template; nothing where there is none.

    Args:
        arguments: of all prompts.
        prompts: each may have arguments of its own.

    Raises:
        ValueError: if they differ from prompt to prompt, which TRL's trainers do not heed.
    """
    told = [{**(arguments or {}), **prompt.chat_template_kwargs} for prompt in prompts]
    if other := next((one for one in told if one != told[0]), None):
        raise ValueError(
            f"prompts have chat_template_kwargs of their own, {told[0]} and {other}, and TRL's trainers write all "
            "prompts by the same: leave them out of the data, or set policy_optimizer=best_of_n or rejection"
        )
    return {"chat_template_kwargs": told[0]} if told and told[0] else {}


def on_one_device(config: Any) -> Any:
    """Have TRL train on the first GPU where one process sees several: all of them would be `nn.DataParallel`, which its
    trainers refuse, after a round's reward model is trained.
    """
    config._n_gpu = min(config.n_gpu, 1)
    return config


def check_options(trainer: str, options: Mapping[str, Any]) -> None:
    """Say before anything is made what TRL would say after a round's reward model is trained.

    Raises:
        ValueError: if TRL is not installed, has no such trainer, does not know an option, or takes no such values.
    """
    if trainer not in get_args(Trainer):
        raise ValueError(f"policy_optimizer.trainer={trainer!r}; give {' or '.join(get_args(Trainer))}")
    if find_spec("trl") is None:
        raise ValueError(f"{trainer} is TRL's: pip install 'lightning-rm[rlhf]'; best_of_n and rejection do without it")
    config = _config_class(trainer)
    if unknown := sorted(set(options) - set(config.__dataclass_fields__)):
        raise ValueError(f"policy_optimizer.args.{unknown[0]}: TRL's {trainer}Config has no such option")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            config(output_dir=scratch, **{**OURS, **options})
        except (ValueError, TypeError) as error:
            raise ValueError(f"policy_optimizer.args: TRL's {trainer}Config does not take these: {error}") from error


def _config_class(trainer: str) -> Any:
    """Return the class of TRL's configuration for a trainer."""
    return getattr(import_module("trl"), f"{trainer}Config")
