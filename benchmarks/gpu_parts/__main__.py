"""Run one part: `python -m gpu_parts equality --cases FILE --seconds 90`. `benchmarks/gpu.py` does."""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from importlib import import_module
from pathlib import Path

from gpu_parts.results import PARTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    if arguments.tiny:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what is tried is the CPU's way, also where there is a GPU
    warnings.simplefilter("ignore")
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    part = import_module(f"gpu_parts.{arguments.part}")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # which says what it is on its import
    part.main(arguments.cases, arguments.seconds, arguments.tiny)


if __name__ == "__main__":
    main()
