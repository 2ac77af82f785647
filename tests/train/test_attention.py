"""Attention by items equals PyTorch's own with the same mask, in value and in gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.train.test_objectives import random_batch
from torch import library as operators

from medexpert.model.attention import visible
from medexpert.train import attention, objectives
from medexpert.train.attention import UNSEEN, packed_attention
from medexpert.train.objectives import Learner

B, H, G, T, D = 2, 4, 2, 300, 8


def made(prefixed: bool, dtype: torch.dtype) -> tuple[list[torch.Tensor], torch.Tensor, Any]:
    torch.manual_seed(0)
    items = torch.zeros(B, T, dtype=torch.long)
    items[0, 100:], items[0, 280:], items[1], items[1, :7] = 1, 2, 3, 4
    prefix = torch.zeros(B, T, dtype=torch.bool)
    if prefixed:
        prefix[0, 100:260], prefix[1, 7:9] = True, True
    parts = [torch.randn(B, T, n, D, dtype=dtype).requires_grad_() for n in (H, G, G)]
    return parts, items, prefix if prefixed else None


def both(parts: list[torch.Tensor], run: Any) -> list[torch.Tensor]:
    for part in parts:
        part.grad = None
    out = run(*(part.transpose(1, 2) for part in parts))
    torch.manual_seed(1)
    out.backward(torch.randn(out.shape).to(out.dtype))
    return [out.detach(), *(part.grad for part in parts if part.grad is not None)]


def reference(items: torch.Tensor, prefix: torch.Tensor | None) -> Any:
    mask = visible(items, torch.zeros_like(items, dtype=torch.bool) if prefix is None else prefix)

    def run(query: Any, key: Any, value: Any) -> torch.Tensor:
        key, value = (x.repeat_interleave(H // G, 1) for x in (key, value))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)

    return run


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("prefixed", [True, False])
def test_equals_pytorch(prefixed: bool, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "KEEP", T if kept else 1)
    parts, items, prefix = made(prefixed, torch.float64)
    ours = both(parts, lambda q, k, v: packed_attention(q, k, v, items, prefix, D**-0.5)[0])
    wanted = both(parts, reference(items, prefix))
    for mine, theirs in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("prefixed", [True, False])
@pytest.mark.parametrize("alike", ["all", "some"])
def test_items_that_lie_alike_in_several_rows(
    alike: str, prefixed: bool, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "KEEP", T if kept else 1)
    torch.manual_seed(2)
    rows = 3
    items = torch.zeros(rows, T, dtype=torch.long)
    items[:, 140:], items[:, 290:] = 1, 2
    if alike == "some":
        items[1, 200:] = 5
    prefix = torch.zeros(rows, T, dtype=torch.bool)
    prefix[2, 140:200] = prefixed
    parts = [torch.randn(rows, T, n, D, dtype=torch.float64).requires_grad_() for n in (H, G, G)]
    seen = prefix if prefixed else None
    ours = both(parts, lambda q, k, v: packed_attention(q, k, v, items, seen, D**-0.5)[0])
    for mine, theirs in zip(ours, both(parts, reference(items, prefix)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_in_bf16_it_is_as_near_as_rounding_allows() -> None:
    """Scores are rounded to bf16 before the softmax, as transformers' eager attention does."""
    wide, items, _ = made(False, torch.float64)
    narrow = [part.detach().bfloat16().requires_grad_() for part in wide]
    wanted = both([p.detach().double().requires_grad_() for p in narrow], reference(items, None))
    ours = both(narrow, lambda q, k, v: packed_attention(q, k, v, items, None, D**-0.5)[0])
    for mine, theirs in zip(ours, wanted, strict=True):
        assert float((mine.double() - theirs).norm() / theirs.norm()) < 0.02


def test_unseen_tokens_get_nothing() -> None:
    parts, items, _ = made(False, torch.float32)
    items[1, 200:] = UNSEEN
    found = both(parts, lambda q, k, v: packed_attention(q, k, v, items, None, 1.0)[0])
    assert all(not tensor[1, 200:].any() for tensor in found)
    assert all(torch.isfinite(tensor).all() for tensor in found)


def test_the_operator_is_registered_rightly() -> None:
    parts, items, _ = made(False, torch.float32)
    short = [part.detach()[:, :20].transpose(1, 2).requires_grad_() for part in parts]
    check: Any = operators.opcheck
    # One item a row: what is kept for the way back has no unused end.
    check(packed_attention, (*short, torch.zeros_like(items[:, :20]), None, 1.0))


def test_the_learner_uses_it_and_the_loss_stays(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = random_batch(2, 30)
    batch.items[0, 12:] = 7
    batch.positions[0, 12:] = torch.arange(18)
    called = []
    real = attention.packed_attention
    monkeypatch.setattr(attention, "packed_attention", lambda *a: called.append(1) or real(*a))
    model = tiny_model()
    learner = Learner(model, 97)
    assert objectives._takes_items[model]
    found = []
    for by_items in (True, False):
        objectives._takes_items[model] = by_items
        called.clear()
        model.zero_grad()
        loss = learner(batch)
        loss.backward()
        assert bool(called) == by_items
        found.append((loss.detach(), model.model.layers[0].self_attn.q_proj.weight.grad.clone()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
    ids = batch.inputs[:1, :5]
    assert torch.isfinite(model(input_ids=ids).logits).all()  # without items: transformers' way
