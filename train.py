"""Train a reward model: `python train.py [key=value ...]`, the same as `lightning-rm train`."""

from lightning_rm.commands.train import main

if __name__ == "__main__":
    main()
