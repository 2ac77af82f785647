from __future__ import annotations

from typing import Any

import pytest

from medexpert.model.adapters import freeze
from medexpert.model.adapters.lora import add_lora
from medexpert.recipe_train import Lora
from medexpert.records import UserError


def moving(model: Any) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_a_layer_and_the_embeddings_are_kept_still(model: Any) -> None:
    every = moving(model)
    frozen = freeze(model, ("model.layers.0.*", "model.embed_tokens.weight"))
    assert set(frozen) == {n for n in every if ".layers.0." in n or "embed" in n}
    assert len(frozen) == 10
    assert moving(model) == every - set(frozen)
    assert freeze(model, ("model.layers.0.*",)) == []
    assert freeze(model, ()) == []


def test_frozen_weights_do_not_change_and_the_others_do(model: Any, tokens: Any) -> None:
    import torch

    frozen = freeze(model, ("*.mlp.*", "*norm*"))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    model(tokens, labels=tokens).loss.backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name in frozen), name


@pytest.mark.parametrize("name", ["lm_head.weight", "model.embed_tokens.weight"])
def test_either_name_of_a_tied_weight(model: Any, name: str) -> None:
    assert freeze(model, (name,)) == ["model.embed_tokens.weight"]
    assert not model.lm_head.weight.requires_grad


def test_a_pattern_without_a_match_names_what_is_near(model: Any) -> None:
    with pytest.raises(
        UserError,
        match=r"no parameter of the model matches 'model\.layers\.0\.self_attn\.qproj\.weight'; "
        r"allowed: .*did you mean 'model\.layers\.\*\.self_attn\.q_proj\.weight'",
    ):
        freeze(model, ("model.layers.0.self_attn.qproj.weight",))
    with pytest.raises(UserError, match="freeze: no parameter"):
        freeze(model, ("model.norm.weight", "layers.0.*"))
    assert moving(model) == {name for name, _ in model.named_parameters()}


def test_freezing_everything_is_an_error(model: Any) -> None:
    with pytest.raises(UserError, match=r"freeze = '\*' leaves nothing to train"):
        freeze(model, ("*",))


def test_names_hold_under_an_adapter(tiny: Any, skilled: Any) -> None:
    wrapped = add_lora(tiny.make_model(), Lora(), seed=0)
    frozen = freeze(wrapped, ("model.layers.0.*",))
    assert len(frozen) == 14
    assert all("lora_" in name and ".layers.0." in name for name in frozen)
    frozen = freeze(skilled(), ("model.layers.*.mlp.*.common_?",))
    assert len(frozen) == 2 * 3 * 2
    with pytest.raises(UserError, match="leaves nothing to train"):
        freeze(wrapped, ("*lora_*",))
