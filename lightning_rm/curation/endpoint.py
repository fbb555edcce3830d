"""A judge behind an address: a chat model that says which of two responses is better, in OpenAI's request form.

Each pair is asked both ways round, since such judges favour one place (arXiv 2306.05685, section 3.3): a vote is 1 or
-1 where both answers agree, 0 where they do not, and none where one of them cannot be read. Votes lie on disk as they
come, so that nothing is asked twice. It knows texts; no model of ours.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from lightning_rm.counts import number_of
from lightning_rm.curation.facts import text_of
from lightning_rm.curation.opinions import Opinion
from lightning_rm.data.rows import PairRow, Source
from lightning_rm.digests import digest
from lightning_rm.drafts import naming
from lightning_rm.rlhf.chat_endpoint import ChatEndpoint
from lightning_rm.rlhf.endpoint_judge import verdict_of
from lightning_rm.rlhf.judge_answers import Said
from lightning_rm.rlhf.judges import Verdict
from lightning_rm.rlhf.lines import whole_lines
from lightning_rm.told import object_of

QUESTION = """Which of two responses answers the user better? Say A or B, one letter and nothing else.

[Conversation]
{prompt}

[Response A]
{first}

[Response B]
{second}"""

USUAL_KEY = "OPENAI_API_KEY"
"""The environment variable that is looked for where none is named."""

VERDICT = re.compile(
    r"\W*(?:(?:the )?(?:better |best )?(?:response|answer|option|choice|verdict)\W*(?:is )?\W*)?(?:response )?"
    r"([AB])\b\W*(?:is (?:the )?better\b.*)?",
    re.IGNORECASE,
)
"""A first line that is a verdict alone: `A`, `**B**.`, `Response A is better`. In another sentence "A" is a word."""

VOTES: Mapping[Verdict | None, float] = {"win": 1.0, "lose": -1.0, "tie": 0.0, None: math.nan}
"""What both answers say of the chosen response -> the vote."""


@dataclass(frozen=True)
class Judge:
    """A judging endpoint as a voter.

    Args:
        endpoint: its address without `/chat/completions`: `http://localhost:8000/v1`.
        model: the server's name for it.
        weight: the number of its votes.
        key: the environment variable that holds the server's key; None for OPENAI_API_KEY where that is set, and else
            for no key.
        attempts: how often to ask a busy server.
        timeout: seconds that an answer may take.

    Raises:
        ValueError: for an address that would show a secret, a key that is not in the environment, or a number out of
            its range: before voters are trained, and not after.
    """

    endpoint: str
    model: str
    weight: int = 1
    key: str | None = None
    attempts: int = 5
    timeout: float = 60.0

    def __post_init__(self) -> None:
        self._server(time.sleep)

    def opinion(self, source: Source, folder: Path, wait: Callable[[float], None] = time.sleep) -> Opinion:
        """Ask about every row of a source that can be read.

        Args:
            source: the rows.
            folder: where answers are kept, a file a judge.
            wait: called with the seconds to wait.

        Returns:
            Votes of 1, 0 and -1; NaN for rows that cannot be read, and for pairs of which an answer cannot be.

        Raises:
            ValueError: if the server does not answer, or not as asked.

        Warns:
            UserWarning: with the number of pairs that have no vote of the judge.
        """
        server = self._server(wait)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"judge-{digest([self.endpoint, self.model], 16)}.jsonl"
        known = _read(path)
        votes, unread = list[float](), 0
        with naming(path), path.open("a", encoding="utf-8") as file:
            for row in source:
                if not isinstance(row, PairRow):
                    votes.append(np.nan)
                    continue
                texts = [text_of(turns) for turns in (row.prompt, row.chosen, row.rejected)]
                name = digest(texts, 24)
                if name not in known:
                    known[name] = self._vote(server, texts, row.place)
                    vote = None if math.isnan(known[name]) else known[name]
                    file.write(json.dumps({"pair": name, "vote": vote}) + "\n")
                    file.flush()
                votes.append(known[name])
                unread += math.isnan(known[name])
        if unread:
            warnings.warn(
                f"{self.model} has no vote on {number_of(unread, 'pair')} of {len(votes):,}: it did not answer A or B "
                "alone; a model that thinks before it answers needs a server that keeps the thoughts apart",
                stacklevel=2,
            )
        return Opinion(self.model, np.array(votes, np.float64)[:, None], self.weight)

    def _server(self, wait: Callable[[float], None]) -> ChatEndpoint:
        return ChatEndpoint(
            self.endpoint,
            self.model,
            key=self.key or (USUAL_KEY if os.environ.get(USUAL_KEY) else None),
            request={"temperature": 0, "max_tokens": 16},
            max_retries=self.attempts - 1,
            requests_per_minute=None,
            timeout=self.timeout,
            sleep=wait,
        )

    def _vote(self, server: ChatEndpoint, texts: list[str], place: str) -> float:
        prompt, chosen, rejected = texts
        first = self._ask(server, QUESTION.format(prompt=prompt, first=chosen, second=rejected), place)
        second = self._ask(server, QUESTION.format(prompt=prompt, first=rejected, second=chosen), place)
        return VOTES[verdict_of(first, second)]

    def _ask(self, server: ChatEndpoint, question: str, place: str) -> Said | None:
        """Return `A` or `B`; None where the judge says neither."""
        try:
            first_line = server.ask(question).text.strip().partition("\n")[0]
        except ValueError as error:
            raise ValueError(f"{place}: {error}; what it has judged is kept, start again to go on") from error
        found = VERDICT.fullmatch(first_line)
        return cast(Said, found[1].upper()) if found else None


def _read(path: Path) -> dict[str, float]:
    """Return the votes there are, NaN for none; a line that a crash cut off is asked again."""
    lines = [object_of(line, path) for line in whole_lines(path)]
    return {line["pair"]: math.nan if line["vote"] is None else float(line["vote"]) for line in lines}
