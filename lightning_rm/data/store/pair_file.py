"""What the Arrow file of tokenised pairs holds: its columns, which the writer and the reader share.

It knows columns and their types; not how rows come in, nor what is read of them.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 9
"""Changes whenever the file's columns, or what they hold, change."""

SCHEMA = pa.schema(
    [
        ("ids", pa.list_(pa.list_(pa.int32()))),  # a list a response: chosen and rejected, or k that are scored
        ("scores", pa.list_(pa.list_(pa.float64()))),  # the same, a number an attribute, NaN for a gap; empty: a pair
        ("prompt_length", pa.int32()),  # tokens of the prompt, at most one less than the shortest sequence has
        ("prompt_key", pa.int64()),  # 64 bits of the digest of prompt_id
        ("subset", pa.int64()),  # index into the subset names
        ("label", pa.float64()),
        ("margin", pa.float64()),  # NaN where the data has none; the same for every float below
        ("weight", pa.float64()),
        ("clean", pa.float64()),
        ("gold_margin", pa.float64()),
        ("strength_mean", pa.float64()),
        ("strength_std", pa.float64()),
        ("votes", pa.list_(pa.float64())),
        ("id", pa.string()),
        ("prompt_id", pa.string()),
        ("origin", pa.string()),  # file and line; empty for made data
        ("source_row", pa.int64()),  # the pair's place among all rows of its source
        ("prompt_text", pa.string()),
        ("texts", pa.list_(pa.string())),  # one a response
    ]
)
"""One row a pair, or k scored responses. A last batch without rows carries the report and the names of subsets and
attributes as its metadata."""
