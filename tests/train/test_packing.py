"""Pieces and batches: nothing lost, nothing twice, items apart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medexpert.prompt.template import Segment
from medexpert.train.batches import (
    IGNORE,
    Account,
    Encoder,
    Piece,
    collate,
    document_pieces,
    segment_piece,
    tokenised,
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


def text_pieces(text: str, encoder: Encoder, length: int) -> list[Piece]:
    return list(document_pieces([text], encoder, EOS, length, Account()))


@given(st.text(min_size=1, max_size=200), st.integers(2, 40))
def test_every_token_of_a_document_is_a_target_once(text: str, length: int) -> None:
    pieces = text_pieces(text, encode, length)
    whole = [*encode.more(text), EOS]
    assert [t for p in pieces for t in p.targets] == whole[1:]
    assert [t for p in pieces for t in p.inputs] == whole[:-1]
    assert all(len(p) <= length for p in pieces)


def test_only_learned_segments_are_targets_and_the_tail_is_not_fed() -> None:
    made = segment_piece(
        [Segment("ab", False), Segment("cd", True), Segment("ef", False), Segment("g", True),
         Segment("hi", False)], encode,
    )  # fmt: skip
    shown = [chr((t - 5) % 90 + 90) if t != IGNORE else "." for t in made.targets]
    assert "".join(shown).lower() == ".cd..g"
    assert len(made.inputs) == 6


def test_what_the_tokenizer_puts_first_stands_once_before_the_first_segment() -> None:
    made = segment_piece([Segment("ab", False), Segment("cd", True)], Letters(1))
    assert made.inputs.tolist() == [1, *encode.more("abc")]
    assert made.targets.tolist() == [IGNORE, IGNORE, *encode.more("cd")]
    (piece_of_text,) = text_pieces("ab", Letters(1), 9)
    assert piece_of_text.inputs.tolist() == [1, *encode.more("ab")]


class Many(Letters):
    """The same, many texts in one call; remembers what it was asked."""

    def __init__(self, *before: int) -> None:
        super().__init__(*before)
        self.asked: list[int] = []

    def starts(self, texts: Sequence[str]) -> list[list[int]]:
        self.asked.append(len(texts))
        return [self.start(text) for text in texts]


@pytest.mark.parametrize("encoder", [Letters(1), Many(1)])
def test_a_cap_stops_reading_and_counts_the_rest(encoder: Letters) -> None:
    account = Account()
    pieces = list(document_pieces(["abcd"] * 200, encoder, EOS, 16, account, cap=11))
    assert sum(len(p) for p in pieces) == 15
    assert (account.items, account.not_read) == (3, 197)
    assert getattr(encoder, "asked", [64]) == [64]


def test_many_texts_at_once_give_the_same_pieces() -> None:
    texts = ["x" * n for n in range(1, 150)]
    one, many = Account(), Account()
    encoder = Many(7)
    wanted = list(document_pieces(texts, Letters(7), EOS, 20, one))
    made = list(document_pieces(texts, encoder, EOS, 20, many))
    assert [p.inputs.tolist() for p in made] == [p.inputs.tolist() for p in wanted]
    assert encoder.asked == [64, 64, 21]
    assert one == many
    assert [text for text, _ in tokenised(texts, encoder, Account())] == texts


def test_documents_are_read_only_as_far_as_their_pieces_are_taken() -> None:
    taken = []

    def texts() -> Iterator[str]:
        for number in range(1000):
            taken.append(number)
            yield "abc"

    pieces = document_pieces(texts(), encode, EOS, 16, Account())
    next(pieces)
    assert len(taken) == 64


@given(st.lists(st.text(max_size=60), max_size=20), st.integers(2, 40), st.integers(0, 200))
def test_document_account_adds_up(texts: list[str], length: int, cap: int) -> None:
    account = Account()
    pieces = list(document_pieces(texts, Letters(1), EOS, length, account, cap))
    assert account.items + account.not_read == len(texts)
    read = [len(text) + 1 for text in texts[: account.items]]
    assert account.tokens == sum(len(p) for p in pieces) == sum(read) == account.loss_tokens
    assert account.split_items == sum(n > length for n in read)
    assert account.split_tokens == sum(n for n in read if n > length)
    account.objectives["words"] += 2
    account.fence = 3
    again = Account()
    again.restore(json.loads(json.dumps(account.facts())))
    assert again == account


def test_what_is_dropped_is_counted_with_its_tokens() -> None:
    account = Account()
    account.add(piece(1, 2, 3))
    account.drop(piece(*range(9)), "too long")
    account.drop(piece(*range(5)), "too long")
    assert (account.tokens, account.dropped, account.dropped_tokens) == (2, {"too long": 2}, 12)


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


def test_packed_items_of_one_piece_do_not_see_each_other(tiny_model: object) -> None:
    """Items of a piece with `breaks`, among others, on their own, and alone, give the same."""
    model = tiny_model()  # type: ignore[operator]
    items = [piece(5, 6, 7, 8, 9), piece(20, 21, 22), piece(40, 41, 42, 43)]
    joined = Piece(
        np.concatenate([p.inputs for p in items]),
        np.concatenate([p.targets for p in items]),
        breaks=(4, 6), reference=(-1.0, -2.0, -3.0),
    )  # fmt: skip
    batch = collate([[piece(60, 61, 62), joined], [joined]], pad=0, width=14)
    assert batch.inputs.shape == (2, 14)
    assert batch.padding == 14 - 11 + 14 - 9
    assert batch.positions[0].tolist() == [0, 1, 0, 1, 2, 3, 0, 1, 0, 1, 2, 0, 1, 2]
    assert batch.items[0].tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4]
    assert batch.items[1].tolist() == [5, 5, 5, 5, 6, 6, 7, 7, 7, 8, 8, 8, 8, 8]
    known = batch.reference.tolist()
    assert [known[i] for i in (1, 2, 3, 5, 6, 7)] == [-1.0, -2.0, -3.0] * 2
    assert all(math.isnan(known[i]) for i in (0, 4, 8))
    with torch.no_grad():
        packed = model(
            input_ids=batch.inputs, position_ids=batch.positions, use_cache=False
        ).logits  # (2, 14, V)
        for row, at in ((0, 2), (1, 0)):
            for item in items:
                ids = torch.tensor(item.inputs)[None].long()
                alone = model(input_ids=ids, use_cache=False).logits
                torch.testing.assert_close(packed[row, at : at + len(item)], alone[0])
                at += len(item)


def test_the_prefix_of_a_piece_is_that_of_each_of_its_items() -> None:
    ids = np.arange(9, dtype=np.int32)
    pair = Piece(ids, ids, prefix=3, breaks=(5,))
    batch = collate([[piece(1, 2, 3), pair]], pad=0)
    shown = "".join("x" if flag else "." for flag in batch.prefix[0].tolist())
    assert shown == "..xxx..xxx."
    short = collate([[Piece(ids, ids, prefix=6, breaks=(5,))]], pad=0)
    assert short.prefix.sum() == 9


def test_a_batch_may_have_rows_of_padding_only_and_refuses_a_long_row() -> None:
    ids = np.arange(1, 5, dtype=np.int32)
    batch = collate([[Piece(ids, ids, task=2)], []], pad=9, width=6)
    assert batch.tasks.tolist() == [2, 2]
    assert (batch.targets[1] == IGNORE).all()
    assert (batch.inputs[1] == 9).all()
    assert (batch.padding, batch.loss_tokens) == (8, 4)
    with pytest.raises(ValueError, match="row of 4 tokens in a batch of width 3"):
        collate([[Piece(ids, ids)]], pad=0, width=3)
