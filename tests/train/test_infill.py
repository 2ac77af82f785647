"""Blank infilling: nothing is lost, the spans are drawn as said, the mix keeps to its shares."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blanks import BLANK, EOS, IDS, infilling, text
from medexpert.train.batches import IGNORE, Piece
from medexpert.train.infill import (
    Blanks,
    infill_piece,
    sentence_blanks,
    sentence_ends,
    suffix_blank,
    word_blanks,
)


def spans_of(piece: Piece) -> list[list[int]]:
    """The learned spans of part B, in their order there; checks that inputs and targets agree."""
    inputs, targets = piece.inputs[piece.prefix :].tolist(), piece.targets[piece.prefix :].tolist()
    found: list[list[int]] = []
    for at, token in enumerate(inputs):
        if token == IDS.sop:
            assert at == 0 or targets[at - 1] == IDS.eop
            found.append([])
        if targets[at] != IDS.eop:
            found[-1].append(targets[at])
            assert inputs[at + 1] != IDS.sop
    assert not targets or targets[-1] == IDS.eop
    return found


def filled(piece: Piece) -> list[int]:
    """The text again: every blank of part A filled with a span of part B.

    For texts of rising tokens only: a blank's span is the one whose first token fits there.
    """
    spans = sorted(spans_of(piece))
    text: list[int] = []
    for token in piece.inputs[: piece.prefix].tolist():
        text += spans.pop(0) if token in BLANK.values() else [token]
    assert not spans
    return text


# -- nothing is lost ------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 400),
    length=st.integers(16, 200),
    task=st.sampled_from(["words", "sentences", "suffix"]),
    seed=st.integers(0, 10_000),
    sentence=st.integers(1, 40),
    start=st.integers(0, 2),
)
def test_every_token_stays_or_is_a_target_once(
    size: int, length: int, task: str, seed: int, sentence: int, start: int
) -> None:
    infill = infilling(seed, **{task: 1.0})
    infill.start = start
    tokens = [*range(start + size), EOS]
    flags = text(size, sentence)
    found = infill.pieces(flags, tokens, number=7, length=length, annealing=False)
    if not found:
        assert len(tokens) < start + 4
        assert infill.counts == {"too short, causal": 1}
        return
    assert sum(infill.counts.values()) == len(found)
    whole = []
    for piece in found:
        assert len(piece) <= length
        assert len(piece.inputs) == len(piece.targets)
        assert (piece.targets[: piece.prefix] == IGNORE).all()
        assert (piece.targets[piece.prefix :] != IGNORE).all()
        assert (piece.targets != IGNORE).any()
        whole += filled(piece)
        kept = [n for n in piece.inputs[: piece.prefix] if n < 9000]
        learned = [n for n in piece.targets[piece.prefix :] if n < 9000]
        assert len(kept) + len(learned) + 2 * len(spans_of(piece)) == len(piece)
    assert whole == tokens
    first, last = (piece.inputs[: piece.prefix].tolist() for piece in (found[0], found[-1]))
    assert sum(n < EOS for n in first) > start  # some of the text itself is given
    assert IDS.gmask in last or EOS in last  # words and sentences leave the end of text
    assert found[0].inputs[:start].tolist() == list(range(start))  # the start tokens stay


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(3, 6), min_size=8, max_size=60), st.integers(0, 99))
def test_repeated_tokens_are_neither_lost_nor_doubled(tokens: list[int], seed: int) -> None:
    for task in BLANK:
        infill = infilling(seed, **{task: 1.0})
        (piece,) = infill.pieces(
            text(len(tokens)), [*tokens, EOS], number=0, length=200, annealing=False
        )
        kept = Counter(n for n in piece.inputs[: piece.prefix].tolist() if n < 9000)
        learned = Counter(n for n in piece.targets[piece.prefix :].tolist() if n != IDS.eop)
        assert kept + learned == Counter([*tokens, EOS])


def test_a_piece_is_written_as_glm_does() -> None:
    blanks = Blanks(np.array([1, 4]), np.array([2, 1]))
    tokens = np.array([10, 11, 12, 13, 14, 15], dtype=np.int32)
    orders = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        piece = infill_piece(tokens, blanks, blank=IDS.mask, ids=IDS, rng=rng)
        assert piece.prefix == 5
        assert piece.inputs[:5].tolist() == [10, IDS.mask, 13, IDS.mask, 15]
        one, two = [IDS.sop, 11, 12], [IDS.sop, 14]
        goals = {0: [11, 12, IDS.eop, 14, IDS.eop], 1: [14, IDS.eop, 11, 12, IDS.eop]}
        order = int(piece.inputs[5:].tolist() != one + two)
        assert piece.inputs[5:].tolist() == [one + two, two + one][order]
        assert piece.targets.tolist() == [IGNORE] * 5 + goals[order]
        orders.add(order)
    assert orders == {0, 1}


def test_corruption_touches_inputs_of_blanks_only() -> None:
    tokens = list(range(1000, 1400))
    clean = infilling(suffix=1.0).pieces(text(400), tokens, number=3, length=500, annealing=False)
    noisy = infilling(suffix=1.0, corrupt=0.1).pieces(
        text(400), tokens, number=3, length=500, annealing=False
    )
    (a,), (b,) = clean, noisy
    assert a.prefix == b.prefix
    assert np.array_equal(a.targets, b.targets)
    assert np.array_equal(a.inputs[: a.prefix + 1], b.inputs[: a.prefix + 1])
    wrong = a.inputs != b.inputs
    assert set(b.inputs[wrong].tolist()) <= set(range(100, 120))
    assert 0.03 < wrong.sum() / (len(a) - a.prefix) < 0.2


# -- spans as said --------------------------------------------------------------------------------


def test_words_take_15_percent_in_spans_of_about_3() -> None:
    """E[Poisson(3) given >= 1] = 3 / (1 - e^-3) = 3.157."""
    taken, lengths, size = [], [], 512
    for seed in range(400):
        blanks = word_blanks(np.random.default_rng(seed), size, size)
        taken.append(blanks.tokens / size)
        lengths += blanks.lengths.tolist()
        assert blanks.tokens - max(blanks.lengths) < int(0.15 * size) <= blanks.tokens
    assert np.mean(taken) == pytest.approx(0.15, abs=0.01)
    assert np.mean(lengths) == pytest.approx(3 / (1 - np.exp(-3)), abs=0.1)
    assert min(lengths) == 1
    share_of_3 = lengths.count(3) / len(lengths)
    assert share_of_3 == pytest.approx(4.5 * np.exp(-3) / (1 - np.exp(-3)), abs=0.02)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 300), st.integers(0, 60), st.integers(0, 10_000))
def test_spans_of_words_keep_apart(size: int, most: int, seed: int) -> None:
    blanks = word_blanks(np.random.default_rng(seed), size, most)
    assert len(blanks) <= most
    assert (len(blanks) > 0) == (size >= 7 and most > 0)
    ends = blanks.starts + blanks.lengths
    if len(blanks):
        assert blanks.starts[0] >= 0
        assert ends[-1] <= size
        assert (blanks.starts[1:] > ends[:-1]).all()
        assert blanks.tokens < size


def test_spans_of_words_are_placed_evenly() -> None:
    """Every place but those near the ends is taken equally often."""
    hits = np.zeros(60)
    for seed in range(4000):
        blanks = word_blanks(np.random.default_rng(seed), 60, 60)
        for start, length in zip(blanks.starts, blanks.lengths, strict=True):
            hits[start : start + length] += 1
    inner = hits[6:-6] / hits[6:-6].mean()
    assert inner.min() > 0.85
    assert inner.max() < 1.15
    assert hits[0] > 0
    assert hits[-1] > 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), max_size=120), st.integers(0, 30), st.integers(0, 999))
def test_sentences_are_whole(flags: list[bool], most: int, seed: int) -> None:
    ends = np.array(flags, dtype=np.bool_)
    blanks = sentence_blanks(np.random.default_rng(seed), ends, most)
    assert len(blanks) <= most
    for start, length in zip(blanks.starts, blanks.lengths, strict=True):
        assert start == 0 or ends[start - 1]
        assert start + length == len(ends) or ends[start + length - 1]
        assert not ends[start : start + length - 1].any()
    if len(blanks):
        assert blanks.tokens < len(ends)
        if len(blanks) < most and len(blanks) < ends[:-1].sum():
            assert blanks.tokens >= 0.15 * len(ends)


def test_the_suffix_is_drawn_from_a_quarter_to_all_but_two() -> None:
    lengths = [suffix_blank(np.random.default_rng(s), 20).tokens for s in range(600)]
    assert (min(lengths), max(lengths)) == (5, 18)
    assert np.mean(lengths) == pytest.approx(11.5, abs=0.6)
    blanks = suffix_blank(np.random.default_rng(0), 20)
    assert blanks.starts[0] + blanks.lengths[0] == 20
    assert suffix_blank(np.random.default_rng(0), 4, kept=3).tokens == 1


# -- sentences of a text --------------------------------------------------------------------------


def _sentences(words: str, tokenizer: Any) -> list[str]:
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    found: list[list[int]] = [[]]
    for token, end in zip(ids, sentence_ends(words, tokenizer), strict=True):
        found[-1].append(token)
        if end:
            found.append([])
    assert found.pop() == []
    return [tokenizer.decode(part) for part in found]


def test_sentences_end_where_a_reader_says(base_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_model)
    assert _sentences("A dose of 2.5 mg was given. Why? It helped!", tokenizer) == [
        "A dose of 2.5 mg was given.", " Why?", " It helped!",
    ]  # fmt: skip
    assert _sentences("患者发热。体温38.5度；给予治疗", tokenizer) == [
        "患者发热。", "体温38.5度；", "给予治疗",
    ]  # fmt: skip
    assert _sentences("One line\nand the next.", tokenizer) == ["One line\n", "and the next."]
    assert sentence_ends("", tokenizer).tolist() == []
