"""The stage `policy` of a round: the policy improved by the round's rewards, on chosen text or by TRL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from lightning_rm.commands._config import resolved
from lightning_rm.commands._places import whole_place
from lightning_rm.commands._process import words_of
from lightning_rm.commands._quoting import quoted
from lightning_rm.commands._round_setup import Setup, given
from lightning_rm.digests import sha256_of
from lightning_rm.drafts import write_json
from lightning_rm.models.backbone.positions import longest_sequence
from lightning_rm.rlhf.improving import Shaping, choose_for_policy, rewards_of, said_groups
from lightning_rm.rlhf.policy import generation_config, policy_config
from lightning_rm.rlhf.rounds import Round
from lightning_rm.rlhf.row_files import write_pairs
from lightning_rm.rlhf.sampling import ending_tokens
from lightning_rm.rlhf.trl_training import PolicyRewards, train_by_trl

SHAPED_BY = ("normalize", "clip", "unfinished_reward", "empty_reward", "overlong_reward")
"""The keys of a round's rewards as the policy gets them."""

TEMPLATE = ("chat_template", "chat_template_kwargs")
"""The keys of how the policy's prompts are written."""


class PolicyStage:
    """What the stage does, and what it depends on.

    Args:
        setup: what stages share.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup, self.cfg, self.how = setup, setup.cfg, setup.optimizer

    def improve(self, round: Round) -> None:
        """Improve the policy by this round's rewards."""
        if not self.chooses:
            self._by_trl(round)
            return
        said = said_groups(round / "responses.jsonl")
        choice, counts = choose_for_policy(
            said,
            self.setup.rewards(round),
            instantiate(self.cfg.policy_optimizer.choose),
            round.seed(self.cfg.seed, "choose"),
            self.shaping(),
        )
        if not choice.pairs:
            cut = f"{counts['num_unfinished']:,} were cut off and have unfinished_reward; raise max_new_tokens, or "
            raise ValueError(
                f"round {round.number} has nothing to learn: {choice.num_equal:,} of {choice.num_groups:,} prompts "
                f"have responses of equal rewards; {cut if self.cfg.unfinished_reward is not None else ''}sample at a "
                "higher temperature, or more of them (k)"
            )
        told = self.setup.template_arguments()  # of sampling; what is learned is written as it was asked for
        pairs = [replace(pair, chat_template_kwargs={**told, **pair.chat_template_kwargs}) for pair in choice.pairs]
        write_pairs(round / "chosen.jsonl", pairs)
        words = self.distil_words(self.setup.policy(self.setup.start_of(round)), round / "chosen.jsonl")
        name, seed = f"name={self.cfg.name}_policy_{round.number}", round.seed(self.cfg.seed, "policy")
        self.setup.train([*words, name, f"seed={seed}"], round / "policy")
        write_json(round / "policy.json", counts)

    def inputs(self, round: Round) -> dict[str, Any]:
        """Return what the policy depends on."""
        names = (*SHAPED_BY, "combine", "lam", "weights", "temperature", "max_new_tokens")
        return {
            "policy": self.setup.policy_version(self.setup.start_of(round)),
            "reward_model": self.setup.model_version(round),
            "responses.jsonl": sha256_of(round / "responses.jsonl"),
            "optimizer": self.how,
            "rewards": {name: resolved(self.cfg)[name] for name in names},
            "words": words_of(self.setup.words, ("trainer",)),
            **self.setup.choices(("trainer",)),
            "seed": round.seed(self.cfg.seed, "policy"),
            **{name: whole_place(name, resolved(self.cfg)[name]) for name in TEMPLATE if self.cfg[name]},
            **self.setup.template(),
        }

    @property
    def chooses(self) -> bool:
        """Whether the policy learns text that is chosen."""
        return "choose" in self.how

    def shaping(self) -> Shaping:
        """Return how rewards are shaped for the policy."""
        return Shaping(*(self.cfg[name] for name in SHAPED_BY))

    def distil_words(self, policy: str | Path, chosen: Path) -> list[str]:
        """Return the words of `lightning-rm train` by which a policy learns chosen text, but for name and seed.

        Args:
            policy: that it begins with.
            chosen: the file of the text.
        """
        context = longest_sequence(policy_config(policy)) or self.cfg.data.max_tokens
        return [
            *("module=supervised", "data=jsonl", "data.module.val=null", "data.module.test=null"),
            *("data.val_fraction=0", f"data.max_tokens={context}", "monitor=null", "logger=csv"),
            *("backbone=hub", f"backbone.path={quoted(policy)}", "backbone.model.keep_lm_head=true"),
            *(f"backbone.{word}" for word in given(self.cfg, TEMPLATE[:1])),
            *words_of(self.setup.words, ("trainer",)),
            *(f"optimizer.lr={self.how['lr']}", f"data.epochs={self.how['epochs']}"),
            *(f"data.batch_pairs={self.how['batch_pairs']}", *self.how["words"]),
            f"data.file={quoted(chosen)}",
        ]

    def trl_options(self) -> dict[str, Any]:
        """Return the options of TRL's configuration."""
        return {"use_cpu": self.setup.device.type == "cpu", **self.how["args"]}

    def _by_trl(self, round: Round) -> None:
        groups = said_groups(round / "responses.jsonl")
        policy, plain = self.setup.policy(self.setup.start_of(round)), self.setup.rewards(round)
        shaping = self.shaping()
        options = self.trl_options()
        rewards = PolicyRewards(
            plain,
            shaping,
            shaping.scale(rewards_of(groups, plain)),
            ending_tokens(generation_config(policy), self.setup.tokenizer),
            options.get("num_generations", self.cfg.k),
        )
        counts = train_by_trl(
            self.how["trainer"],
            policy,
            self.setup.tokenizer,
            groups.groups,
            rewards,
            round / "policy/model/last",
            options=options,
            chat_template_kwargs=self.setup.template_arguments(),
            dtype=self.cfg.dtype,
            seed=round.seed(self.cfg.seed, "policy"),
        )
        write_json(round / "policy.json", counts)
