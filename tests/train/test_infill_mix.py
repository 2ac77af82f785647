"""The mix of objectives in stage 1: shares kept and counted, the last part apart from the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blanks import BLANK, EOS, IDS, Words, infilling, text
from medexpert.recipe_train import Infill, Stage
from medexpert.records import UserError
from medexpert.train import knowledge
from medexpert.train.batches import IGNORE, Account, Piece, document_pieces
from medexpert.train.infill import Infilling, reading
from medexpert.train.rows import Plan

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
    found = list(
        knowledge.pieces(_corpus(tmp_path, 600), Words(), EOS, 2000, account, 0, infill=infill)
    )
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
    off = list(knowledge.pieces(path, Words(), EOS, 40, account, 900, infill=infilling()))
    plain = list(knowledge.pieces(path, Words(), EOS, 40, plain_account, 900))
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
    mixed = list(
        knowledge.pieces(path, Words(), EOS, 40, account, 900, infill=infilling(words=1e-12))
    )
    wanted = list(knowledge.pieces(path, Words(), EOS, 40, plain, 900))
    assert account.objectives == {"causal": account.items}
    account.objectives.clear()
    assert account.facts() == plain.facts()
    assert [p.inputs.tolist() for p in mixed] == [p.inputs.tolist() for p in wanted]
    assert [p.targets.tolist() for p in mixed] == [p.targets.tolist() for p in wanted]


@pytest.mark.parametrize("cap", [0, 1200])
def test_the_last_share_is_all_suffix(tmp_path: Path, cap: int) -> None:
    infill = infilling(words=1.0, anneal=0.25)
    account = Account()
    found = list(
        knowledge.pieces(_corpus(tmp_path), Words(), EOS, 400, account, cap, infill=infill)
    )
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
    # In training, too, they come behind all others.
    assert account.fence == first
    assert account.facts()["objectives"] == dict(infill.counts)
    plan = Plan(found, 400, 1.0, 0, 4, 1, False, fence=account.fence)
    read = [int(n) for row in plan.rows for n in row]
    assert sorted(read) == list(range(len(found)))
    assert set(read[:first]) == set(range(first))


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
