"""How large one row may be: every bound on input. A row beyond one is refused with an error that names its line.

Tokenising takes two hundred times the memory of a text, so a bound has to come first. None of these is met by a
conversation that a reward model could read.
"""

from __future__ import annotations

MIB = 2**20

MAX_LINE_BYTES = 32 * MIB
"""The longest line of a JSONL file: a prompt, two responses, and whatever other fields it has."""

MAX_CHARACTERS = 2 * MIB
"""The most characters of a prompt, or of one response: half a million tokens."""

MAX_CALL_CHARACTERS = MIB
"""The most characters tokenised in one call, which takes 200 bytes for each; a longer text gets a call of its own."""

MAX_CHUNK_CHARACTERS = 16 * MIB
"""The most characters of the rows that are held in memory at a time while they are tokenised."""

MAX_DEPTH = 64
"""How deep lists and objects may nest in a row. Tool schemas nest to ten; templates recurse on them."""

MAX_ARRAY_BYTES = 2048 * MIB
"""The largest file that holds one JSON array, which is read whole. Files with one row a line have no such bound."""

MAX_EXPANSION = 200
"""How many times its size a gzip file, or a row group of a Parquet file, may unpack to.

Text packs to a fifth; a bomb unpacks to a thousand times.
"""

MAX_RUN_VALUES = 2**25
"""The most lists in a Parquet row group, which take less than a byte each: a run of equal ones is unpacked whole."""

FREE_EXPANSION_BYTES = 64 * MIB
"""What any of these files may unpack to, whatever its size: a few repeated rows pack very small."""
