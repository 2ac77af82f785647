"""Schedules as pure functions, parameter groups, and fp32 masters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medexpert.recipe_train import Stage
from medexpert.train.optim import (
    Masters,
    adamw,
    buckets,
    cast,
    learning_rate,
    parameter_groups,
    scale_to,
    total_norm,
)
from simulated_gpu import simulated_gpu

SCHEDULES = ("cosine", "linear", "wsd", "constant")


@st.composite
def stages(draw: Any) -> Stage:
    share = st.floats(0, 1)
    return Stage(
        learning_rate=draw(st.floats(1e-6, 0.9)),
        schedule=draw(st.sampled_from(SCHEDULES)),
        warmup_share=draw(share),
        decay_share=draw(share),
        final_share=draw(share),
    )


@given(stages(), st.integers(1, 300))
def test_rate_rises_once_then_never_rises_and_stays_within_bounds(
    settings: Stage, steps: int
) -> None:
    rates = [learning_rate(step, steps, settings) for step in range(steps)]
    warmup = min(steps, math.ceil(settings.warmup_share * steps))
    peak = settings.learning_rate
    assert all(0 <= rate <= peak * (1 + 1e-12) for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    after = rates[warmup:]
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(after))
    assert all(rate >= peak * settings.final_share * (1 - 1e-12) for rate in after)
    if warmup:
        assert rates[warmup - 1] == pytest.approx(peak)
    if len(after) > 1 and settings.schedule != "constant":
        last = 1.0 if settings.schedule == "wsd" and settings.decay_share == 0 else None
        assert rates[-1] == pytest.approx(peak * (last or settings.final_share))


def test_wsd_is_flat_then_falls_in_a_line() -> None:
    settings = Stage(
        learning_rate=0.5, schedule="wsd", warmup_share=0.1, decay_share=0.2, final_share=0.1
    )
    rates = [learning_rate(step, 100, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[9:80] == [0.5] * 71
    falls = [a - b for a, b in itertools.pairwise(rates[79:])]
    assert len(falls) == 20
    assert falls == pytest.approx([0.5 * 0.9 / 20] * 20)
    assert rates[-1] == pytest.approx(0.05)


def test_groups_decay_matrices_only_and_the_router_has_its_own_rate() -> None:
    names = {
        "model.embed_tokens.weight": (8, 4), "lm_head.weight": (8, 4),
        "transformer.wte.weight": (8, 4), "layers.0.up_proj.weight": (4, 4),
        "layers.0.norm.weight": (4,), "layers.0.q_proj.bias": (4,),
        "layers.0.up_proj.logits_common": (3, 2), "layers.0.up_proj.common_a": (2, 4, 4),
    }  # fmt: skip
    master = {name: torch.zeros(shape) for name, shape in names.items()}
    settings = Stage(
        learning_rate=1e-3,
        weight_decay=0.3,
        cpoly={"router_learning_rate": 5e-2},  # type: ignore[arg-type]
    )
    found = {
        name: (group["weight_decay"], group["lr_scale"])
        for group in parameter_groups(master, settings)
        for name, tensor in master.items()
        if any(tensor is held for held in group["params"])
    }
    matrix, vector, router = (0.3, 1.0), (0.0, 1.0), (0.0, pytest.approx(50.0))
    assert found == {
        "model.embed_tokens.weight": vector, "lm_head.weight": vector,
        "transformer.wte.weight": vector, "layers.0.up_proj.weight": matrix,
        "layers.0.norm.weight": vector, "layers.0.q_proj.bias": vector,
        "layers.0.up_proj.logits_common": router, "layers.0.up_proj.common_a": matrix,
    }  # fmt: skip
    only = parameter_groups({"a.weight": torch.zeros(2, 2)}, settings)
    assert len(only) == 1


def test_masters_sum_in_fp32_and_hold_only_what_is_trained(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model()
    model.model.layers[1].requires_grad_(False)
    masters = Masters(model, torch.bfloat16)
    assert not any("layers.1." in name for name in masters.master)
    weight = model.model.layers[0].mlp.up_proj.weight
    name = "model.layers.0.mlp.up_proj.weight"
    for _ in range(2):  # the second step uses the memory of the first
        (weight.sum() * 1.0).backward()
        (weight.sum() * 2**-9).backward()  # lost if summed in bf16
        gradient = masters.master[name].grad
        assert gradient is not None
        assert weight.grad is None
        assert torch.all(gradient == 1 + 2**-9)
        masters.drop()
        assert masters.master[name].grad is None


def test_publish_rounds_gather_does_not_and_release_gives_fp32_back(
    tiny_model: Callable[..., Any],
) -> None:
    model = tiny_model()
    masters = Masters(model, torch.bfloat16)
    optimizer = adamw(masters, Stage(learning_rate=1e-4))
    for tensor in masters.master.values():
        tensor.grad = torch.ones_like(tensor)
    optimizer.step()
    masters.publish()
    live = dict(model.named_parameters())
    for name, tensor in masters.gather().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(live[name], tensor.bfloat16())
        assert not torch.equal(tensor, tensor.bfloat16().float())
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    model.train()
    with masters.whole() as plain:
        assert plain is model
        assert not plain.training
    assert model.training
    released = masters.release()
    assert released is model
    assert all(torch.equal(p, masters.master[n]) for n, p in model.named_parameters())
    model.model.norm.weight.sum().backward()  # no hook takes it away any more
    assert model.model.norm.weight.grad is not None


def test_a_released_model_is_widened_in_main_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that trained an adapter on a rounded base may have no room for the base in fp32."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    with simulated_gpu(monkeypatch) as on_gpu:
        masters = Masters(model.to("cuda"), torch.bfloat16)
        assert all(on_gpu(p) for p in model.parameters())
        assert masters.release() is model
        assert not any(on_gpu(p) for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_clip_gives_the_norm_and_leaves_what_is_not_finite(value: float) -> None:
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    assert scale_to(gradients, 1.0, float(total_norm(gradients))) == 5.0
    assert gradients[0].tolist() == pytest.approx([0.6, 0.0])
    assert gradients[1].item() == pytest.approx(0.8)
    before = [gradient.clone() for gradient in gradients]
    assert scale_to(gradients, 2.0, float(total_norm(gradients))) == pytest.approx(1.0)
    gradients[0][0] = value
    norm = scale_to(gradients, 0.1, float(total_norm(gradients)))
    assert not math.isfinite(norm)
    assert torch.equal(gradients[1], before[1])
    assert float(total_norm([])) == 0


def test_cast_leaves_whole_numbers_and_buffers() -> None:
    module = torch.nn.BatchNorm1d(3)
    module.codes = torch.nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)
    module.bias.requires_grad_(False)
    cast(module, torch.bfloat16, trained=False)
    assert module.weight.dtype == torch.float32
    assert module.bias.dtype == torch.bfloat16
    cast(module, torch.bfloat16)
    assert module.weight.dtype == torch.bfloat16
    assert module.codes.dtype == torch.uint8
    assert module.running_mean is not None
    assert module.running_mean.dtype == torch.float32


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 20))
def test_buckets_hold_everything_once_in_order(sizes: list[int], size: int) -> None:
    tensors = [torch.zeros(n) for n in sizes]
    runs = list(buckets(tensors, size))
    assert [id(t) for run in runs for t in run] == [id(t) for t in tensors]
    assert all(len(run) == 1 or sum(t.numel() for t in run) <= size for run in runs)
