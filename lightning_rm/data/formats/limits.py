"""How large one row may be. All bounds on input stand here; what is beyond one is refused by its line, in words.

Tokenising takes two hundred times the memory of a text, so a bound has to come first. None of these is met by a
conversation that a reward model could read.
"""

from __future__ import annotations

MIB = 2**20

MAX_LINE_BYTES = 32 * MIB
"""Of one line of a JSONL file: a prompt, two responses, and whatever stands beside them."""

MAX_CHARACTERS = 2 * MIB
"""Of a prompt, or of one response: half a million tokens."""

MAX_CALL_CHARACTERS = MIB
"""Of the texts that are tokenised in one call, which takes 200 bytes a character; a longer text goes alone."""

MAX_CHUNK_CHARACTERS = 16 * MIB
"""Of the rows that are in memory at a time on their way to token ids."""

MAX_DEPTH = 64
"""The depth of nested lists and objects in a row. Schemas of tools nest to ten; templates recurse on them."""

MAX_ARRAY_BYTES = 2048 * MIB
"""Of a file that holds one JSON array, which is read whole. Files with one row on each line have no such bound."""

MAX_EXPANSION = 200
"""How many times its size a gzip file, or a row group of a Parquet file, may unpack to.

Text packs to a fifth; a bomb unpacks to a thousand times.
"""

MAX_RUN_VALUES = 2**25
"""Of the lists in a Parquet row group, of less than a byte each: a run of equal ones is unpacked whole."""

FREE_EXPANSION_BYTES = 64 * MIB
"""What any of them may unpack to: a few repeated rows pack very small."""
