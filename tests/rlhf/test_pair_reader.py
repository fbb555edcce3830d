"""Where a response begins and ends among the tokens of a conversation."""

from __future__ import annotations

from lightning_rm.rlhf.pair_reader import split_at_response


def test_a_response_begins_where_tokens_differ_and_ends_where_it_was_ended() -> None:
    assert split_at_response([1, 5, 7], [1, 5, 7, 4, 9, 2, 6], [2]) == ([1, 5, 7], [4, 9, 2])
    assert split_at_response([1, 5, 8], [1, 5, 7, 4], [2]) == ([1, 5], [7, 4])
    assert split_at_response([], [1, 5], [2]) == ([1], [5])
