"""Pairs as a policy reads them: by its own chat template and tokens, up to the token that ends a response.

It knows pairs, templates and tokens; weights are loaded where somebody asks for them, and nothing is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_rm.counts import check_positive
from lightning_rm.data.beginnings import num_shared
from lightning_rm.data.rows import Message, PairRow
from lightning_rm.data.tokenize.encoding import encode_distinct
from lightning_rm.data.tokenize.pairs import load_tokenizer
from lightning_rm.data.tokenize.policy import OVERLONG, TEMPLATE
from lightning_rm.data.tokenize.templates import TEMPLATE_ERRORS, render
from lightning_rm.digests import check_unchanged, fingerprint
from lightning_rm.models.backbone.positions import longest_sequence
from lightning_rm.rlhf.policy import generation_config, load_policy, policy_config, policy_version
from lightning_rm.rlhf.prompts import check_template_arguments, prompt_text
from lightning_rm.rlhf.sampling import ending_tokens

VERSION = 1
"""Part of every digest: raise it when the same policy gives the same pairs other log-probabilities."""

Said = tuple[list[int], list[int]]
"""The tokens before something that the assistant says, and those that it says, its end among them."""


class Written(NamedTuple):
    """A turn of the assistant, as texts.

    Args:
        side: 0 for a turn of the chosen response, 1 for one of the rejected.
        before: what stands before it.
        whole: both together.
    """

    side: int
    before: str
    whole: str


@dataclass(frozen=True)
class Unreadable:
    """Why a policy cannot read a pair: a kind that can be counted, and what was found."""

    reason: str
    detail: str


@dataclass(frozen=True)
class PairReader:
    """A policy that is asked how likely it is to say the responses of pairs.

    Args:
        path: a folder, a hub name or a `.gguf` file.
        tokenizer: the policy's, with its chat template.
        ends: tokens that end a response.
        max_tokens: the most tokens of a conversation.
        temperature: what logits are divided by.
        dtype: of the policy.
        chat_template_kwargs: further arguments for the template, of all pairs; a pair's own go before them.
        version: of its weights, as `policy_version` has it.
        trust_remote_code: whether the policy may run code that it brings.
    """

    path: str
    tokenizer: PreTrainedTokenizerBase
    ends: Sequence[int]
    max_tokens: int
    temperature: float
    dtype: str
    chat_template_kwargs: Mapping[str, Any]
    version: str
    trust_remote_code: bool = field(default=False, kw_only=True)

    @classmethod
    def at(
        cls,
        path: str | Path,
        *,
        max_tokens: int,
        temperature: float = 1.0,
        dtype: str = "float32",
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        trust_remote_code: bool = False,
    ) -> PairReader:
        """Return the policy at a path, its weights not loaded yet.

        Raises:
            ValueError: if there is no causal language model, the temperature is not above 0, no token ends a response,
                or the template reads no argument of such a name.
        """
        check_positive(temperature=temperature)
        context = longest_sequence(policy_config(path, trust_remote_code=trust_remote_code))
        tokenizer = load_tokenizer(path, chat_template=chat_template, trust_remote_code=trust_remote_code)
        arguments = dict(chat_template_kwargs or {})
        check_template_arguments(tokenizer, arguments)
        ends = ending_tokens(generation_config(path), tokenizer)
        bound = max_tokens if context is None else min(context, max_tokens)
        return cls(
            str(path),
            tokenizer,
            ends,
            bound,
            temperature,
            dtype,
            arguments,
            policy_version(path),
            trust_remote_code=trust_remote_code,
        )

    def load(self) -> PreTrainedModel:
        """Return the policy.

        Raises:
            ValueError: if its weights are no longer those of `version`.
        """
        policy = load_policy(self.path, dtype=self.dtype, trust_remote_code=self.trust_remote_code)
        check_unchanged(self.path, policy_version(self.path), self.version, "in use")
        return policy

    def digest(self) -> str:
        """Return what changes with whatever its log-probabilities depend on, but for the pairs."""
        return fingerprint(
            version=VERSION,
            policy=self.version,
            template=self.tokenizer.chat_template,
            arguments=dict(self.chat_template_kwargs),
            temperature=self.temperature,
            dtype=self.dtype,
        )

    def read(self, rows: Sequence[PairRow]) -> list[tuple[list[Said], list[Said]] | Unreadable]:
        """Return for each pair what the assistant says in its chosen and in its rejected response.

        Most responses are one turn. Of several, each of the assistant's turns stands with all that goes before it, and
        what others say is not the policy's.
        """
        written = [self._written(row) for row in rows]
        texts = [text for found in written if not isinstance(found, Unreadable) for turn in found for text in turn[1:]]
        ids = encode_distinct(self.tokenizer, texts)
        return [found if isinstance(found, Unreadable) else self._tokens(found, ids) for found in written]

    def _written(self, row: PairRow) -> list[Written] | Unreadable:
        arguments = {**self.chat_template_kwargs, **row.chat_template_kwargs}
        found: list[Written] = []
        try:
            for side, response in enumerate((row.chosen, row.rejected)):
                turns: list[Message] = list(row.prompt)
                for turn in response:
                    if turn["role"] == "assistant":
                        before = prompt_text(self.tokenizer, turns, row.tools, arguments)
                        whole = render(self.tokenizer, [*turns, turn], row.tools, arguments)
                        found.append(Written(side, before, whole))
                    turns.append(turn)
        except TEMPLATE_ERRORS as error:
            return Unreadable(TEMPLATE, f"{type(error).__name__}: {error}")
        return found

    def _tokens(
        self, written: Sequence[Written], ids: Mapping[str, list[int]]
    ) -> tuple[list[Said], list[Said]] | Unreadable:
        sides: tuple[list[Said], list[Said]] = ([], [])
        for side, before, whole in written:
            if len(ids[whole]) > self.max_tokens:
                return Unreadable(OVERLONG, f"{len(ids[whole]):,} tokens, and {self.max_tokens:,} are read")
            sides[side].append(split_at_response(ids[before], ids[whole], self.ends))
        return sides


def split_at_response(before: Sequence[int], whole: Sequence[int], ends: Sequence[int]) -> Said:
    """Return the tokens of a conversation before its last response, and those of the response up to its end.

        [1, 5, 7], [1, 5, 7, 4, 9, 2, 6], ends [2]  ->  [1, 5, 7], [4, 9, 2]

    Args:
        before: the tokens of the prompt alone. Where the text of both together is cut into other tokens, the response
            begins at the first that differs.
        whole: the tokens of both.
        ends: tokens that end a response: a template may write more behind them, which nobody has said.
    """
    start = max(num_shared(before, whole), 1)  # the first token of all is given
    said = list(whole[start:])
    end = next((place for place, token in enumerate(said) if token in ends), len(said))
    return list(whole[:start]), said[: end + 1]
