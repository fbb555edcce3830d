"""A judge model behind an address: each comparison asked both ways round, every answer kept on disk as it comes.

The protocol is that of the paper's judge (arXiv 2401.06080, appendix B.4): [[A]], [[B]] or [[C]] for a tie. The paper
draws the order; here both orders are asked, for such judges favour a place (arXiv 2306.05685, section 3.3), and a
verdict that turns with the order is a tie. It knows comparisons and an endpoint; no policy and no round.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from lightning_rm.counts import check_counts
from lightning_rm.data.rows import Message
from lightning_rm.digests import fingerprint
from lightning_rm.rlhf.chat_endpoint import ChatEndpoint, StoppedError
from lightning_rm.rlhf.judge_answers import JudgeAnswer, JudgeAnswers, Said, Usage
from lightning_rm.rlhf.judges import Comparison, Judgement, Verdict

QUESTION = """Compare two assistants' replies to the conversation below. Judge how helpful, correct, harmless and clear
each is. Length and order must not sway you. Explain briefly, then end with exactly one of: [[A]] if A is better, [[B]]
if B is better, [[C]] if neither is.

[Conversation]
{prompt}

[Reply A]
{first}

[Reply B]
{second}"""

PLACES = re.compile(r"\{(prompt|first|second)\}")
SAID = re.compile(r"\[\[([ABC])\]\]")


class EndpointJudge:
    """A judge model behind an OpenAI-compatible endpoint.

    Args:
        url: its address without `/chat/completions`: `http://localhost:8000/v1`.
        model: the server's name for it.
        folder: where `answers.jsonl` is, one line per answer; questions that are answered there are not asked again.
        key: the environment variable that holds the server's key; None for a server that needs none.
        template: the question, with places {prompt}, {first} and {second}, or the path of a file that holds it; None
            for `QUESTION`. The last [[A]], [[B]] or [[C]] of the answer is the verdict; an answer that was cut off has
            none, for a judge that thinks aloud names all three before it decides.
        request: further fields of every request; those that are None are left out.
        max_retries: how often a busy server is asked again.
        requests_per_minute: of all threads together; None for no bound.
        parallel: questions at once.
        timeout: seconds that an answer may take.
        max_unreadable: the largest share of unreadable answers among those that are asked for.
        prompt_price: of a million tokens of questions; None where nobody counts.
        completion_price: of a million tokens of answers.
        clock: a monotonic clock, in seconds.
        sleep: called with the seconds to wait; None to really wait.

    Raises:
        ValueError: for a template without its places, or a setting that cannot work.
    """

    def __init__(
        self,
        url: str,
        model: str,
        folder: str | Path,
        *,
        key: str | None = None,
        template: str | None = None,
        request: Mapping[str, Any] | None = None,
        max_retries: int = 6,
        requests_per_minute: float | None = None,
        parallel: int = 4,
        timeout: float = 120.0,
        max_unreadable: float = 0.1,
        prompt_price: float | None = None,
        completion_price: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        check_counts(1, parallel=parallel)
        if not 0 <= max_unreadable <= 1:
            raise ValueError(f"max_unreadable={max_unreadable}; it is a share of the answers, from 0 to 1")
        if (prompt_price is None) != (completion_price is None):
            raise ValueError("one of prompt_price and completion_price is null; give both, or neither")
        self._template = _template_of(template)
        self._endpoint = ChatEndpoint(
            url,
            model,
            key=key,
            request=request or {},
            max_retries=max_retries,
            requests_per_minute=requests_per_minute,
            timeout=timeout,
            clock=clock,
            sleep=sleep,
        )
        self._protocol = {"url": self._endpoint.url, "model": model, "request": dict(request or {})}
        self._answers = JudgeAnswers(Path(folder) / "answers.jsonl")
        self._parallel, self._max_unreadable = parallel, max_unreadable
        self._prices = None if prompt_price is None or completion_price is None else (prompt_price, completion_price)

    @property
    def digest(self) -> str:
        """Changes with address, model, question and request; not with pace, prices, or where answers are kept."""
        return fingerprint(judge="endpoint", template=self._template, **self._protocol)[:16]

    def __call__(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """Judge both ways round. A comparison has no verdict if one of its answers cannot be read.

        Raises:
            ValueError: if the server does not answer, or more than `max_unreadable` of its answers cannot be read.
        """
        asked = [None if each.response.strip() == each.other.strip() else self._questions(each) for each in comparisons]
        questions = {self._name(question): question for both in asked if both is not None for question in both}
        said = self._said(questions)
        return [
            Judgement("tie" if both is None else verdict_of(said[self._name(both[0])], said[self._name(both[1])]))
            for both in asked
        ]

    def reach(self) -> None:
        """Ask the server for one word, which is not counted, so that a wrong address, key or model shows at once.

        Raises:
            ValueError: if it does not answer.
        """
        self._endpoint.start()
        try:
            self._endpoint.ask("Answer with [[C]].")
        except ValueError as error:
            raise ValueError(f"{error}; is a server there? Look at the judge's url, model and key") from error

    @property
    def url(self) -> str:
        """Where questions go; no key is in it."""
        return self._endpoint.url

    def usage(self) -> Usage:
        """Return what all answers on disk cost."""
        return self._answers.usage(self._prices)

    def _questions(self, compared: Comparison) -> tuple[str, str]:
        prompt = _written(compared.prompt)
        orders = ((compared.response, compared.other), (compared.other, compared.response))
        first, second = (
            # in one pass, so that braces inside a response stay as they are
            PLACES.sub(
                lambda place, said={"prompt": prompt, "first": one, "second": two}: said[place[1]], self._template
            )
            for one, two in orders
        )
        return first, second

    def _name(self, question: str) -> str:
        return fingerprint(question=question, **self._protocol)[:24]

    def _said(self, questions: Mapping[str, str]) -> dict[str, Said | None]:
        """Return the answer to each question; the answers on disk are not asked for again."""
        known = self._answers.known
        bound = self._max_unreadable * len(questions)
        unreadable: list[tuple[str, str]] = []

        def look(name: str) -> None:
            if known[name].said is None:
                unreadable.append((questions[name], known[name].answer))
            if len(unreadable) > bound:
                question, answer = unreadable[0]
                raise ValueError(
                    f"{self._endpoint.url} gives {len(unreadable):,} answers of {len(questions):,} without [[A]], "
                    f"[[B]] or [[C]], or cut off, more than max_unreadable={self._max_unreadable}; the first ends "
                    f"{answer[-200:]!r}, to the question that ends {question[-200:]!r}; mend the "
                    "template, give answers more tokens, or raise max_unreadable"
                )

        for name in questions:
            if name in known:
                look(name)
        left = [name for name in questions if name not in known]
        if left:
            self._endpoint.start()
            pool = ThreadPoolExecutor(self._parallel)
            try:
                tasks = {pool.submit(self._ask, name, questions[name]): name for name in left}
                for task in as_completed(tasks):
                    if isinstance(task.exception(), StoppedError):
                        continue  # what stopped it is raised below
                    task.result()
                    look(tasks[task])
            except BaseException:
                self._endpoint.stop()
                raise
            finally:
                pool.shutdown(cancel_futures=True)  # answers that are under way are paid for: they are still written
        return {name: known[name].said for name in questions}

    def _ask(self, name: str, question: str) -> None:
        try:
            answer = self._endpoint.ask(question)
        except ValueError as error:
            self._endpoint.stop()  # here, before this thread takes the next question
            kept = f"what it has answered is kept in {self._answers.path}: start again to go on"
            raise ValueError(f"{error}; {kept}") from error
        found = [] if answer.is_cut else SAID.findall(answer.text)
        said = found[-1] if found else None
        self._answers.add(
            JudgeAnswer(name, said, answer.text, answer.num_requests, answer.prompt_tokens, answer.completion_tokens)
        )


def verdict_of(first: Said | None, second: Said | None) -> Verdict | None:
    """Return the verdict of two answers: of the response as A, and as B; None if one of them cannot be read.

    A, B -> win; B, A -> lose; all else is a tie: the two answers disagree, or call it one.
    """
    if first is None or second is None:
        return None
    if (first, second) == ("A", "B"):
        return "win"
    return "lose" if (first, second) == ("B", "A") else "tie"


def _written(prompt: Sequence[Message]) -> str:
    return "\n\n".join(f"{turn['role']}: {turn.get('content') or ''}" for turn in prompt)


def _template_of(given: str | None) -> str:
    template = QUESTION if given is None else given
    if given is not None and not PLACES.search(given):
        if Path(given).exists() and not Path(given).is_file():
            raise ValueError(f"template={given!r} has no {{prompt}}, and is not a file")
        try:
            template = Path(given).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"template={given!r} has no {{prompt}}, and is not a file to read: {error}") from error
    missing = [name for name in ("prompt", "first", "second") if f"{{{name}}}" not in template]
    if missing:
        raise ValueError(f"the judge's template has no {{{missing[0]}}}; it needs {{prompt}}, {{first}} and {{second}}")
    return template
