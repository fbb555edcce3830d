"""Leaves out what Lightning says of itself among what a run says: tips to install another package, and warnings of
which nobody who trains can do anything.
"""

from __future__ import annotations

import logging
import warnings

LOGGER = "lightning.pytorch.utilities.rank_zero"
"""The logger that Lightning's messages of rank 0 go through."""

WARNINGS = (
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", r"lightning\.pytorch\.utilities\._pytree"),
    ("Total length of `list` across ranks is zero", r"lightning\.pytorch\.utilities\.data"),  # of no validation sets
    # That weights should not be sharded, which `callbacks.averages` checks.
    ("You're using the WeightAveraging callback with a model", r"lightning\.pytorch\.callbacks\.weight_averaging"),
)
"""How they begin, and Lightning's module that gives them: from another they are heard."""


def is_no_tip(record: logging.LogRecord) -> bool:
    """Tell whether a message is no advertisement."""
    return not record.getMessage().startswith("💡 Tip:")


def leave_out_tips() -> None:
    """Leave tips and warnings out of what Lightning says in this process; calling it again changes nothing."""
    logging.getLogger(LOGGER).addFilter(is_no_tip)
    for message, module in WARNINGS:
        warnings.filterwarnings("ignore", message, module=module)
