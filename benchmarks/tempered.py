"""NLL of runs that have no validation set, after a temperature.

    python benchmarks/tempered.py test_human runs/hh_recipes/*/*

prints for each run the NLL as it is, two temperatures, each fitted on one half of the test prompts and read on the
other, and the NLL after them, a mean over all pairs. Of runs with a validation set
`lightning-rm report` does this by itself.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import torch

from lightning_rm.losses.temperature import fit_temperature, tempered_nll


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", help="a file of the runs' folder `pairs`, without its ending")
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    print("| run | NLL | temperatures | NLL after them |\n|---|---|---|---|")
    for run in arguments.runs:
        pairs = pq.read_table(run / "pairs" / f"{arguments.set}.parquet")
        margin = torch.tensor(pairs["chosen"].to_numpy() - pairs["rejected"].to_numpy())
        label = torch.tensor(pairs["label"].to_numpy())
        halves = [hashlib.sha1(name.encode()).digest()[0] % 2 for name in pairs["prompt_id"].to_pylist()]
        half = torch.tensor(halves) == 0
        after, found = 0.0, list[str]()
        for there in (half, ~half):
            temperature = fit_temperature(margin[~there], label[~there])
            found.append(f"{temperature:.2f}")
            after += tempered_nll(margin[there], label[there], temperature) * int(there.sum()) / len(margin)
        print(f"| {run} | {tempered_nll(margin, label, 1.0):.3f} | {', '.join(found)} | {after:.3f} |")


if __name__ == "__main__":
    main()
