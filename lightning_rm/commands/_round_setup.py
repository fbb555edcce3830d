"""What the stages of `lightning-rm rlhf` share: where policies and models are, prompts, the judge, a training."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from lightning_rm.commands._config import resolved, template_arguments
from lightning_rm.commands._data import find_source
from lightning_rm.commands._places import whole_place, written
from lightning_rm.commands._process import Run, chosen_there
from lightning_rm.commands._trainings import has_ended, train_in
from lightning_rm.counts import tightest
from lightning_rm.data.rows import Source
from lightning_rm.data.tokenize.pairs import load_tokenizer
from lightning_rm.devices import device_here, device_of
from lightning_rm.digests import fingerprint
from lightning_rm.rlhf.combining import zeros_of
from lightning_rm.rlhf.endpoint_judge import EndpointJudge
from lightning_rm.rlhf.improving import said_groups
from lightning_rm.rlhf.judges import Judge
from lightning_rm.rlhf.policy import model_version, policy_config, policy_version
from lightning_rm.rlhf.prompts import Prompt, distinct_prompts
from lightning_rm.rlhf.reward_function import RewardFunction
from lightning_rm.rlhf.rounds import Round
from lightning_rm.rlhf.sampling import room_for_prompt
from lightning_rm.scoring.load import find_folder, load_model

MODEL_SELECTIONS = ("best", "last")


class Setup:
    """What the stages of rounds share.

    Args:
        cfg: `conf/rlhf.yaml`, composed.
        words: the command line that it was composed from.
        run: runs a command.
        console: where counts are printed.
    """

    def __init__(self, cfg: DictConfig, words: Sequence[str], run: Run, console: Console) -> None:
        self.cfg, self.run, self.console = cfg, run, console
        self.words = list(words)
        self.out = Path(cfg.out)
        self.optimizer: dict[str, Any] = resolved(cfg.policy_optimizer)
        self.device = device_of(cfg.accelerator) or device_here()

    def choices(self, keys: Sequence[str]) -> dict[str, str]:
        """Return what changes with what a folder of the user's says of these keys; nothing without one."""
        return chosen_there(self.cfg, self.words, keys)

    def policy(self, round: Round) -> str | Path:
        """Return where the policy of a round lies."""
        return self.cfg.policy if round.number == 0 else round / "policy/model/last"

    def start_of(self, round: Round) -> Round:
        """Return the round whose policy is improved in this one."""
        return round.before if self.cfg.policy_from == "last" else Round(self.out, 0)

    @property
    def weights(self) -> str:
        """Which weights of a reward model's run are taken: without a monitor there are no best ones."""
        return self.cfg.weights if self.cfg.monitor is not None else "last"

    def model(self, run: Path) -> Path:
        """Return the folder of a run's reward model.

        Raises:
            ValueError: if the run has none.
        """
        found = find_folder(run, self.weights) or find_folder(run, "last")
        if found is None:
            raise ValueError(f"{run} has no reward model; has its stage been run? (stage=reward_model)")
        return found

    def policy_version(self, round: Round) -> str:
        """Return what changes with a round's policy.

        Raises:
            ValueError: if there is none, or its weights are broken.
        """
        if round.number and not Path(self.policy(round)).is_dir():
            stage = f"stage=policy round={round.number}"
            raise ValueError(f"{round.folder} has no policy; has its stage been run? ({stage})")
        with _of_round(round, "policy"):
            return policy_version(self.policy(round))

    def model_version(self, round: Round) -> str:
        """Return what changes with a round's reward model.

        Raises:
            ValueError: if there is none, or its weights are broken.
        """
        folder = self.model(round / "reward_model")
        with _of_round(round, "reward_model"):
            return model_version(folder)

    def rewards(self, round: Round) -> RewardFunction:
        """Return the rewards of a round's model as they are.

        Where members on one backbone are compared with one another, each is taken less its mean over the round's
        samples, as an ensemble's are.
        """
        how = "mean" if self.cfg.combine == "warm" else self.cfg.combine
        model, tokenizer = loaded = load_model(self.model(round / "reward_model"))
        zeros = None
        if model.num_rewards > 1 and how != "mean":
            groups = said_groups(round / "responses.jsonl").groups
            zeros = zeros_of(model.to(self.device), tokenizer, groups)
        return RewardFunction(loaded, how=how, lam=self.cfg.lam, zeros=zeros, overlong=None, device=self.device)

    def train(self, words: Sequence[str], run: Path) -> None:
        """Train, unless the run has written its results; one that was stopped goes on from its checkpoint."""
        if has_ended(run, MODEL_SELECTIONS):
            self.console.print(f"{run} has finished: its weights are taken as they are", soft_wrap=True)
            return
        words = train_in(run, words)
        self.console.print(f"lightning-rm {shlex.join(words)}", soft_wrap=True)
        self.run(words)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The policy's tokenizer."""
        return load_tokenizer(self.cfg.policy, chat_template=self.cfg.chat_template)

    def template(self) -> dict[str, str]:
        """Return what changes with the text of a chat template of the user's, which may be a file; nothing without."""
        return {"template": fingerprint(template=self.tokenizer.chat_template)} if self.cfg.chat_template else {}

    @cached_property
    def judge(self) -> Judge:
        """Who judges."""
        return instantiate(self.cfg.judge.judge)

    def say_usage(self) -> None:
        """Print what a paid judge has cost so far."""
        if isinstance(self.judge, EndpointJudge):
            self.console.print(str(self.judge.usage()), soft_wrap=True)

    @cached_property
    def sampled_prompts(self) -> list[Prompt]:
        """The prompts that are sampled from."""
        return self._prompts(self.cfg.set, self.cfg.num_prompts)

    @cached_property
    def eval_prompts(self) -> list[Prompt]:
        """The prompts that policies are judged on: none of those that are sampled from."""
        cfg = self.cfg
        taken = {fingerprint(prompt=prompt.messages) for prompt in self.sampled_prompts}
        others = self._prompts(cfg.eval_set, len(self.sampled_prompts) + cfg.num_eval_prompts)
        held_out = [prompt for prompt in others if fingerprint(prompt=prompt.messages) not in taken]
        if not held_out:
            raise ValueError(
                f"eval_set={cfg.eval_set!r} has no prompt that is not sampled from; name another set, or a smaller "
                "num_prompts="
            )
        held_out = held_out[: cfg.num_eval_prompts]
        if len(held_out) < cfg.num_eval_prompts:
            self.console.print(f"policies are judged by {len(held_out):,} prompts: eval_set={cfg.eval_set} has no more")
        return held_out

    def template_arguments(self) -> dict[str, Any]:
        """Return the arguments that the policy's chat template gets for all prompts."""
        return template_arguments(self.cfg)

    def source(self, name: str) -> Source:
        """Return a set of the data, whole."""
        cfg = self.cfg.copy()
        OmegaConf.update(cfg, "set", name)
        return find_source(cfg)

    def _prompts(self, name: str, most: int | None) -> list[Prompt]:
        """Return so many distinct prompts of a set; None for all."""
        room = room_for_prompt(policy_config(self.cfg.policy), self.cfg.max_new_tokens)
        options: dict[str, Any] = {
            "max_prompt_tokens": tightest(self.cfg.max_prompt_tokens, room),
            "on_bad_row": self.cfg.data.on_bad_row,
            "chat_template_kwargs": self.template_arguments(),
        }
        return distinct_prompts(self.source(name), self.tokenizer, num_prompts=most, **options)[0]


@contextmanager
def _of_round(round: Round, stage: str) -> Generator[None]:
    """Add to an error about a stage's broken file how to make the file again."""
    try:
        yield
    except ValueError as error:
        if not round.number:
            raise
        raise ValueError(f"{error}. To have it made again, remove {round / stage} and start once more") from error


def given(cfg: DictConfig, names: Sequence[str]) -> list[str]:
    """Return the words that set keys of another command to their values here; null is left to that command."""
    values = {name: value for name, value in resolved(cfg).items() if name in names and value is not None}
    return [f"{name}={written(whole_place(name, values[name]))}" for name in names if name in values]
