"""UKPConvArg1 as preference pairs: which of two arguments for one side of a debate is the more convincing?

    git clone https://github.com/UKPLab/acl2016-convincing-arguments
    python benchmarks/data/ukp_convarg.py acl2016-convincing-arguments OUT_FOLDER

Source: Habernal and Gurevych, "Which argument is more convincing?", ACL 2016, commit ca9d24e. Licence: CC-BY-4.0; the
arguments come from createdebate.com (CC-BY-3.0) and convinceme.net (public domain).

Reads the folders `data/UKPConvArg1-full-XML` and `data/UKPConvArg1Strict-CSV` and writes, in the order of the source:

- `train.jsonl`, 8,838 pairs: both sides of ten debates;
- `val.jsonl`, 3,129 pairs: both sides of three others (`VAL`);
- `ties.jsonl`, 980 pairs of the debates of `train.jsonl` with as many votes for one argument as for the other.

The three debates in `UNUSED` (2,947 pairs) are set aside for a test and not written. Of the 16,927 annotated pairs
(846 of them without a gold label), 1,704 have as many votes for one argument as for the other, 4 compare an argument
with its own text, and 305 repeat an earlier pair with the same winner; they are left out of the first two, which leaves
14,914. Among these, 50 pairs of texts stand in both orders (32 in train, 15 in val), because copies of one pair were
decided differently.

Chosen is the argument with more votes, not the corpus's estimated gold label. Each line also has `subset` (the name of
the debate side's file), `annotator_votes` (annotators for chosen, for equal, for rejected), `n_annotators` (4 or 5),
`strength` ((for chosen - for rejected) / annotators), `agreement` (for chosen / annotators) and `strict` (the pair is
in the authors' cleaned UKPConvArg1Strict).
"""

from __future__ import annotations

import argparse
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from jsonl import Pair, message, prompt_id, write

VAL = ("gay-marriage", "human-growth-and-development", "is-the-school-uniform")
UNUSED = ("firefox-vs-internet-explorer", "if-your-spouse-committed-murder", "pro-choice-vs-pro-life")
DIGEST = {"train": "c6da3cb6c98da9be", "val": "3343b915d0796f4d", "ties": "68ba94e2d0b8f27b"}


def strict_ids(folder: Path) -> set[str]:
    """The ids of the cleaned pairs. Ids are unique over debates; file names are spelled differently between folders."""
    lines = (line for file in folder.glob("*.csv") for line in file.read_text(encoding="utf-8").split("\n")[1:])
    return {line.split("\t")[0] for line in lines if line}


def read_side(file: Path, strict: set[str], ties: bool) -> Iterator[Pair]:
    """The pairs of one side of one debate that have a winner, or the others, without `id`, repeats included."""
    for pair in ET.parse(file).getroot():
        description = pair.findtext("debateMetaData/description")
        debate = pair.findtext("debateMetaData/title", "") + (f"\n{description}" if description else "")
        side = pair.findtext("arg1/stance", "")
        prompt = [message("user", f"Debate: {debate}\n\nGive a convincing argument for this side: {side}")]
        values = [value.text for value in pair.iter("value")]
        first, second = ((values.count(arg), pair.findtext(f"arg{arg[1]}/text", "")) for arg in ("a1", "a2"))
        (votes, chosen), (votes_against, rejected) = (first, second) if first[0] > second[0] else (second, first)
        if (votes == votes_against) != ties or chosen == rejected:
            continue
        yield {
            "prompt_id": prompt_id(prompt),
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "subset": file.stem,
            "annotator_votes": [votes, values.count("equal"), votes_against],
            "n_annotators": len(values),
            "strength": (votes - votes_against) / len(values),
            "agreement": votes / len(values),
            "strict": pair.findtext("id") in strict,
        }


def read_corpus(clone: Path, ties: bool = False) -> list[Pair]:
    """All pairs of all debates that have a winner, or the others, the first copy of each, numbered in order."""
    files = sorted((clone / "data" / "UKPConvArg1-full-XML").glob("*.xml"))
    if len(files) != 32:
        raise SystemExit(f"{clone}: expected 32 files data/UKPConvArg1-full-XML/*.xml, found {len(files)}.")
    strict = strict_ids(clone / "data" / "UKPConvArg1Strict-CSV")
    first: dict[object, Pair] = {}
    for file in files:
        for pair in read_side(file, strict, ties):
            first.setdefault((pair["prompt_id"], pair["chosen"], pair["rejected"]), pair)
    name = "ukp_convarg-tie" if ties else "ukp_convarg"
    return [{"id": f"{name}-{number:05d}", **pair} for number, pair in enumerate(first.values())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path, help="a clone of UKPLab/acl2016-convincing-arguments")
    parser.add_argument("out", type=Path, help="folder to write train.jsonl and val.jsonl to")
    arguments = parser.parse_args()
    pairs = read_corpus(arguments.clone)
    train = [pair for pair in pairs if not str(pair["subset"]).startswith(VAL + UNUSED)]
    val = [pair for pair in pairs if str(pair["subset"]).startswith(VAL)]
    ties = [
        pair for pair in read_corpus(arguments.clone, ties=True) if not str(pair["subset"]).startswith(VAL + UNUSED)
    ]
    write(arguments.out / "train.jsonl", train, DIGEST["train"])
    write(arguments.out / "val.jsonl", val, DIGEST["val"])
    write(arguments.out / "ties.jsonl", ties, DIGEST["ties"])


if __name__ == "__main__":
    main()
