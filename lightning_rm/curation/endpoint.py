"""A judge behind an address: a chat model that says which of two responses is better, in OpenAI's request form.

Each pair is asked both ways round, for such judges favour a place (arXiv 2306.05685, section 3.3): a vote is 1 or -1
where both answers agree, 0 where they do not. Answers lie on disk as they come, so that nothing is asked twice. It
knows HTTP and texts; no model of ours.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_rm.curation.facts import text_of
from lightning_rm.curation.opinions import Opinion
from lightning_rm.data.formats.fields import digest
from lightning_rm.data.rows import PairRow, Source

QUESTION = """Which of two responses answers the user better? Say A or B, one letter and nothing else.

[Conversation]
{prompt}

[Response A]
{first}

[Response B]
{second}"""

VERDICT = re.compile(r"\b([AB])\b")

RETRIED = (408, 409, 429, 500, 502, 503, 504)
"""Answers that a server gives when it is busy."""


@dataclass(frozen=True)
class Judge:
    """A judging endpoint as a voter.

    Args:
        endpoint: where it is, up to `/chat/completions`: `http://localhost:8000/v1`.
        model: as the server calls it.
        weight: how many votes it has.
        key: name of the environment variable with the server's key; none is sent where it is not set.
        attempts: how often a busy server is asked.
        timeout: seconds that an answer may take.
    """

    endpoint: str
    model: str
    weight: int = 1
    key: str = "OPENAI_API_KEY"
    attempts: int = 5
    timeout: float = 60.0

    def opinion(self, source: Source, folder: Path, wait: Callable[[float], None] = time.sleep) -> Opinion:
        """Ask about every row of a source that can be read.

        Args:
            source: the rows.
            folder: where answers are kept, a file a judge.
            wait: waits for some seconds.

        Returns:
            Votes of 1, 0 and -1; NaN for rows that cannot be read.

        Raises:
            ValueError: if the server does not answer, or not as asked.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"judge-{digest([self.endpoint, self.model], 16)}.jsonl"
        known = _read(path)
        votes: list[float] = []
        with path.open("a", encoding="utf-8") as file:
            for row in source:
                if not isinstance(row, PairRow):
                    votes.append(np.nan)
                    continue
                texts = [text_of(turns) for turns in (row.prompt, row.chosen, row.rejected)]
                name = digest(texts, 24)
                if name not in known:
                    known[name] = self._vote(texts, row.place, wait)
                    file.write(json.dumps({"pair": name, "vote": known[name]}) + "\n")
                    file.flush()
                votes.append(known[name])
        return Opinion(self.model, np.array(votes, np.float64)[:, None], self.weight)

    def _vote(self, texts: list[str], place: str, wait: Callable[[float], None]) -> float:
        prompt, chosen, rejected = texts
        said = [
            self._ask(QUESTION.format(prompt=prompt, first=first, second=second), place, wait)
            for first, second in ((chosen, rejected), (rejected, chosen))
        ]
        return ((said[0] == "A") - (said[0] == "B") + (said[1] == "B") - (said[1] == "A")) / 2

    def _ask(self, question: str, place: str, wait: Callable[[float], None]) -> str:
        """`A`, `B`, or nothing where the judge does not say."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 16,
        }
        headers = {"Content-Type": "application/json"}
        if secret := os.environ.get(self.key):
            headers["Authorization"] = f"Bearer {secret}"
        url = f"{self.endpoint.rstrip('/')}/chat/completions"
        problem = "it was never asked"
        for attempt in range(self.attempts):
            request = urllib.request.Request(url, json.dumps(body).encode(), headers)
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    said: Any = json.load(answer)
                content = str(said["choices"][0]["message"]["content"])
                found = VERDICT.search(content)
                return found[1] if found else ""
            except urllib.error.HTTPError as error:
                problem = f"{error.code} {error.reason}"
                if error.code not in RETRIED:
                    break
            except (OSError, ValueError) as error:
                problem = str(error)
            except (KeyError, IndexError, TypeError):
                problem = "the answer has no choices[0].message.content"
                break
            if attempt + 1 < self.attempts:
                wait(2.0**attempt)
        raise ValueError(f"{url} does not judge {place}: {problem}; what it has judged is kept, start again to go on")


def _read(path: Path) -> dict[str, float]:
    """Return the answers there are; a line that a crash cut off is asked again."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    lines = [json.loads(line) for line in whole.splitlines()]
    return {line["pair"]: float(line["vote"]) for line in lines}
