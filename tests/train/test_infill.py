"""Blank infilling: nothing is lost, the spans are drawn as said, the mix keeps to its shares."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.model.special_tokens import InfillIds
from medexpert.recipe_train import Infill, Stage
from medexpert.records import UserError
from medexpert.train import knowledge
from medexpert.train.batches import IGNORE, Account, Piece, document_pieces
from medexpert.train.infill import (
    Blanks,
    Infilling,
    infill_piece,
    reading,
    sentence_blanks,
    sentence_ends,
    suffix_blank,
    word_blanks,
)

IDS = InfillIds(mask=9001, smask=9002, gmask=9003, sop=9004, eop=9005)
BLANK = {"words": IDS.mask, "sentences": IDS.smask, "suffix": IDS.gmask}
EOS = 8999


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


def infilling(seed: int = 0, **mix: Any) -> Infilling:
    def ends(text: str) -> Any:
        return np.array([word.endswith(".") for word in text.split()])

    return Infilling(Infill(**mix), IDS, seed, ends, np.arange(100, 120, dtype=np.int32))


class Words:
    """An encoder of white-space-separated words; the ids rise, so that blanks can be filled."""

    def start(self, text: str) -> list[int]:
        return list(range(len(text.split())))

    more = start


def text(size: int, sentence: int = 9) -> str:
    return " ".join(f"w{n}." if n % sentence == sentence - 1 else f"w{n}" for n in range(size))


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


# -- the mix --------------------------------------------------------------------------------------


def test_an_item_is_cut_the_same_whatever_else_is_read() -> None:
    mix: dict[str, Any] = {"words": 0.3, "sentences": 0.3, "suffix": 0.3}

    def cut(numbers: list[int], seed: int) -> dict[int, list[Piece]]:
        infill = infilling(seed, **mix)
        return {
            n: infill.pieces(text(60), range(61), number=n, length=100, annealing=False)
            for n in numbers
        }

    def same(a: list[Piece], b: list[Piece]) -> bool:
        return len(a) == len(b) and all(
            np.array_equal(x.inputs, y.inputs) and np.array_equal(x.targets, y.targets)
            for x, y in zip(a, b, strict=True)
        )

    forward, backward = cut(list(range(20)), 1), cut(list(range(19, -1, -1)), 1)
    assert all(same(forward[n], backward[n]) for n in range(20))
    other = cut(list(range(20)), 2)
    assert not all(same(forward[n], other[n]) for n in range(20))


def _corpus(tmp_path: Path, count: int = 60) -> Path:
    path = tmp_path / "knowledge.jsonl"
    rows = [
        {"id": f"d{n}", "text": text(20 + n), "source": "made", "licence": "CC0-1.0", "lang": "en"}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_shares_are_kept_and_counted(tmp_path: Path) -> None:
    infill = infilling(words=0.15, sentences=0.05, suffix=0.3)
    account = Account()
    found = knowledge.pieces(_corpus(tmp_path, 600), Words(), EOS, 2000, account, 0, infill=infill)
    assert len(found) == account.items == sum(infill.counts.values()) == 600
    assert infill.counts["causal"] == pytest.approx(300, abs=45)
    assert infill.counts["suffix"] == pytest.approx(180, abs=40)
    assert infill.counts["words"] == pytest.approx(90, abs=30)
    assert infill.counts["sentences"] == pytest.approx(30, abs=18)
    assert account.tokens == sum(map(len, found))
    assert account.loss_tokens == sum(int((p.targets != IGNORE).sum()) for p in found)


def test_without_infilling_pieces_are_the_causal_ones(tmp_path: Path) -> None:
    path = _corpus(tmp_path)
    wanted_account, account, plain_account = Account(), Account(), Account()
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    wanted = list(document_pieces(texts, Words(), EOS, 40, wanted_account, 900))
    off = knowledge.pieces(path, Words(), EOS, 40, account, 900, infill=infilling())
    plain = knowledge.pieces(path, Words(), EOS, 40, plain_account, 900)
    for found, counted in ((off, account), (plain, plain_account)):
        assert counted.facts() == wanted_account.facts()
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            assert a.inputs.tobytes() == b.inputs.tobytes()
            assert a.targets.tobytes() == b.targets.tobytes()
            assert a.prefix == b.prefix == 0


def test_causal_items_of_a_mix_are_the_plain_ones(tmp_path: Path) -> None:
    """A share too small to be drawn: every item goes through the mixing path and stays causal."""
    path = _corpus(tmp_path)
    account, plain = Account(), Account()
    mixed = knowledge.pieces(path, Words(), EOS, 40, account, 900, infill=infilling(words=1e-12))
    wanted = knowledge.pieces(path, Words(), EOS, 40, plain, 900)
    assert account.facts() == plain.facts()
    assert [p.inputs.tolist() for p in mixed] == [p.inputs.tolist() for p in wanted]
    assert [p.targets.tolist() for p in mixed] == [p.targets.tolist() for p in wanted]


@pytest.mark.parametrize("cap", [0, 1200])
def test_the_last_share_is_all_suffix(tmp_path: Path, cap: int) -> None:
    infill = infilling(words=1.0, anneal=0.25)
    account = Account()
    found = knowledge.pieces(_corpus(tmp_path), Words(), EOS, 400, account, cap, infill=infill)
    first = infill.anneal_from
    assert first is not None
    kinds = [{t for t in p.inputs[: p.prefix].tolist() if t in BLANK.values()} for p in found]
    assert all(kind == {IDS.mask} for kind in kinds[:first])
    assert all(kind == {IDS.gmask} for kind in kinds[first:])
    if cap:
        assert sum(map(len, found[:first])) == pytest.approx(0.75 * cap, abs=80)
        assert account.not_read > 0
    else:
        assert first == 45


def test_anneal_wants_one_epoch_and_its_tokens(tiny_tokenizer: Callable[[], Any]) -> None:
    bare, ready = tiny_tokenizer(), tiny_tokenizer()
    for name in ("[MASK]", "[sMASK]", "[gMASK]", "<sop>", "<eop>"):
        ready.add_tokens([name], special_tokens=True)
    stage = Stage(infill=Infill(suffix=0.5, anneal=0.2))
    with pytest.raises(UserError, match="has no"):
        Infilling.of(stage, bare, 0)
    with pytest.raises(UserError, match="epochs = 2"):
        Infilling.of(stage.model_copy(update={"epochs": 2.0}), ready, 0)
    infill = Infilling.of(stage, ready, 5)
    assert infill.seed == 5
    assert not set(infill.ordinary.tolist()) & set(ready.all_special_ids)
    assert infill.ids.eop not in infill.ordinary


@pytest.fixture
def tiny_tokenizer(base_model: Path) -> Callable[[], Any]:
    from transformers import AutoTokenizer

    return lambda: AutoTokenizer.from_pretrained(base_model)


@pytest.mark.parametrize(
    ("stage", "wanted"),
    [
        ({}, "causal"),
        ({"attention": "prefix"}, "prefix"),
        ({"infill": {"suffix": 0.3}}, "causal"),
        ({"infill": {"suffix": 0.3, "anneal": 0.2}}, "blank"),
        ({"infill": {"suffix": 0.7, "words": 0.3}}, "blank"),
        ({"infill": {"words": 1.0}}, "causal"),
    ],
)
def test_how_a_model_is_to_be_asked(stage: dict[str, Any], wanted: str) -> None:
    assert reading(Stage.model_validate(stage)) == wanted


def test_the_tokens_of_the_model_reach_the_pieces(base_model: Path, tmp_path: Path) -> None:
    """From a real tokenizer to pieces, whose text reads as it was written."""
    import torch

    from medexpert.model import base
    from medexpert.model.special_tokens import add_infill_tokens
    from medexpert.model.text import TextEncoder

    model, tokenizer = base.load(base_model, dtype=torch.float32, device="cpu")
    add_infill_tokens(model, tokenizer)
    infill = Infilling.of(Stage(infill=Infill(sentences=1.0)), tokenizer, 0)
    said = "Fever was high. It fell in 2.5 days. Nobody knew why. The dose was halved."
    ids = TextEncoder(tokenizer).start(said)
    (piece,) = infill.pieces(
        said, [*ids, tokenizer.eos_token_id], number=0, length=256, annealing=False
    )
    spans = [
        tokenizer.decode([t for t in part if t != infill.ids.eop])
        for part in _split(piece, infill.ids.sop)
    ]
    around = tokenizer.decode(piece.inputs[: piece.prefix].tolist(), skip_special_tokens=False)
    for span in spans:
        assert span.strip() in {s.strip() + "." for s in said.rstrip(".").split(". ")}
    # "2.5" holds the blank's place once the blanks are filled in the order of the text.
    for span in sorted(spans, key=said.index):
        around = around.replace("[sMASK]", span, 1)
    assert around.replace("<|im_end|>", "") == said


def _split(piece: Piece, sop: int) -> list[list[int]]:
    inputs, targets = piece.inputs[piece.prefix :], piece.targets[piece.prefix :]
    found: list[list[int]] = []
    for token, goal in zip(inputs.tolist(), targets.tolist(), strict=True):
        if token == sop:
            found.append([])
        found[-1].append(goal)
    return found
