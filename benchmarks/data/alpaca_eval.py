"""AlpacaEval 2's annotations as preference pairs with a graded label: how sure is the judge of each preference?

    git clone https://github.com/tatsu-lab/alpaca_eval
    python benchmarks/data/alpaca_eval.py alpaca_eval OUT_FOLDER

Source: Dubois et al., "Length-Controlled AlpacaEval", COLM 2024 (arXiv 2404.04475), commit cd543a1. Licence of
the data: CC-BY-NC-4.0.

For 805 instructions the answers of many models were each compared with one of GPT-4 Turbo by GPT-4 Turbo, whose
probabilities of the two verdicts give `preference`, 1 + the probability that the model's answer is the better. The
script reads `results/MODEL/weighted_alpaca_eval_gpt4_turbo/annotations.json` of `MODELS` and writes

- `train.jsonl`, 5,281 pairs of four fifths of the instructions;
- `val.jsonl`, 1,333 pairs of every fifth instruction.

Of an instruction the first five answers that lost and the first five that won are taken, in an order of models that
starts one model later for each instruction; so either of the two writers is chosen about as often. Left out are answers
that are empty or equal to the other, and preferences of exactly one half.

Chosen is the answer that the judge prefers. Each line also has `subset` (AlpacaEval's data set), `p_chosen` (the
probability of the judge's verdict, from one half to 1), `chosen_model` and `rejected_model`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from jsonl import Pair, message, prompt_id, write

BASELINE = "gpt4_1106_preview"
MODELS = (
    *("FuseChat-Gemma-2-9B-Instruct", "FuseChat-Llama-3.1-8B-Instruct", "FuseChat-Llama-3.2-1B-Instruct"),
    *("FuseChat-Llama-3.2-3B-Instruct", "FuseChat-Qwen-2.5-7B-Instruct", "Mixtral-8x7B-Instruct-v0.1_concise"),
    *("OpenHermes-2.5-Mistral-7B", "Qwen-14B-Chat", "claude", "claude-2", "claude-2.1", "claude-instant-1.2"),
    *("falcon-40b-instruct", "gemma-2b-it", "gemma-7b-it", "gpt-3.5-turbo-0301", "gpt-3.5-turbo-1106"),
    *("gpt35_turbo_instruct", "gpt4_0613_concise", "humpback-llama2-70b", "jina-chat", "minichat-3b"),
    *("nous-hermes-13b", "oasst-rlhf-llama-33b", "openbuddy-llama2-70b-v10.1", "phi-2", "text_davinci_003"),
    *("ultralm-13b", "vicuna-13b-v1.5", "wizardlm-13b"),
)
A_SIDE = 5
"""Pairs of an instruction that each of the two writers wins, at most."""
DIGEST = {"train": "6ba82c099c9e1d13", "val": "dfc52e467e1f9952"}

Annotation = Mapping[str, object]


def read_model(clone: Path, model: str) -> dict[str, Annotation]:
    """A model's annotations by instruction."""
    file = clone / "results" / model / "weighted_alpaca_eval_gpt4_turbo" / "annotations.json"
    if not file.exists():
        raise SystemExit(f"{file} is missing: is {clone} a clone of tatsu-lab/alpaca_eval?")
    return {str(row["instruction"]): row for row in json.loads(file.read_text(encoding="utf-8"))}


def pair_of(row: Annotation, model: str) -> Pair | None:
    """The pair of an annotation, without `id`; None where it prefers neither or there are no two answers."""
    answers = str(row["output_1"]), str(row["output_2"])
    if row["preference"] is None or answers[0] == answers[1] or not all(answer.strip() for answer in answers):
        return None
    if row["generator_1"] != BASELINE:
        raise SystemExit(f"{model}: compared with {row['generator_1']}, not with {BASELINE}.")
    p_model = float(str(row["preference"])) - 1
    if p_model == 0.5:
        return None
    written = (answers[0], BASELINE), (answers[1], model)
    (chosen, writer), (rejected, other) = written[::-1] if p_model > 0.5 else written
    prompt = [message("user", str(row["instruction"]))]
    return {
        "prompt_id": prompt_id(prompt),
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "subset": row["dataset"],
        "p_chosen": max(p_model, 1 - p_model),
        "chosen_model": writer,
        "rejected_model": other,
    }


def choose(candidates: list[Pair]) -> list[Pair]:
    """The first pairs that the baseline wins and the first that it loses."""
    wins = [pair for pair in candidates if pair["chosen_model"] == BASELINE][:A_SIDE]
    losses = [pair for pair in candidates if pair["chosen_model"] != BASELINE][:A_SIDE]
    return wins + losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path, help="a clone of tatsu-lab/alpaca_eval")
    parser.add_argument("out", type=Path, help="folder to write train.jsonl and val.jsonl to")
    arguments = parser.parse_args()
    annotations = {model: read_model(arguments.clone, model) for model in MODELS}
    split: dict[str, list[Pair]] = {"train": [], "val": []}
    for number, instruction in enumerate(sorted(set.union(*(set(of) for of in annotations.values())))):
        turned = MODELS[number % len(MODELS) :] + MODELS[: number % len(MODELS)]
        asked = ((model, annotations[model].get(instruction)) for model in turned)
        pairs = (pair_of(row, model) for model, row in asked if row is not None)
        split["train" if number % 5 else "val"] += choose([pair for pair in pairs if pair is not None])
    for name, pairs in split.items():
        rows = [{"id": f"alpaca_eval-{name}-{number:05d}", **pair} for number, pair in enumerate(pairs)]
        write(arguments.out / f"{name}.jsonl", rows, DIGEST[name])


if __name__ == "__main__":
    main()
