from __future__ import annotations

from typing import Any

import pytest

from medexpert.model.adapters import ADAPTERS
from medexpert.model.adapters.lora import add_lora, candidates, merge_lora
from medexpert.recipe_train import Lora
from medexpert.records import UserError

LINEAR = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def disturb(wrapped: Any) -> Any:
    """Give the zero half of every LoRA pair some values, as training would."""
    import torch

    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return wrapped


def lora_state(wrapped: Any) -> dict[str, Any]:
    return {n: p.detach().clone() for n, p in wrapped.named_parameters() if "lora_" in n}


def test_the_table_names_the_adapters() -> None:
    assert ADAPTERS["lora"] is add_lora


def test_it_starts_as_identity(tiny: Any, model: Any, tokens: Any) -> None:
    import torch

    before = tiny.logits(model, tokens)
    wrapped = add_lora(model, Lora(), seed=0).eval()
    assert torch.equal(tiny.logits(wrapped, tokens), before)


def test_only_the_adapter_learns_on_every_linear_layer_but_the_output(model: Any) -> None:
    assert candidates(model) == LINEAR
    wrapped = add_lora(model, Lora(), seed=0)
    names = {n for n, p in wrapped.named_parameters() if p.requires_grad}
    assert len(names) == 2 * 2 * len(LINEAR)  # A and B, two layers
    assert all("lora_" in name for name in names)


def test_merged_equals_unmerged(tiny: Any, model: Any, tokens: Any) -> None:
    import torch

    before = tiny.logits(model, tokens)
    wrapped = disturb(add_lora(model, Lora(rank=8, alpha=16), seed=0)).eval()
    unmerged = tiny.logits(wrapped, tokens)
    assert (unmerged - before).abs().max() > 0.01
    merged = merge_lora(wrapped)
    assert not hasattr(merged, "peft_config")
    torch.testing.assert_close(tiny.logits(merged, tokens), unmerged, rtol=0, atol=1e-5)


def test_merging_is_the_formula(model: Any) -> None:
    """W + (alpha / r) B A, computed here by hand in float64."""
    import torch

    settings = Lora(rank=4, alpha=12, target_modules=("v_proj",))
    wrapped = disturb(add_lora(model, settings, seed=0))
    layer = wrapped.base_model.model.model.layers[1].self_attn.v_proj
    low, high = layer.lora_A["default"].weight.double(), layer.lora_B["default"].weight.double()
    wanted = layer.base_layer.weight.double() + 12 / 4 * high @ low
    merged: Any = merge_lora(wrapped)
    got = merged.model.layers[1].self_attn.v_proj.weight.double()
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)


def test_half_precision_is_kept_and_merged_in_float32(model: Any) -> None:
    import torch

    wrapped = add_lora(model.to(torch.bfloat16), Lora(), seed=0)
    assert {p.dtype for p in wrapped.parameters()} == {torch.bfloat16}
    assert merge_lora(wrapped).dtype == torch.float32


def test_the_seed_alone_decides_the_start(tiny: Any) -> None:
    import torch

    torch.manual_seed(1)
    first = lora_state(add_lora(tiny.make_model(), Lora(), seed=7))
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = lora_state(add_lora(tiny.make_model(), Lora(), seed=7))
    assert torch.equal(torch.random.get_rng_state(), state)
    third = lora_state(add_lora(tiny.make_model(), Lora(), seed=8))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_a_module_that_matches_nothing_names_the_candidates(model: Any) -> None:
    known = ", ".join(LINEAR)
    with pytest.raises(
        UserError, match=f"no module of the model matches 'qproj'; allowed: all-linear, {known}"
    ):
        add_lora(model, Lora(target_modules=("v_proj", "qproj")), seed=0)
    with pytest.raises(UserError, match="did you mean 'q_proj'"):
        add_lora(model, Lora(target_modules=("qproj",)), seed=0)
    with pytest.raises(UserError, match="an empty list"):
        add_lora(model, Lora(target_modules=()), seed=0)
    assert not hasattr(model, "peft_config")


def test_a_pattern_is_checked_too(tiny: Any, model: Any) -> None:
    wrapped = add_lora(model, Lora(target_modules=r".*layers\.1\..*(q|v)_proj"), seed=0)
    assert sum(p.requires_grad for p in wrapped.parameters()) == 4
    with pytest.raises(UserError, match=r"no module of the model matches '\.\*layers9'"):
        add_lora(tiny.make_model(), Lora(target_modules=".*layers9"), seed=0)
    with pytest.raises(UserError, match="is no regular expression"):
        add_lora(tiny.make_model(), Lora(target_modules="(q_proj"), seed=0)


def test_a_module_that_cannot_carry_lora(model: Any) -> None:
    with pytest.raises(UserError, match=r"cannot carry LoRA: .*; allowed: down_proj"):
        add_lora(model, Lora(target_modules=("mlp",)), seed=0)


def test_a_merge_that_is_not_finite_is_an_error(model: Any) -> None:
    wrapped = add_lora(model, Lora(), seed=0)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(float("nan"))
    with pytest.raises(UserError, match="the adapter cannot be merged"):
        merge_lora(wrapped)
