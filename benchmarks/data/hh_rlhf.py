"""HH-RLHF with a second label by GPT-3.5: the same pairs judged by a human and by a model.

    hf download Anthropic/hh-rlhf --repo-type dataset --include "*-base/test.jsonl.gz" --local-dir hh-rlhf
    git clone https://github.com/cassidylaidlaw/hidden-context
    python benchmarks/data/hh_rlhf.py hh-rlhf hidden-context OUT_FOLDER

Sources: Bai et al., "Training a Helpful and Harmless Assistant with RLHF", arXiv:2204.05862, test files of
`harmless-base` and `helpful-base` (MIT); Siththaranjan, Laidlaw and Hadfield-Menell, "Distributional Preference
Learning", arXiv:2312.08358, file `data/relabeled_hh_rlhf/both/test.jsonl.gz` (no licence stated), commit 13c98bb, which
labels most of those pairs again with GPT-3.5, each for one objective, helpful or harmless.

Writes, in the order of the source:

- `train.jsonl`, 3,342 pairs, of which 2,721 have a second label;
- `half.jsonl`, one half of them drawn at random, 1,671 pairs, which voters and recipes are trained on;
- `rest.jsonl`, the other half without a pair whose prompt stands in the first, 1,670;
- `val.jsonl`, 600 pairs that all have a second label, for the objective the human had.

Of the 4,666 pairs, 14 have two prompts, 8 an empty response and 2 one response twice; they are left out, which leaves
4,642. Of these, 2,099 have a second label for the human's own objective: 600 of them are val, and 700 are set aside
for a test and not written. The splits are draws, stored here as bits (`VAL`, `UNUSED`, `HALF`).

Chosen is the human's choice. Each line also has `subset` (helpful or harmless: what the human was asked), `n_turns`
(user turns in the prompt) and, where there is a second label, `gpt35_objective` and `gpt35_agrees`. Two second labels
are dropped because the relabelled text is not the original one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from jsonl import Pair, message, prompt_id, write

SPEAKER = re.compile(r"\n\n(Human|Assistant):")
ROLE = {"Human": "user", "Assistant": "assistant"}
DIGEST = {
    "train": "8d96c244a09836ba",
    "half": "a2aa84f172dfd7e5",
    "rest": "9d078e02c1eb6b4a",
    "val": "b132780db944376d",
}

# Bit k, lowest first, is the k-th pair in order whose second label is for the human's objective.
VAL = int(
    "060c5d83302244203d8431341800a5ca240c631e2020714c9b2c08501a425c2f1071b24ac2060880001847802057680c700342008"
    "06ac085240dea3d020010124059700212294401014ca8dd82882418000a90420403082193024802400389900811501004134d5910"
    "60443a9420080a84804e30bb545b02b40190338800220bc00014420288c8309444a6ec2b48000018145240d6774b886007068b9f5"
    "06140080a0aa00050000c1c10a2801c140c0cac80045008e08a110a0e7235009a8d00f4d680d00114a0000a113a4c2a6016410024"
    "020100411382451103409683d0180aa00c4099424811011049080878813c09888102025a1c1be000004001c030203102222663090",
    16,
)
UNUSED = int(
    "29d1004c4998b9de42604c0a67f84005c9101441ddda0e8064d21228c4242200e804450001f084083943180bdd8815320244b48b3"
    "9950a685b3214c06514658815260f40c446099452a044004066ca456e112b8cd1286292444835b1be907049512288e999041000c1"
    "9bb280680785900811100f40a80451425e068024200cf0342401898107124d0b18110214b08830e5602cb0088084571468991000a"
    "40a3690410143f521a30082824427402ad2b2100de00e341660e4c4018188202512b703005627fa68457341e80031409888a0d781"
    "11c00b1e2c1188a238af080c0f25141622804024b6c20a810454030158c140105220b8850260131a51b3fa1a850180489dd900441",
    16,
)

# Bit k, lowest first, is the k-th pair of train.
HALF = int(
    "292357e33a9294a46de52b60bd02f326f49008b93c67e56b9722b222340d0251c6303f7607835d17b08cf165fbd018fe7ad29488e"
    "0dec13b613be3af78e090cb7126b442719f44bd35b44ae3e5948e4421c4e1087403692584146bafed5655fd2b880cd98d3874d0a0"
    "9def34b5477fc7cea8f6ede302b2319a5e141b813bed33d7720934af8c61f65cf8a01678ef052d7cbcb34cf9343105f038a4363b6"
    "e4b4c6dd3c9692274334615295227daec61712cbac3feddb7f2f31d13ebfdc1893aad7374dcacae3252e83948f6550eb5fe025157"
    "422791f1f1e084e452b799c91661610ca2fcaa5ad79c6d116e1ed86ee827bec6d1afdd791201b3ef97210f453daa2ccc27c5f3008"
    "b3e928af39fd9c47c67963a69116751ac277a904cf74dfbb11979351de28a58cd00cf8eb22040a31f76c5ef05209ef16b596f41ee"
    "51e7c8049f9841a9c99404cfc72fd187b5d23271b72792e0b42dde59f700a6675117e8844ca326948aaff87e30f1d28fb67953f87"
    "f9c09e6a35281fa2eb0f8a9a658527cec37011f593ea05448599d89d90c94f76878f9a33f74e765cfed113643497a4d879de9",
    16,
)


class SecondLabel(TypedDict):
    """A line of the relabelled file, as far as it is read here."""

    Index: int
    responses: list[str]
    original_label: int
    label: int
    objective: str


def read_lines(file: Path) -> list[str]:
    if not file.exists():
        raise SystemExit(f"{file} is missing; the head of this script says where to get it.")
    return gzip.decompress(file.read_bytes()).decode().strip("\n").split("\n")


def read_turns(text: str) -> list[dict[str, str]]:
    """Splits a transcript at its speakers; the last turn is the response."""
    pieces = SPEAKER.split(text)
    return [message(ROLE[who], said.strip()) for who, said in zip(pieces[1::2], pieces[2::2], strict=True)]


def read_pairs(hh_rlhf: Path, second: dict[int, SecondLabel]) -> Iterator[Pair]:
    """The usable pairs in order, harmless first. `second` is keyed by a pair's place among all 4,666."""
    sources = [
        (name, line) for name in ("harmless", "helpful") for line in read_lines(hh_rlhf / f"{name}-base/test.jsonl.gz")
    ]
    number = 0
    for index, (subset, line) in enumerate(sources):
        raw: dict[str, str] = json.loads(line)
        (*prompt, chosen), (*other_prompt, rejected) = read_turns(raw["chosen"]), read_turns(raw["rejected"])
        texts = [chosen["content"], rejected["content"]]
        if prompt != other_prompt or not all(texts) or texts[0] == texts[1]:
            continue
        pair: dict[str, object] = {
            "id": f"hh_rlhf-{number:05d}",
            "prompt_id": prompt_id(prompt),
            "prompt": prompt,
            "chosen": texts[0],
            "rejected": texts[1],
            "subset": subset,
            "n_turns": sum(turn["role"] == "user" for turn in prompt),
        }
        label = second.get(index)
        if label and sorted(text.strip() for text in label["responses"]) == sorted(texts):
            pair["gpt35_objective"] = label["objective"]
            pair["gpt35_agrees"] = label["label"] == label["original_label"]
        number += 1
        yield pair


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hh_rlhf", type=Path, help="folder with harmless-base/ and helpful-base/ of Anthropic/hh-rlhf")
    parser.add_argument("hidden_context", type=Path, help="a clone of cassidylaidlaw/hidden-context")
    parser.add_argument("out", type=Path, help="folder to write train, half, rest and val.jsonl to")
    arguments = parser.parse_args()
    labels: list[SecondLabel] = [
        json.loads(line) for line in read_lines(arguments.hidden_context / "data/relabeled_hh_rlhf/both/test.jsonl.gz")
    ]
    train: list[Pair] = []
    val: list[Pair] = []
    place = 0
    for pair in read_pairs(arguments.hh_rlhf, {label["Index"]: label for label in labels}):
        drawn = pair.get("gpt35_objective") == pair["subset"]
        if drawn and VAL >> place & 1:
            val.append(pair)
        elif not (drawn and UNUSED >> place & 1):
            train.append(pair)
        place += drawn
    half = [pair for place, pair in enumerate(train) if HALF >> place & 1]
    prompts = {pair["prompt_id"] for pair in half}
    rest = [pair for pair in train if pair["prompt_id"] not in prompts]
    for name, pairs in {"train": train, "half": half, "rest": rest, "val": val}.items():
        write(arguments.out / f"{name}.jsonl", pairs, DIGEST[name])


if __name__ == "__main__":
    main()
