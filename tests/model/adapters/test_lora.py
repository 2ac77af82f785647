from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medexpert.model.adapters import ADAPTERS
from medexpert.model.adapters.lora import add_lora, candidates, merge_lora
from medexpert.model.base import load
from medexpert.model.checkpoint import save_adapter, save_model
from medexpert.recipe_train import Lora, Stage
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


def test_the_table_names_the_adapters_of_a_recipe(tiny: Any) -> None:
    import typing

    import torch

    from medexpert.recipe_train import Method

    assert {"full", *ADAPTERS} == set(typing.get_args(Method))
    stage = Stage(method="lora", lora=Lora(rank=3))
    one = lora_state(ADAPTERS["lora"](tiny.make_model(), stage, 7, tasks=("x",)))
    other = lora_state(add_lora(tiny.make_model(), Lora(rank=3), seed=7))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_dora_starts_as_identity_and_merges(
    tiny: Any, tokens: Any, tmp_path: Path, tokenizer: Any
) -> None:
    """m = |W| at the start, so W' = W up to rounding of the norm."""
    import torch

    stage = Stage(method="dora", lora=Lora(rank=4, alpha=8))
    before = tiny.logits(tiny.make_model(), tokens)
    wrapped = ADAPTERS["dora"](tiny.make_model(), stage, 0).eval()
    names = [n for n, p in wrapped.named_parameters() if p.requires_grad]
    assert sum("magnitude" in name for name in names) == 2 * len(LINEAR)
    torch.testing.assert_close(tiny.logits(wrapped, tokens), before, rtol=0, atol=1e-5)
    disturb(wrapped)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1.1)
    unmerged = tiny.logits(wrapped, tokens)
    assert (unmerged - before).abs().max() > 0.01
    save_model(tiny.make_model(), tokenizer, tmp_path / "base", lineage={}, dtype=torch.float32)
    lineage = {"parent": str(tmp_path / "base"), "stage": "adapt"}
    save_adapter(wrapped, tmp_path / "adapter", lineage=lineage)
    opened, _ = load(tmp_path / "adapter", dtype=torch.float32)
    torch.testing.assert_close(tiny.logits(opened, tokens), unmerged, rtol=0, atol=1e-5)
    merged = merge_lora(wrapped)
    torch.testing.assert_close(tiny.logits(merged, tokens), unmerged, rtol=0, atol=1e-5)


def test_dora_is_its_formula(model: Any) -> None:
    """m V / |V| with V = W + (alpha / r) B A and the norm over each output's inputs, in float64."""
    import torch

    settings = Lora(rank=4, alpha=12, target_modules=("v_proj",))
    wrapped = disturb(add_lora(model, settings, seed=0, dora=True))
    layer = wrapped.base_model.model.model.layers[1].self_attn.v_proj
    length = layer.lora_magnitude_vector["default"].weight
    length.data.mul_(0.7)
    low, high = layer.lora_A["default"].weight.double(), layer.lora_B["default"].weight.double()
    whole = layer.base_layer.weight.double() + 12 / 4 * high @ low
    wanted = length.double()[:, None] * whole / whole.norm(dim=1, keepdim=True)
    merged: Any = merge_lora(wrapped)
    got = merged.model.layers[1].self_attn.v_proj.weight.double()
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)


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
