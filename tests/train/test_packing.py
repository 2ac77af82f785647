"""Rows: nothing lost, nothing twice, items apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.prompt.template import Segment
from medexpert.records import UserError
from medexpert.train.batches import (
    IGNORE,
    Account,
    Piece,
    Plan,
    collate,
    document_pieces,
    example_pieces,
    pack,
    segment_piece,
    text_pieces,
)

EOS = 2


class Letters:
    """A letter a token; a sequence begins with the tokens in `before`."""

    def __init__(self, *before: int) -> None:
        self.before = list(before)

    def more(self, text: str) -> list[int]:
        return [ord(c) % 90 + 5 for c in text]

    def start(self, text: str) -> list[int]:
        return [*self.before, *self.more(text)]


encode = Letters()


def piece(*tokens: int) -> Piece:
    ids = np.asarray(tokens, dtype=np.int32)
    return Piece(ids[:-1], ids[1:])


@given(st.text(min_size=1, max_size=200), st.integers(2, 40))
def test_every_token_of_a_document_is_a_target_once(text: str, length: int) -> None:
    pieces = text_pieces(text, encode, EOS, length)
    whole = [*encode.more(text), EOS]
    assert [t for p in pieces for t in p.targets] == whole[1:]
    assert [t for p in pieces for t in p.inputs] == whole[:-1]
    assert all(len(p) <= length for p in pieces)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.randoms())
def test_pack_uses_every_piece_once_and_fits(lengths: list[int], random: object) -> None:
    order = list(range(len(lengths)))
    random.shuffle(order)  # type: ignore[attr-defined]
    rows = list(pack(lengths, 32, order))
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 32 for row in rows)


def test_pack_refuses_what_cannot_fit() -> None:
    with pytest.raises(ValueError, match="piece of 40 tokens in rows of 32"):
        list(pack([40], 32, [0]))


@given(
    st.lists(st.integers(2, 20), min_size=1, max_size=40),
    st.integers(0, 5),
    st.sampled_from([1.0, 2.0]),
    st.booleans(),
)
@settings(max_examples=50)
def test_plan_feeds_every_piece_once_an_epoch(
    lengths: list[int], seed: int, epochs: float, shuffle: bool
) -> None:
    pieces = [piece(*range(n + 1)) for n in lengths]
    plan = Plan(
        pieces, capacity=24, epochs=epochs, max_tokens=0, rows_per_step=3, seed=seed,
        shuffle=shuffle,
    )  # fmt: skip
    fed = [i for step in range(plan.steps) for row in plan.step_rows(step) for i in row]
    assert sorted(fed) == sorted(list(range(len(pieces))) * int(epochs))
    assert plan.tokens == epochs * sum(lengths)
    batches = [b for step in range(plan.steps) for b in plan.batches(step, 2, pad=0)]
    assert sum(b.loss_tokens for b in batches) == plan.tokens


def test_plan_is_a_pure_function_of_its_arguments_and_stops_at_the_cap() -> None:
    pieces = [piece(*range(n + 1)) for n in range(2, 30)]
    plans = [
        Plan(pieces, capacity=40, epochs=3, max_tokens=200, rows_per_step=2, seed=7, shuffle=True)
        for _ in range(2)
    ]
    assert plans[0].rows == plans[1].rows
    assert 200 <= plans[0].tokens < 240


def test_plan_without_data_says_so() -> None:
    with pytest.raises(UserError, match="no training data is left"):
        Plan([], capacity=8, epochs=1, max_tokens=0, rows_per_step=1, seed=0, shuffle=False)


def test_only_learned_segments_are_targets_and_the_tail_is_not_fed() -> None:
    made = segment_piece(
        [Segment("ab", False), Segment("cd", True), Segment("ef", False), Segment("g", True),
         Segment("hi", False)], encode,
    )  # fmt: skip
    shown = [chr((t - 5) % 90 + 90) if t != IGNORE else "." for t in made.targets]
    assert "".join(shown).lower() == ".cd..g"
    assert len(made.inputs) == 6


def test_long_or_empty_examples_are_counted_not_cut() -> None:
    account = Account()
    rendered = [
        [Segment("a" * 50, False), Segment("b", True)],
        [Segment("abc", False)],
        [Segment("ab", False), Segment("c", True)],
    ]
    kept = example_pieces((lambda r=r: r for r in rendered), encode, 16, account)
    assert len(kept) == 1
    assert account.items == 3
    assert dict(account.dropped) == {"longer than sequence_length": 1, "nothing to learn": 1}


def test_what_the_tokenizer_puts_first_stands_once_before_the_first_segment() -> None:
    made = segment_piece([Segment("ab", False), Segment("cd", True)], Letters(1))
    assert made.inputs.tolist() == [1, *encode.more("abc")]
    assert made.targets.tolist() == [IGNORE, IGNORE, *encode.more("cd")]
    (piece_of_text,) = text_pieces("ab", Letters(1), EOS, 9)
    assert piece_of_text.inputs.tolist() == [1, *encode.more("ab")]


def test_a_cap_stops_reading_and_counts_the_rest() -> None:
    account = Account()
    pieces = document_pieces(["abcd"] * 9, encode, EOS, 16, account, cap=10)
    assert sum(len(p) for p in pieces) == 12
    assert (account.items, account.not_read) == (3, 6)


def test_document_account_adds_up() -> None:
    account = Account()
    document_pieces(["abc", "d" * 40], encode, EOS, 16, account)
    assert (account.items, account.split_items, account.tokens) == (2, 1, 43)
    assert account.loss_tokens == 43


def test_packed_items_do_not_see_each_other(tiny_model: object) -> None:
    model = tiny_model()  # type: ignore[operator]
    items = [piece(5, 6, 7, 8, 9), piece(20, 21, 22), piece(40, 41, 42, 43)]
    batch = collate([items, items[:1]], pad=0)
    assert batch.padding == 5
    with torch.no_grad():
        packed = model(
            input_ids=batch.inputs, position_ids=batch.positions, use_cache=False
        ).logits  # (2, 9, V)
        at = 0
        for item in items:
            alone = model(input_ids=torch.tensor(item.inputs)[None].long(), use_cache=False).logits
            torch.testing.assert_close(packed[0, at : at + len(item)], alone[0])
            at += len(item)
        first = model(input_ids=torch.tensor(items[0].inputs)[None].long(), use_cache=False).logits
        torch.testing.assert_close(packed[1, : len(items[0])], first[0])
