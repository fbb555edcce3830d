"""The reward model of a round: its pairs, their weights, and the `lightning-rm train` command line that trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_rm.commands._config import resolved
from lightning_rm.commands._data import keep_if_unchanged, start_of
from lightning_rm.commands._places import whole_path
from lightning_rm.commands._process import with_choices, words_of
from lightning_rm.commands._quoting import quoted
from lightning_rm.commands._round_setup import Setup, given
from lightning_rm.commands._trainings import method_of
from lightning_rm.commands._words import key_of
from lightning_rm.digests import sha256_of
from lightning_rm.rlhf.combining import combine_models
from lightning_rm.rlhf.importance import Weighing
from lightning_rm.rlhf.improving import said_groups
from lightning_rm.rlhf.policy import policy_version
from lightning_rm.rlhf.rounds import Round

TRAINED = (
    *("data", "backbone", "peft", "module", "layout", "optimizer", "scheduler", "treatment", "members", "contrast"),
    *("trainer", "monitor", "mode", "logger"),
)
"""The keys, and what lies below them, that are handed to the training of reward models as they were given."""

AS_WRITTEN = {"columns": "null", "where": "null", "format": "auto", "prefill": "error", "weights": "null"}
"""Options of files of pairs that say how others wrote and mix them -> what they are of the plain file that a stage
writes."""


class ModelStages:
    """The stages `weigh` and `reward_model`: what they do, and what they depend on.

    Args:
        setup: what stages share.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup, self.cfg = setup, setup.cfg

    # weigh

    def weigh(self, round: Round) -> None:
        """Weigh the data's pairs by the policy of the round before, by `lightning-rm weigh`."""
        keep = self.setup.out / "log_probs"  # the reference reads the pairs in one round alone
        places = {"policy": self.setup.policy(round.before), "out": round / "weighed.parquet", "keep": keep}
        words = [f"{name}={quoted(place)}" for name, place in places.items()]
        self.setup.run(["weigh", *self.weigh_words(), *words, "overwrite=true"])

    def weigh_inputs(self, round: Round) -> dict[str, Any]:
        """Return what the weights depend on."""
        return {
            "policy": self.setup.policy_version(round.before),
            "reference": None if self.cfg.weighing.reference is None else policy_version(self.cfg.weighing.reference),
            "pairs": self.setup.source("train").fingerprint(),
            "words": [word for word in self.weigh_words() if not word.startswith("reference=")],
            **self.setup.choices(("data",)),
            **self.setup.template(),
        }

    def weighing(self) -> Weighing:
        """Return how log-probabilities become weights."""
        how = self.cfg.weighing
        return Weighing(how.power, how.relative, how.per_token, how.clip)

    def weigh_words(self) -> list[str]:
        """Return the words of `lightning-rm weigh`, without paths."""
        how = self.cfg.weighing
        reference = "null" if how.reference is None else quoted(how.reference)
        names = ("power", "relative", "per_token", "clip", "batch_tokens")
        return [
            *words_of(self.setup.words, ("data",)),
            f"reference={reference}",
            *given(how, names),
            *given(self.cfg, ("temperature", "dtype", "accelerator", "chat_template", "chat_template_kwargs")),
        ]

    # reward_model

    def train(self, round: Round) -> None:
        """Train this round's reward model, or several and their ensemble, by `lightning-rm train`."""
        several = self.cfg.num_models > 1
        places = [round / f"reward_models/{place}" for place in range(self.cfg.num_models)]
        for place, run in enumerate(places if several else [round / "reward_model"]):
            name, seed = f"name={self.cfg.name}_round_{round.number}", round.seed(self.cfg.seed, f"train {place}")
            files = self.files(self._pairs(round), round / "responses.jsonl")
            before = self.setup.source("train").fingerprint()
            self.setup.train([*self.train_words(round), *files, name, f"seed={seed}"], run)
            keep_if_unchanged(run, self.setup.source("train"), before)
        if several:
            folders = [self.setup.model(run) for run in places]
            groups = said_groups(round / "responses.jsonl").groups
            out = round / "reward_model/model" / self.setup.weights  # where the one model of a run has them
            combine_models(folders, groups, self.cfg.combine, self.cfg.lam, out, self.setup.device)

    def train_inputs(self, round: Round) -> dict[str, Any]:
        """Return what the reward model depends on."""
        labels = {f"labels of round {number}": file for number, file in self._labels(round).items() if file.is_file()}
        read = labels | ({"weighed.parquet": round / "weighed.parquet"} if self.cfg.weigh else {})
        read |= {"responses.jsonl": round / "responses.jsonl"} if self.reads_responses else {}
        return {
            "words": [word for word in self.train_words(round) if not word.startswith("logger")],
            **self.setup.choices([key for key in TRAINED if key != "logger"]),
            **(start_of(self.cfg) if self.cfg.backbone.get("path") != self.cfg.policy else {}),  # that has said all
            "pairs": self.setup.source("train").fingerprint(),
            **{name: sha256_of(file) for name, file in read.items()},
            "models": 1
            if self.cfg.num_models == 1
            else [self.cfg.num_models, self.cfg.combine, self.cfg.lam, self.setup.weights],
            "seed": round.seed(self.cfg.seed, "train 0"),
        }

    def train_words(self, round: Round) -> list[str]:
        """Return the words of `lightning-rm train`, without paths, names and seeds."""
        own = words_of(self.setup.words, TRAINED)
        words = with_choices("rlhf", own, TRAINED)
        if not {"backbone", "backbone.path"} & {key_of(word) for word in own}:
            words += [f"backbone.path={quoted(whole_path(self.cfg.policy))}"]
        if self.reads_responses:
            words += ["responses=jsonl", f"responses.batch_groups={self.cfg.responses.batch_groups}"]
        return [*words, f"init_seed={round.seed(self.cfg.init_seed, 'head')}"]

    def files(self, pairs: list[Path] | None, responses: Path) -> list[str]:
        """Return the words that name the files of a training.

        Args:
            pairs: in place of those of the data; None for these.
            responses: where the module reads them.
        """
        words: list[str] = []
        if self.reads_responses:
            words.append(f"responses.file={quoted(responses)}")
        if pairs is not None:
            words.append(f"data.module.train.path=[{','.join(quoted(file) for file in pairs)}]")
            if self.cfg.weigh:  # the data's own rows are among them, as they were read
                named = {name: plain for name, plain in AS_WRITTEN.items() if name in self.cfg.data.module.train}
                words += [f"data.module.train.{name}={plain}" for name, plain in named.items()]
        return words

    def _pairs(self, round: Round) -> list[Path] | None:
        """Return the files of pairs of a round; None where they are the data's own."""
        if not (self.cfg.weigh or self.cfg.labels.share):
            return None
        named: Any = resolved(self.cfg)["data"]["file"]
        own = [round / "weighed.parquet"] if self.cfg.weigh else [named] if isinstance(named, str) else named
        return [*map(Path, own), *self._labels(round).values()]

    def _labels(self, round: Round) -> dict[int, Path]:
        """Return the files of labels of this round and those before."""
        if not self.cfg.labels.share:
            return {}
        return {number: Round(self.setup.out, number) / "labels.jsonl" for number in range(1, round.number + 1)}

    @property
    def reads_responses(self) -> bool:
        """Whether the module is trained on what the policy says."""
        return method_of(self.cfg).reads_responses
