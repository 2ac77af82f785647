"""The tokens of blank infilling: added once, found again, with weights that make sense."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from medexpert.model import base, checkpoint
from medexpert.model.special_tokens import NAMES, InfillIds, add_infill_tokens, infill_ids
from medexpert.records import UserError


def test_a_tokenizer_without_them_is_told_so(tokenizer: Any) -> None:
    with pytest.raises(UserError, match=r"no \[MASK\], \[sMASK\], \[gMASK\], <sop>, <eop>"):
        infill_ids(tokenizer)


@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_are_the_mean_of_the_old(tiny: SimpleNamespace, tied: bool) -> None:
    model, tokenizer = tiny.make_model(tie_word_embeddings=tied), tiny.make_tokenizer()
    old, used = model.get_input_embeddings().weight.detach().clone(), len(tokenizer)
    old_out = model.get_output_embeddings().weight.detach().clone()
    ids = add_infill_tokens(model, tokenizer)
    new, out = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (out is new) == tied
    assert len(new) % 64 == 0
    assert len(new) == model.config.vocab_size >= len(tokenizer) == used + 5
    assert astuple(ids) == tuple(range(used, used + 5))
    for rows, before in ((new, old), (out, old_out)):
        assert torch.equal(rows[:used], before)
        mean = before.mean(0).expand(len(rows) - used, -1)
        assert torch.allclose(rows[used:], mean, atol=1e-6)


def test_adding_twice_changes_nothing(model: Any, tokenizer: Any) -> None:
    ids = add_infill_tokens(model, tokenizer)
    with torch.no_grad():
        model.get_input_embeddings().weight[ids.gmask] = 3.0
    before = model.get_input_embeddings().weight.clone()
    assert add_infill_tokens(model, tokenizer) == ids == infill_ids(tokenizer)
    assert torch.equal(model.get_input_embeddings().weight, before)


def test_tokens_of_the_tokenizers_own_are_kept(tiny: SimpleNamespace) -> None:
    from tokenizers import AddedToken

    tokenizer = tiny.make_tokenizer()
    own = ["[gMASK]", "<sop>"]
    tokenizer.add_tokens([AddedToken(n, special=True, normalized=False) for n in own], True)
    where = {name: tokenizer.convert_tokens_to_ids(name) for name in own}
    model = tiny.make_model(vocab_size=len(tokenizer))
    before = model.get_input_embeddings().weight.detach().clone()
    ids = add_infill_tokens(model, tokenizer)
    assert (ids.gmask, ids.sop) == (where["[gMASK]"], where["<sop>"])
    after = model.get_input_embeddings().weight
    assert torch.equal(after[: len(before)], before)
    assert len(set(astuple(ids))) == 5


def test_spare_rows_are_used_before_the_vocabulary_grows(tiny: SimpleNamespace) -> None:
    tokenizer = tiny.make_tokenizer()
    used = len(tokenizer)
    model = tiny.make_model(vocab_size=used + 9)
    before = model.get_input_embeddings().weight.detach().clone()
    ids = add_infill_tokens(model, tokenizer)
    after = model.get_input_embeddings().weight
    assert after.shape == before.shape
    assert torch.allclose(after[list(astuple(ids))], before[:used].mean(0).expand(5, -1), atol=1e-6)
    assert torch.equal(after[:used], before[:used])
    assert torch.equal(after[used + 5 :], before[used + 5 :])


def test_text_of_the_names_is_one_token_each(model: Any, tokenizer: Any) -> None:
    ids = add_infill_tokens(model, tokenizer)
    read = tokenizer("a [gMASK]<sop>b<eop>", add_special_tokens=False)["input_ids"]
    assert [n for n in read if n in astuple(ids)] == [ids.gmask, ids.sop, ids.eop]
    assert tokenizer.decode(read, skip_special_tokens=True).split() == ["a", "b"]


def test_a_saved_folder_gives_the_same(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    ids = add_infill_tokens(model, tokenizer)
    tokens = torch.tensor([[5, ids.gmask, ids.sop, 9]])
    with torch.no_grad():
        before = model(tokens).logits
    checkpoint.save_model(
        model, tokenizer, tmp_path / "m", lineage={"stage": "knowledge"}, dtype=torch.float32
    )
    again, reader = base.load(tmp_path / "m", dtype=torch.float32, device="cpu")
    assert infill_ids(reader) == ids
    assert add_infill_tokens(again, reader) == ids
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, before)
    ties = again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert ties == bool(model.config.tie_word_embeddings)


def test_an_adapted_model_is_refused(model: Any, tokenizer: Any) -> None:
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    with pytest.raises(TypeError, match="plain model"):
        add_infill_tokens(wrapped, tokenizer)


def test_the_names_and_the_fields_agree() -> None:
    assert len(NAMES) == len(InfillIds.__dataclass_fields__)
