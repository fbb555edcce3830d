"""Duplicate rows, rows that contradict each other, and cycles of preferences among a prompt's responses.

Texts are compared by their digests (`facts`): exactly, or nearly, ignoring case, blanks and punctuation. It knows only
digests.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Key = tuple[bytes, bytes, bytes]
"""Digests of prompt, chosen and rejected."""

UNREAD: Key = (b"", b"", b"")
"""Stands for a row that cannot be read."""


class Conflicts(NamedTuple):
    """What was found among R rows.

    Args:
        duplicates: rows that repeat an earlier one word for word.
        near_duplicates: rows that repeat an earlier one but for case, blanks and punctuation.
        contradictions: pairs of responses that are preferred both ways.
        rows_contradicted: the rows of these pairs, by place.
        cycles: sets of responses to one prompt, three or more, of which each is preferred to another and the last to
            the first.
        rows_in_cycles: the rows among such a set, by place.
    """

    duplicates: int
    near_duplicates: int
    contradictions: int
    rows_contradicted: list[int]
    cycles: int
    rows_in_cycles: list[int]


def find_conflicts(exact: Sequence[Key], near: Sequence[Key]) -> Conflicts:
    """Find what repeats and what contradicts itself.

    Args:
        exact: digests of each row's texts as they are.
        near: digests that ignore case, blanks and punctuation.
    """
    num_exact = _num_repeats(exact)
    rows_of: dict[Key, list[int]] = defaultdict(list)
    for place, key in enumerate(near):
        if key != UNREAD:
            rows_of[key].append(place)
    turned = {key: (key[0], key[2], key[1]) for key in rows_of if key[1] != key[2]}
    both_ways = {key for key, other in turned.items() if other in rows_of}
    contradicted = sorted(place for key in both_ways for place in rows_of[key])
    cycles, in_cycles = _find_cycles(rows_of)
    return Conflicts(
        num_exact, _num_repeats(near) - num_exact, len(both_ways) // 2, contradicted, cycles, sorted(in_cycles)
    )


def _find_cycles(rows_of: Mapping[Key, Sequence[int]]) -> tuple[int, list[int]]:
    """Count the cycles of three responses or more, and return the rows among them."""
    graphs: dict[bytes, dict[bytes, set[bytes]]] = defaultdict(lambda: defaultdict(set))
    for prompt, chosen, rejected in rows_of:
        graphs[prompt][chosen].add(rejected)
    cycles = 0
    in_cycles: list[int] = []
    for prompt, better_than in graphs.items():
        for group in (group for group in _components(better_than) if len(group) > 2):
            cycles += 1
            in_cycles += [
                place
                for chosen in group
                for rejected in better_than.get(chosen, ())
                if rejected in group
                for place in rows_of[prompt, chosen, rejected]
            ]
    return cycles, in_cycles


def _num_repeats(keys: Sequence[Key]) -> int:
    return sum(count - 1 for count in Counter(key for key in keys if key != UNREAD).values())


def _components(edges: dict[bytes, set[bytes]]) -> list[set[bytes]]:
    """Return sets of nodes that lead to each other (Tarjan 1972), without recursion."""
    index: dict[bytes, int] = {}
    low: dict[bytes, int] = {}
    stack: list[bytes] = []
    on_stack: set[bytes] = set()
    found: list[set[bytes]] = []
    for root in list(edges):
        if root in index:
            continue
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        work = [(root, iter(sorted(edges.get(root, ()))))]
        while work:
            node, ahead = work[-1]
            for other in ahead:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(sorted(edges.get(other, ())))))
                    break
                if other in on_stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    group: set[bytes] = set()
                    while node not in group:
                        group.add(stack.pop())
                    on_stack -= group
                    found.append(group)
    return found
