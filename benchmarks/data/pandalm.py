"""PandaLM's test set: which of two language models' responses do people prefer?

    git clone https://github.com/WeOpenML/PandaLM
    python benchmarks/data/pandalm.py PandaLM OUT_FOLDER

Source: Wang et al., "PandaLM: An Automatic Evaluation Benchmark for LLM Instruction Tuning Optimization", ICLR 2024,
arXiv:2306.05087, commit 3871806. Licence: Apache-2.0. The instructions come from the human evaluation of
`yizhongw/self-instruct`; five models (bloom-7b, cerebras-gpt-6.7B, llama-7b, opt-7b, pythia-6.9b) answer them.

Reads `data/testset-v1.json`, 999 pairs with three annotators each, and writes, in the order of the source:

- `val.jsonl`, 775 pairs;
- `responses.jsonl`, the responses of these pairs by their 156 prompts, without labels: 2 to 11 different ones each.

Left out are 85 pairs that all annotators call equal, 53 with an empty response, 6 with a response that is a truth value
in the source and no text, and 80 that repeat an earlier pair with the same winner. No pair stands in both orders.

Chosen is the response that more annotators prefer: in 674 pairs all three, in 86 two, in 15 one while two call the pair
equal. Each line also has `subset` (the application that the instruction is written for), `annotator_votes` (annotators
for chosen, for equal, for rejected), `n_annotators`, `strength` ((for chosen - for rejected) / annotators), `agreement`
(for chosen / annotators) and `models` (the two models, in the order of the source). A line of `responses.jsonl` has
`prompt_id`, `prompt` and `responses`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from jsonl import Pair, message, prompt_id, write

DIGEST = {"val": "c84a88b3b78e370e", "responses": "ac4da64fb93dcb3f"}


class Comparison(TypedDict):
    """An item of the source file, as far as it is read here. A label is 1 or 2, the better response, or 0, equal."""

    motivation_app: str
    cmp_key: str
    instruction: str
    input: str
    response1: str | bool
    response2: str | bool
    annotator1: int
    annotator2: int
    annotator3: int


class Group(TypedDict):
    """One line of `responses.jsonl`."""

    prompt_id: str
    prompt: object
    responses: list[str]


def read_pairs(source: Sequence[Comparison]) -> Iterator[Pair]:
    """The pairs of two texts that have a winner, without `id`, repeats included."""
    for item in source:
        labels = [item["annotator1"], item["annotator2"], item["annotator3"]]
        first, second = (labels.count(1), item["response1"]), (labels.count(2), item["response2"])
        (votes, chosen), (votes_against, rejected) = (first, second) if first[0] > second[0] else (second, first)
        if votes == votes_against or not all(isinstance(text, str) and text.strip() for text in (chosen, rejected)):
            continue
        prompt = [message("user", "\n\n".join(text for text in (item["instruction"], item["input"]) if text))]
        yield {
            "prompt_id": prompt_id(prompt),
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "subset": item["motivation_app"],
            "annotator_votes": [votes, labels.count(0), votes_against],
            "n_annotators": len(labels),
            "strength": (votes - votes_against) / len(labels),
            "agreement": votes / len(labels),
            "models": item["cmp_key"],
        }


def read_test_set(clone: Path) -> list[Pair]:
    """The first copy of each pair, numbered in order."""
    file = clone / "data" / "testset-v1.json"
    if not file.exists():
        raise SystemExit(f"{file} is missing; the head of this script says where to get it.")
    first: dict[object, Pair] = {}
    for pair in read_pairs(json.loads(file.read_text(encoding="utf-8"))):
        first.setdefault((pair["prompt_id"], pair["chosen"], pair["rejected"]), pair)
    return [{"id": f"pandalm-{number:05d}", **pair} for number, pair in enumerate(first.values())]


def group_responses(pairs: Sequence[Pair]) -> list[Group]:
    """Each prompt with its different responses, both in the order in which they first come, chosen before rejected."""
    groups: dict[str, Group] = {}
    for pair in pairs:
        name = str(pair["prompt_id"])
        group = groups.setdefault(name, {"prompt_id": name, "prompt": pair["prompt"], "responses": []})
        group["responses"] += [
            text for text in (str(pair["chosen"]), str(pair["rejected"])) if text not in group["responses"]
        ]
    return list(groups.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path, help="a clone of WeOpenML/PandaLM")
    parser.add_argument("out", type=Path, help="folder to write val.jsonl and responses.jsonl to")
    arguments = parser.parse_args()
    pairs = read_test_set(arguments.clone)
    write(arguments.out / "val.jsonl", pairs, DIGEST["val"])
    groups, keys = group_responses(pairs), ("prompt", "responses")
    write(arguments.out / "responses.jsonl", groups, DIGEST["responses"], what="prompts", keys=keys)


if __name__ == "__main__":
    main()
