"""The stages of `lightning-rm rlhf`, from its configuration: words for other commands, and callables for the rest."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate

from lightning_rm.commands._config import resolved
from lightning_rm.commands._process import words_of
from lightning_rm.commands._quoting import quoted
from lightning_rm.commands._round_model import ModelStages
from lightning_rm.commands._round_policy import PolicyStage
from lightning_rm.commands._round_setup import Setup, given
from lightning_rm.digests import fingerprint, sha256_of
from lightning_rm.rlhf.answering import Answering
from lightning_rm.rlhf.endpoint_judge import EndpointJudge
from lightning_rm.rlhf.improving import said_groups
from lightning_rm.rlhf.judging import judge_policy
from lightning_rm.rlhf.labelling import label_pairs
from lightning_rm.rlhf.measures import read_judged, write_judged
from lightning_rm.rlhf.rounds import Round, Stage
from lightning_rm.rlhf.row_files import write_pairs

SAMPLED_BY = (
    *("set", "num_prompts", "max_prompt_tokens", "k", "temperature", "top_p", "max_new_tokens", "dtype"),
    *("batch_prompts", "accelerator", "chat_template", "chat_template_kwargs"),
)
"""The keys that are handed to `lightning-rm sample`."""


class RoundStages:
    """What each stage does, and what it depends on.

    Args:
        setup: what they share.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup, self.cfg = setup, setup.cfg
        self.model, self.policy = ModelStages(setup), PolicyStage(setup)

    def all(self) -> list[Stage]:
        """Return the stages of a round, in order."""
        said, judged, weighed = "responses.jsonl", ("judged.jsonl", "judged.json"), ("weighed.parquet",)
        models, policy = ("reward_model", "reward_models"), ("chosen.jsonl", "policy", "policy.json")
        model, improved = self.model, self.policy
        stages = [
            Stage("sample", self.sample, self.sample_inputs, (said, f"{said}.json"), read=(said,)),
            Stage("labels", self.label, self.label_inputs, ("labels.jsonl",), read=("labels.jsonl",)),
            Stage("weigh", model.weigh, model.weigh_inputs, weighed, read=weighed),
            Stage("reward_model", model.train, model.train_inputs, models, read=("reward_model/model",)),
            Stage("policy", improved.improve, improved.inputs, policy, read=("policy/model/last", "policy.json")),
            Stage("judge", self.judge, self.judge_inputs, judged, read=judged, first=0),
        ]
        left_out = {"labels": not self.cfg.labels.share, "weigh": not self.cfg.weigh}
        return [stage for stage in stages if not left_out.get(stage.name, False)]

    # sample

    def sample(self, round: Round) -> None:
        """Sample k responses to each prompt from the policy of the round before, by `lightning-rm sample`."""
        places = {"policy": self.setup.policy(round.before), "out": round / "responses.jsonl"}
        words = [f"{name}={quoted(place)}" for name, place in places.items()]
        self.setup.run(["sample", *self.sample_words(round), *words])

    def sample_inputs(self, round: Round) -> dict[str, Any]:
        """Return what the responses depend on."""
        return {
            "policy": self.setup.policy_version(round.before),
            "words": self.sample_words(round),
            **self.setup.choices(("data",)),
            **self.setup.template(),
        }

    def sample_words(self, round: Round) -> list[str]:
        """Return the words of `lightning-rm sample`, but for places."""
        words = [*words_of(self.setup.words, ("data",)), *given(self.cfg, SAMPLED_BY)]
        return [*words, f"seed={round.seed(self.cfg.seed, 'sample')}"]

    # labels

    def label(self, round: Round) -> None:
        """Have the judge label a share of the round's prompts: pairs that join those of the data."""
        annotator = instantiate(self.cfg.labels.annotator)
        groups = said_groups(round / "responses.jsonl").groups
        seed, judge = round.seed(self.cfg.seed, "labels"), self.setup.judge
        pairs, num_tied = label_pairs(groups, judge, share=self.cfg.labels.share, annotator=annotator, seed=seed)
        write_pairs(round / "labels.jsonl", pairs)
        self.setup.console.print(
            f"{len(pairs):,} pairs labelled; {num_tied:,} prompts whose responses nobody can tell apart"
        )
        self.setup.say_usage()

    def label_inputs(self, round: Round) -> dict[str, Any]:
        """Return what the labels depend on."""
        return {
            "responses.jsonl": sha256_of(round / "responses.jsonl"),
            "judge": self.setup.judge.digest,
            "labels": resolved(self.cfg.labels),
            "seed": round.seed(self.cfg.seed, "labels"),
        }

    # judge

    def judge(self, round: Round) -> None:
        """Ask the round's policy, have the judge judge, and measure."""
        is_start = round.number == 0
        measures, rows = judge_policy(
            self.setup.policy(round),
            self.cfg.policy,
            self.setup.tokenizer,
            self.setup.eval_prompts,
            self.setup.judge,
            self._answering(),
            rewards=None if is_start else self.setup.rewards(round),
            start_said=None if is_start else read_judged(Round(self.setup.out, 0).folder)[1],
        )
        write_judged(round.folder, measures, rows)
        if is_start and isinstance(self.setup.judge, EndpointJudge):
            self.setup.console.print(
                "the judge was asked nothing: round 0 is the start policy, which later rounds are held against",
                soft_wrap=True,
            )
        else:
            self.setup.say_usage()

    def judge_inputs(self, round: Round) -> dict[str, Any]:
        """Return what the judgement depends on."""
        names = ("k", "temperature", "max_new_tokens", "batch_prompts", "seed", "dtype", "chat_template_kwargs")
        how = self._answering()
        prompts = [[prompt.id, prompt.messages] for prompt in self.setup.eval_prompts]
        return {
            "policy": self.setup.policy_version(round),
            "start": self.setup.policy_version(Round(self.setup.out, 0)),
            "reward_model": self.setup.model_version(round) if round.number else None,
            "judge": self.setup.judge.digest,
            "prompts": fingerprint(prompts=prompts),
            "answering": {name: getattr(how, name) for name in names},
            **self.setup.template(),
        }

    def _answering(self) -> Answering:
        cfg = self.cfg
        return Answering(
            k=cfg.eval_k,
            temperature=cfg.eval_temperature,
            max_new_tokens=cfg.max_new_tokens,
            batch_prompts=cfg.batch_prompts,
            seed=Round(self.setup.out, 0).seed(cfg.seed, "judge"),
            dtype=cfg.dtype,
            device=self.setup.device,
            chat_template_kwargs=self.setup.template_arguments(),
        )
