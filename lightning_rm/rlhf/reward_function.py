"""`RewardFunction`: a reward model as the callable that trainers of policies ask for rewards.

TRL, OpenRLHF and verl hand over the same thing in three shapes: prompts, and what the policy said. Here all of them
become the conversations that the model was trained on, by its own template, and the rewards are those of `score`. It
knows the trainers' call signatures and none of their code.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import PreTrainedTokenizerBase

from lightning_rm.counts import is_number, is_positive
from lightning_rm.data.formats.scorable import prompt_and_response
from lightning_rm.data.rows import Message
from lightning_rm.data.tokenize.encoding import encode_texts
from lightning_rm.data.tokenize.policy import OVERLONG
from lightning_rm.data.tokenize.templates import render
from lightning_rm.devices import device_here, known_device
from lightning_rm.digests import fingerprint
from lightning_rm.models.ensembles.aggregate import Aggregate, aggregate
from lightning_rm.scoring.conversations import EMPTY_RESPONSE, Conversation, bounded, encode, remarks
from lightning_rm.scoring.engine import score_sequences
from lightning_rm.scoring.load import LoadedModel, check_loaded, load_model
from lightning_rm.scoring.parts import Refusal
from lightning_rm.scoring.reference import reference_scale

Overlong = float | Literal["error"] | None


class RewardFunction:
    """A reward model that gives a policy's responses their rewards.

    TRL takes the object itself, the others one of its methods:

        GRPOTrainer(..., reward_funcs=RewardFunction("runs/baseline/0"))           # RLOOTrainer alike
        reward_func = RewardFunction("runs/baseline/0").openrlhf                   # in the file that OpenRLHF is told
        compute_score = RewardFunction("runs/baseline/0", normalize=True).verl     # in the file that verl is told

    Args:
        model: whatever `load_model` reads, or what it gave. Members are made one reward by `how`; an ensemble has its
            own aggregate.
        how: the aggregate of members.
        lam: the price of variance, for `mean_minus_variance`.
        zeros: (M,) taken off each member's rewards first; None for 0. Each member has a zero of its own, which the
            worst case and the variance would measure in place of disagreement: `combining.zeros_of` finds them.
        normalize: give (reward - mean) / std, with the mean and std of rewards on a reference set that the model's
            `config.json` names; or the two numbers.
        clip: the lowest and the highest reward to give, after normalising; None for no bounds.
        overlong: for a conversation that the model cannot read: `error`, a reward to give, or None: TRL leaves such a
            response out.
        dtype: of the backbone, where the model is loaded here.
        device: where to score; None for the accelerator of the process, if there is one, at the first call.
        batch_tokens: the most grid tokens of a forward; None for what suits the device.
        name: what trainers log the reward as.

    Raises:
        ValueError: if the model has no mean and std to normalise by, std is not above 0, bounds are the wrong way
            round, or there is not one zero for each member.
    """

    def __init__(
        self,
        model: str | Path | LoadedModel,
        *,
        how: Aggregate = "mean",
        lam: float = 1.0,
        zeros: Sequence[float] | None = None,
        normalize: bool | tuple[float, float] = False,
        clip: tuple[float, float] | None = None,
        overlong: Overlong = "error",
        dtype: str = "float32",
        device: str | torch.device | None = None,
        batch_tokens: int | None = None,
        name: str = "reward_model",
    ) -> None:
        check_loaded(model, "model")
        self.model, self.tokenizer = load_model(model, dtype=dtype) if isinstance(model, str | Path) else model
        self.how: Aggregate = how
        self.lam = lam
        self.zeros = [0.0] * self.model.num_rewards if zeros is None else list(zeros)
        if len(self.zeros) != self.model.num_rewards:
            raise ValueError(f"zeros={self.zeros} for a model of {self.model.num_rewards} rewards; give one for each")
        if isinstance(normalize, bool):
            normalize = reference_scale(self.model) if normalize else (0.0, 1.0)
        self.mean, self.std = normalize
        if not (is_number(self.mean) and is_positive(self.std)):
            raise ValueError(f"normalize={normalize}: give a mean and a standard deviation, above 0")
        if clip is not None and not clip[0] < clip[1]:
            raise ValueError(f"clip={clip}: give the lowest reward first, such as (-5.0, 5.0)")
        self.clip = clip
        self.overlong: Overlong = overlong
        self.device = device
        self._is_placed = False
        self.batch_tokens = batch_tokens
        self.__name__ = name  # TRL logs by it
        aggregate(torch.zeros(1, 1), how, lam)  # so that a wrong setting raises here, not in the first step

    def digest(self) -> str:
        """Return 16 hex digits that change with the model, its tokenizer, and how rewards are made of what it says."""
        loaded = LoadedModel(self.model, self.tokenizer).digest()
        settings: list[Any] = [self.how, self.lam, self.mean, self.std, self.clip, self.overlong]
        settings += [self.zeros] if any(self.zeros) else []
        return fingerprint(model=loaded, settings=settings)[:16]

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        tools: Sequence[Sequence[Mapping[str, Any]] | None] | None = None,
        chat_template_kwargs: Sequence[Mapping[str, Any] | None] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """Answer TRL's call, which GRPOTrainer and RLOOTrainer make.

        Args:
            prompts: n prompts, texts or lists of messages, each as often as it has completions.
            completions: n texts or lists of messages.
            tools: the data set's column, where it has one.
            chat_template_kwargs: the data set's column, where it has one.

        Returns:
            n rewards; None for a response that is left out.

        Raises:
            ValueError: if there are not as many prompts as completions.
        """
        if len(prompts) != len(completions):
            raise ValueError(
                f"{len(prompts)} prompts and {len(completions)} completions; give each completion its prompt"
            )
        nothing = [None] * len(prompts)
        conversations = [
            Conversation(prompt_and_response(prompt, completion), tuple(tool or ()), dict(told or {}))
            for prompt, completion, tool, told in zip(
                prompts, completions, tools or nothing, chat_template_kwargs or nothing, strict=True
            )
        ]
        said = {remark for conversation in conversations for remark in remarks(self.tokenizer, conversation)}
        for remark in sorted(said - {EMPTY_RESPONSE}):  # of a policy, which may say nothing
            warnings.warn(f"the reward model's chat template: responses {remark}", stacklevel=2)
        return self._rewards(encode(self.tokenizer, conversations, self.model.max_tokens))

    def openrlhf(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any] = (), **_: Any
    ) -> dict[str, Any]:
        """Answer as OpenRLHF's `reward_func`: texts that the policy's chat template has written already.

        The response is what a query has beyond its prompt, without the special tokens at its end; the model's own
        template ends it. The prompt is taken as it is written: policy and reward model must have one chat template.

        Args:
            queries: n texts of prompt and response.
            prompts: their prompts.
            labels: not read.

        Returns:
            `rewards` and `scores`, (n,) float32 each, NaN for a response that is left out; and `extra_logs`.

        Raises:
            ValueError: if a query does not begin with its prompt.
        """
        ending = response_ending(self.tokenizer)
        special = "|".join(map(re.escape, self.tokenizer.all_special_tokens))
        texts: list[str] = []
        for place, (query, prompt) in enumerate(zip(queries, prompts, strict=True)):
            if not query.startswith(prompt):
                raise ValueError(f"query {place} does not begin with its prompt; were both decoded alike?")
            texts.append(prompt + re.sub(rf"(?:\s|{special})+\Z", "", query[len(prompt) :]) + ending)
        encoded = [bounded(ids, self.model.max_tokens) for ids in encode_texts(self.tokenizer, texts)]
        values = [float("nan") if reward is None else reward for reward in self._rewards(encoded)]
        rewards = torch.tensor(values)
        return {"rewards": rewards, "scores": rewards, "extra_logs": {self.__name__: rewards}}

    def verl(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any = None,
        extra_info: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> float:
        """Answer as verl's `compute_score`: one response, whose prompt stands in the row's `extra_info`.

        Args:
            data_source: not read.
            solution_str: what the policy said.
            ground_truth: not read.
            extra_info: with `prompt` or `question`, a text or a list of messages.

        Raises:
            ValueError: if it holds neither.
        """
        told = extra_info or {}
        name = next((name for name in ("prompt", "question") if told.get(name)), None)
        if name is None:
            raise ValueError(
                "verl hands over a response alone; put its prompt into the data's extra_info, as prompt or question"
            )
        (reward,) = self([told[name]], [solution_str])
        return float("nan") if reward is None else reward

    def _rewards(self, encoded: Sequence[list[int] | Refusal]) -> list[float | None]:
        """Return rewards of token sequences, normalised and clipped."""
        refused = {place: ids for place, ids in enumerate(encoded) if isinstance(ids, Refusal)}
        for place, refusal in refused.items():
            if self.overlong == "error" or refusal.reason != OVERLONG:
                raise ValueError(
                    f"response {place}: {refusal.reason}: {refusal.detail}; shorten prompts or completions, or give "
                    "such responses a reward with overlong="
                )
        if not self._is_placed:
            # Not before the first call: trainers choose each process's accelerator after they are given this object.
            self.model.to(device_here() if self.device is None else known_device(self.device))
            self._is_placed = True
        votes = score_sequences(
            self.model,
            [ids for ids in encoded if not isinstance(ids, Refusal)],
            batch_tokens=self.batch_tokens,
            name="response {}".format,
        )
        members = torch.from_numpy(votes.T)
        centred = members - members.new_tensor(self.zeros)[:, None]
        reward = (aggregate(centred, self.how, self.lam) - self.mean) / self.std
        given = iter((reward if self.clip is None else reward.clamp(*self.clip)).tolist())
        left_out = cast("float | None", self.overlong)
        return [left_out if place in refused else next(given) for place in range(len(encoded))]


def response_ending(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what a chat template writes after a response."""
    said = "a response"
    text = render(tokenizer, [Message(role="user", content="a prompt"), Message(role="assistant", content=said)])
    return text.rpartition(said)[2]
