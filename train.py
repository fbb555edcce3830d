"""Train a reward model: `python train.py [key=value ...]`, the same as `lightning-rm train`."""

import sys

from lightning_rm.commands.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
