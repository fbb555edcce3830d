"""Leaves out Lightning's tips to install another package, which stand among what a run says of itself."""

from __future__ import annotations

import logging

LOGGER = "lightning.pytorch.utilities.rank_zero"
"""The logger that Lightning's messages of rank 0 go through."""


def is_no_tip(record: logging.LogRecord) -> bool:
    """Tell whether a message is no advertisement."""
    return not record.getMessage().startswith("💡 Tip:")


def leave_out_tips() -> None:
    """Leave tips out of what Lightning logs in this process; calling it again changes nothing."""
    logging.getLogger(LOGGER).addFilter(is_no_tip)
