"""The stages of `lightning-rm rlhf`, from its configuration: words for other commands, and callables for the rest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from lightning_rm.commands._config import resolved
from lightning_rm.commands._data import find_source
from lightning_rm.commands._process import Run, words_of
from lightning_rm.commands._resume import quoted
from lightning_rm.commands.evaluate import device_of
from lightning_rm.data.rows import Source
from lightning_rm.data.tokenize.pairs import load_tokenizer
from lightning_rm.digests import files_digest, fingerprint, sha256_of
from lightning_rm.drafts import draft_of
from lightning_rm.rlhf.combining import combine_models
from lightning_rm.rlhf.endpoint_judge import EndpointJudge
from lightning_rm.rlhf.improving import Shaping, choose_for_policy, rewards_of, said_groups, write_pairs
from lightning_rm.rlhf.judges import Judge
from lightning_rm.rlhf.judging import Answering, judge_policy, read_judged, write_judged
from lightning_rm.rlhf.labelling import label_pairs
from lightning_rm.rlhf.policy import generation_config, policy_config, policy_version
from lightning_rm.rlhf.prompts import Prompt, distinct_prompts
from lightning_rm.rlhf.reward_function import RewardFunction
from lightning_rm.rlhf.rounds import Round, Stage
from lightning_rm.rlhf.sampling import check_options, ending_tokens, room_for_prompt
from lightning_rm.rlhf.trl_training import PolicyRewards, train_by_trl
from lightning_rm.rlhf.trl_training import check_options as check_trl_options
from lightning_rm.scoring.load import find_folder, load_model

TRAINED = (
    *("data", "backbone", "peft", "module", "layout", "optimizer", "scheduler", "treatment", "members", "contrast"),
    *("trainer", "monitor", "mode", "logger"),
)
"""The keys, and what lies below them, that are handed to the training of reward models as they were given."""

MODEL_SELECTIONS = ("best", "last")


class RoundStages:
    """What each stage does, and what it depends on.

    Args:
        cfg: `conf/rlhf.yaml`, composed.
        words: the command line that it was composed from.
        run: runs a command.
        console: where counts are said.

    Raises:
        ValueError: for a setting that cannot work, before anything is made.
    """

    def __init__(self, cfg: DictConfig, words: Sequence[str], run: Run, console: Console) -> None:
        self.cfg, self.words, self.run, self.console = cfg, words, run, console
        self.out = Path(cfg.out)
        self.optimizer: dict[str, Any] = resolved(cfg.policy_optimizer)
        self.device = device_of(cfg.accelerator) or torch.accelerator.current_accelerator() or torch.device("cpu")
        self._check()

    def all(self) -> list[Stage]:
        """Return the stages of a round, in order."""
        said, judged = "responses.jsonl", ("judged.jsonl", "judged.json")
        models, policy = ("reward_model", "reward_models"), ("chosen.jsonl", "policy", "policy.json")
        stages = [
            Stage("sample", self.sample, self.sample_inputs, (said, f"{said}.json"), read=(said,)),
            Stage("labels", self.label, self.label_inputs, ("labels.jsonl",), read=("labels.jsonl",)),
            Stage("reward_model", self.train, self.train_inputs, models, read=("reward_model/model",)),
            Stage("policy", self.improve, self.improve_inputs, policy, read=("policy/model/last", "policy.json")),
            Stage("judge", self.judge_round, self.judge_inputs, judged, read=judged, first=0),
        ]
        return [stage for stage in stages if stage.name != "labels" or self.cfg.labels.share > 0]

    # sample

    def sample(self, round: Round) -> None:
        """Sample k responses to each prompt from the policy of the round before, by `lightning-rm sample`."""
        policy, out = (
            f"policy={quoted(str(self.policy(round.before)))}",
            f"out={quoted(str(round / 'responses.jsonl'))}",
        )
        self.run(["sample", *self.sample_words(round), policy, out])

    def sample_inputs(self, round: Round) -> dict[str, Any]:
        """Return what the responses depend on."""
        return {"policy": policy_version(self.policy(round.before)), "words": self.sample_words(round)}

    def sample_words(self, round: Round) -> list[str]:
        """Return the words of `lightning-rm sample`, but for places."""
        names = ("set", "num_prompts", "max_prompt_tokens", "k", "temperature", "top_p", "max_new_tokens", "dtype")
        names = (*names, "batch_prompts", "accelerator", "chat_template", "chat_template_kwargs")
        given = [f"{name}={_written(value)}" for name in names if (value := resolved(self.cfg).get(name)) is not None]
        return [*words_of(self.words, ("data",)), *given, f"seed={round.seed(self.cfg.seed, 'sample')}"]

    # labels

    def label(self, round: Round) -> None:
        """Have the judge label a share of the round's prompts: pairs that join those of the data."""
        annotator = instantiate(self.cfg.labels.annotator)
        groups = said_groups(round / "responses.jsonl").groups
        seed = round.seed(self.cfg.seed, "labels")
        pairs, num_tied = label_pairs(groups, self.judge, share=self.cfg.labels.share, annotator=annotator, seed=seed)
        write_pairs(round / "labels.jsonl", pairs)
        self.console.print(f"{len(pairs):,} pairs labelled; {num_tied:,} prompts whose responses nobody can tell apart")
        self._say_usage()

    def label_inputs(self, round: Round) -> dict[str, Any]:
        """Return what the labels depend on."""
        return {
            "responses": sha256_of(round / "responses.jsonl"),
            "judge": self.judge.digest,
            "labels": resolved(self.cfg.labels),
            "seed": round.seed(self.cfg.seed, "labels"),
        }

    # reward_model

    def train(self, round: Round) -> None:
        """Train this round's reward model, or several and their ensemble, by `lightning-rm train`."""
        several = self.cfg.num_models > 1
        places = [round / f"reward_models/{place}" for place in range(self.cfg.num_models)]
        for place, run in enumerate(places if several else [round / "reward_model"]):
            name, seed = f"name={self.cfg.name}_round_{round.number}", round.seed(self.cfg.seed, f"train {place}")
            self._train([*self.train_words(round), *self._round_files(round), name, f"seed={seed}"], run)
        if several:
            folders = [self._model(run) for run in places]
            groups = said_groups(round / "responses.jsonl").groups
            combine_models(folders, groups, self.cfg.combine, self.cfg.lam, round / "reward_model/model/best")

    def train_inputs(self, round: Round) -> dict[str, Any]:
        """Return what the reward model depends on."""
        files = [file for file in self._labels(round) if file.is_file()]
        return {
            "words": [word for word in self.train_words(round) if not word.startswith("logger")],
            "pairs": self._source("train").fingerprint(),
            "labels": files_digest(files),
            "responses": sha256_of(round / "responses.jsonl") if self._reads_responses() else None,
            "models": [self.cfg.num_models, self.cfg.combine, self.cfg.lam] if self.cfg.num_models > 1 else 1,
            "seed": round.seed(self.cfg.seed, "train 0"),
        }

    def train_words(self, round: Round) -> list[str]:
        """Return the words of `lightning-rm train`, but for places, names and seeds."""
        words = words_of(self.words, TRAINED)
        if not words_of(words, ("backbone",)):
            words += ["backbone=hub", f"backbone.path={quoted(self.cfg.policy)}"]
        if not words_of(words, ("logger",)):
            words += ["logger=csv"]
        if self._reads_responses():
            words += ["responses=jsonl", f"responses.batch_groups={self.cfg.responses.batch_groups}"]
        return [*words, f"init_seed={round.seed(self.cfg.init_seed, 'head')}"]

    def _round_files(self, round: Round) -> list[str]:
        words: list[str] = []
        if self._reads_responses():
            words.append(f"responses.file={quoted(str(round / 'responses.jsonl'))}")
        if self.cfg.labels.share > 0:
            named: Any = resolved(self.cfg)["data"]["file"]
            files = [*([named] if isinstance(named, str) else named), *self._labels(round)]
            words.append(f"data.file=[{','.join(quoted(str(file)) for file in files)}]")
        return words

    def _labels(self, round: Round) -> list[Path]:
        """Return the files of labels of this round and those before."""
        if not self.cfg.labels.share:
            return []
        return [Round(self.out, number) / "labels.jsonl" for number in range(1, round.number + 1)]

    def _train(self, words: Sequence[str], run: Path) -> None:
        """Train, unless the run has written its results; one that was stopped goes on from its checkpoint."""
        if (run / "results.json").is_file() and any(find_folder(run, weights) for weights in MODEL_SELECTIONS):
            self.console.print(f"{run} has finished: its weights are taken as they are", soft_wrap=True)
            return
        if not (run / "checkpoints" / "resume.ckpt").is_file():
            shutil.rmtree(run, ignore_errors=True)
        self.console.print(f"lightning-rm train {' '.join(words)} hydra.run.dir={run}", soft_wrap=True)
        self.run(["train", *words, f"hydra.run.dir={quoted(str(run))}", "resume=auto"])

    def _reads_responses(self) -> bool:
        return bool(get_class(self.cfg.module._target_).reads_responses)  # pyright: ignore[reportAttributeAccessIssue]

    # policy

    def improve(self, round: Round) -> None:
        """Improve the policy by this round's rewards: by text that is chosen, or by TRL."""
        if "choose" not in self.optimizer:
            self._by_trl(round)
            return
        said = said_groups(round / "responses.jsonl")
        choice, counts = choose_for_policy(
            said,
            self.rewards(round),
            instantiate(self.cfg.policy_optimizer.choose),
            round.seed(self.cfg.seed, "choose"),
            self.shaping(),
        )
        if not choice.pairs:
            raise ValueError(
                f"round {round.number} has nothing to learn: {choice.num_equal:,} of {choice.num_groups:,} prompts "
                "have responses of equal rewards; sample at a higher temperature, or more of them (k)"
            )
        write_pairs(round / "chosen.jsonl", choice.pairs)
        self._train(self._distil_words(round), round / "policy")
        _write_counts(round / "policy.json", counts)

    def improve_inputs(self, round: Round) -> dict[str, Any]:
        """Return what the policy depends on."""
        names = ("normalize", "clip", "unfinished_reward", "empty_reward", "overlong_reward", "combine", "lam")
        names = (*names, "weights", "temperature", "max_new_tokens")
        return {
            "policy": policy_version(self.policy(self._start_of(round))),
            "reward_model": _model_version(self._model(round / "reward_model")),
            "responses": sha256_of(round / "responses.jsonl"),
            "optimizer": self.optimizer,
            "rewards": {name: resolved(self.cfg)[name] for name in names},
            "words": words_of(self.words, ("trainer",)),
            "seed": round.seed(self.cfg.seed, "policy"),
        }

    def rewards(self, round: Round) -> RewardFunction:
        """Return the rewards of a round's model as they are."""
        how = "mean" if self.cfg.combine == "warm" else self.cfg.combine
        model = load_model(self._model(round / "reward_model"))
        return RewardFunction(model, how=how, lam=self.cfg.lam, overlong=None, device=self.device)

    def shaping(self) -> Shaping:
        """Return how rewards are shaped for the policy."""
        cfg = self.cfg
        return Shaping(cfg.normalize, cfg.clip, cfg.unfinished_reward, cfg.empty_reward, cfg.overlong_reward)

    def _distil_words(self, round: Round) -> list[str]:
        how = self.optimizer
        policy = self.policy(self._start_of(round))
        context: int = getattr(policy_config(policy), "max_position_embeddings", None) or self.cfg.data.max_tokens
        return [
            *("module=supervised", "data=jsonl", "data.module.val=null", "data.module.test=null"),
            *("data.val_fraction=0", f"data.max_tokens={context}", "monitor=null", "logger=csv"),
            *("backbone=hub", f"backbone.path={quoted(str(policy))}", "backbone.model.keep_lm_head=true"),
            *words_of(self.words, ("trainer",)),
            *(f"optimizer.lr={how['lr']}", f"data.epochs={how['epochs']}", f"data.batch_pairs={how['batch_pairs']}"),
            *how["words"],
            f"data.file={quoted(str(round / 'chosen.jsonl'))}",
            f"name={self.cfg.name}_policy_{round.number}",
            f"seed={round.seed(self.cfg.seed, 'policy')}",
        ]

    def _by_trl(self, round: Round) -> None:
        groups = said_groups(round / "responses.jsonl")
        policy, plain, shaping = self.policy(self._start_of(round)), self.rewards(round), self.shaping()
        options: dict[str, Any] = self.optimizer["args"]
        rewards = PolicyRewards(
            plain,
            shaping,
            shaping.scale(rewards_of(groups, plain)),
            ending_tokens(generation_config(policy), self.tokenizer),
            options.get("num_generations", self.cfg.k),
        )
        counts = train_by_trl(
            self.optimizer["trainer"],
            policy,
            self.tokenizer,
            groups.groups,
            rewards,
            round / "policy/model/last",
            options={"use_cpu": self.device.type == "cpu", **options},
            dtype=self.cfg.dtype,
            seed=round.seed(self.cfg.seed, "policy"),
        )
        _write_counts(round / "policy.json", counts)

    # judge

    def judge_round(self, round: Round) -> None:
        """Ask the round's policy, have the judge judge, and measure."""
        is_start = round.number == 0
        measures, rows = judge_policy(
            self.policy(round),
            self.cfg.policy,
            self.tokenizer,
            self.eval_prompts,
            self.judge,
            self._answering(),
            rewards=None if is_start else self.rewards(round),
            start_said=None if is_start else read_judged(Round(self.out, 0).folder)[1],
        )
        write_judged(round.folder, measures, rows)
        self._say_usage()

    def judge_inputs(self, round: Round) -> dict[str, Any]:
        """Return what the judgement depends on."""
        names = ("k", "temperature", "max_new_tokens", "batch_prompts", "seed", "dtype", "chat_template_kwargs")
        how = self._answering()
        return {
            "policy": policy_version(self.policy(round)),
            "start": policy_version(self.cfg.policy),
            "reward_model": _model_version(self._model(round / "reward_model")) if round.number else None,
            "judge": self.judge.digest,
            "prompts": fingerprint(prompts=[[prompt.id, prompt.messages] for prompt in self.eval_prompts]),
            "answering": {name: getattr(how, name) for name in names},
        }

    def _answering(self) -> Answering:
        cfg = self.cfg
        return Answering(
            k=cfg.eval_k,
            temperature=cfg.eval_temperature,
            max_new_tokens=cfg.max_new_tokens,
            batch_prompts=cfg.batch_prompts,
            seed=Round(self.out, 0).seed(cfg.seed, "judge"),
            dtype=cfg.dtype,
            device=self.device,
            chat_template_kwargs=self._template_arguments(),
        )

    # what stages share

    def policy(self, round: Round) -> str | Path:
        """Return where the policy of a round lies."""
        return self.cfg.policy if round.number == 0 else round / "policy/model/last"

    def _start_of(self, round: Round) -> Round:
        """Return the round whose policy is improved in this one."""
        return round.before if self.cfg.policy_from == "last" else Round(self.out, 0)

    def _model(self, run: Path) -> Path:
        """Return the folder of a run's reward model.

        Raises:
            ValueError: if the run has none.
        """
        weights = self.cfg.weights if self.cfg.monitor is not None else "last"
        found = find_folder(run, weights) or find_folder(run, "last")
        if found is None:
            raise ValueError(f"{run} has no reward model; has its stage been run? (stage=reward_model)")
        return found

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The policy's tokenizer."""
        return load_tokenizer(self.cfg.policy, chat_template=self.cfg.chat_template)

    def _say_usage(self) -> None:
        if isinstance(self.judge, EndpointJudge):
            self.console.print(str(self.judge.usage()), soft_wrap=True)

    @cached_property
    def judge(self) -> Judge:
        """Who judges."""
        return instantiate(self.cfg.judge.judge)

    @cached_property
    def eval_prompts(self) -> list[Prompt]:
        """The prompts that policies are judged by: none of those that are sampled from."""
        cfg = self.cfg
        options: dict[str, Any] = {
            "max_prompt_tokens": self._max_prompt_tokens(),
            "on_bad_row": cfg.data.on_bad_row,
            "chat_template_kwargs": self._template_arguments(),
        }
        sampled, _ = distinct_prompts(self._source(cfg.set), self.tokenizer, num_prompts=cfg.num_prompts, **options)
        taken = {fingerprint(prompt=prompt.messages) for prompt in sampled}
        most = len(sampled) + cfg.num_eval_prompts
        others, _ = distinct_prompts(self._source(cfg.eval_set), self.tokenizer, num_prompts=most, **options)
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

    def _max_prompt_tokens(self) -> int | None:
        bounds = (self.cfg.max_prompt_tokens, room_for_prompt(policy_config(self.cfg.policy), self.cfg.max_new_tokens))
        return min((bound for bound in bounds if bound is not None), default=None)

    def _template_arguments(self) -> dict[str, Any]:
        return resolved(self.cfg.chat_template_kwargs) if self.cfg.chat_template_kwargs else {}

    def _source(self, name: str) -> Source:
        cfg = self.cfg.copy()
        OmegaConf.update(cfg, "set", name)
        return find_source(cfg)

    def _check(self) -> None:
        cfg = self.cfg
        check_options(cfg.k, cfg.temperature, cfg.top_p, cfg.max_new_tokens, cfg.batch_prompts)
        policy_config(cfg.policy)
        if cfg.k < 2:
            raise ValueError(f"k={cfg.k}: one response to a prompt leaves nothing to choose among; give 2 or more")
        for name, known in (("policy_from", ("last", "start")), ("weights", MODEL_SELECTIONS)):
            if cfg[name] not in known:
                raise ValueError(f"{name}={cfg[name]!r}; give {' or '.join(known)}")
        if "choose" not in self.optimizer:
            check_trl_options(self.optimizer["trainer"], self.optimizer["args"])
        if cfg.num_models < 1:
            raise ValueError(f"num_models={cfg.num_models}; give 1 or more")
        if not 0 <= cfg.labels.share <= 1:
            raise ValueError(f"labels.share={cfg.labels.share}; it is a share of the prompts, from 0 to 1")
        if cfg.labels.share > 0 and "file" not in cfg.data:
            raise ValueError("labels.share: labels join the pairs of a file; set data=jsonl data.file=FILE")


def _model_version(folder: Path) -> str:
    """Return what changes when a reward model does, an ensemble's members included."""
    return files_digest(sorted(path for path in folder.rglob("*") if path.is_file()))


def _written(value: object) -> str:
    """Return a plain value as Hydra reads it."""
    if isinstance(value, Mapping):
        inner = ",".join(f"{name}:{_written(one)}" for name, one in value.items())
        return f"{{{inner}}}"
    if isinstance(value, str):
        return quoted(value)
    return json.dumps(value)


def _write_counts(path: Path, counts: Mapping[str, Any]) -> None:
    with draft_of(path) as draft:
        draft.write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
