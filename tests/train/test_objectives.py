"""Loss and gradients against PyTorch's own, and the choice of head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from medexpert.train.batches import IGNORE, Piece, collate
from medexpert.train.objectives import (
    BLOCK,
    CHUNK,
    Learner,
    causal,
    causal_any_head,
    choose_causal,
    chunked_cross_entropy,
    target_logprobs,
)


def random_batch(rows: int, length: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, 90, (rows, length + 1)).astype(np.int32)
    pieces = [[Piece(r[:-1], np.where(rng.random(length) < 0.4, r[1:], IGNORE))] for r in ids]
    return collate(pieces, pad=0)


def test_chunked_cross_entropy_equals_torch_in_value_and_gradient() -> None:
    torch.manual_seed(0)
    n = BLOCK + CHUNK + 17
    hidden = torch.randn(n, 16, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 16, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 50, (n,))
    (chunked_cross_entropy(hidden, weight, targets) / n).backward()
    ours = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    F.cross_entropy(hidden @ weight.T, targets).backward()
    torch.testing.assert_close(ours[0], hidden.grad, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(ours[1], weight.grad, rtol=1e-5, atol=1e-7)


def test_both_heads_agree_on_a_model(tiny_model: Callable[..., Any]) -> None:
    model, batch = tiny_model(), random_batch(2, 30)
    losses = []
    for objective in (causal, causal_any_head):
        model.zero_grad()
        loss = objective(model, batch)
        loss.backward()
        losses.append((loss.item(), model.model.embed_tokens.weight.grad.clone()))
    assert abs(losses[0][0] - losses[1][0]) < 1e-3
    torch.testing.assert_close(losses[0][1], losses[1][1], rtol=1e-4, atol=1e-5)


def test_frozen_head_gets_no_gradient() -> None:
    hidden = torch.randn(5, 8, requires_grad=True)
    weight = torch.randn(11, 8)
    chunked_cross_entropy(hidden, weight, torch.arange(5)).backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_a_capped_head_is_trained_through_its_own_logits(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model()
    assert choose_causal(model, 97)[0] == "linear"
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(20)
    plain = model.forward

    def capped(*args: Any, **kwargs: Any) -> Any:
        out = plain(*args, **kwargs)
        out.logits = torch.tanh(out.logits)
        return out

    model.forward = capped
    assert choose_causal(model, 97)[0] == "own"


def test_accumulation_equals_the_large_batch(tiny_model: Callable[..., Any]) -> None:
    rng = np.random.default_rng(3)
    pieces = []
    for n in (9, 4, 15, 7):
        ids = rng.integers(3, 90, n + 1).astype(np.int32)
        pieces.append(Piece(ids[:-1], ids[1:]))
    grads = []
    for groups in ([pieces], [[p] for p in pieces]):
        model = tiny_model()
        total = sum(len(p) for p in pieces)
        for group in groups:
            (causal(model, collate([[p] for p in group], pad=0)) / total).backward()
        grads.append(model.model.layers[0].mlp.up_proj.weight.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)


def test_log_probabilities_of_targets(tiny_model: Callable[..., Any]) -> None:
    """Against the model's own logits, with gradients of a weighted sum."""
    batch = random_batch(2, 30)
    where = batch.targets != IGNORE
    model = tiny_model()
    weights = torch.randn(int(where.sum()))
    found = []
    for own in (False, True):
        model.zero_grad()
        if own:
            logits = model(input_ids=batch.inputs, position_ids=batch.positions).logits[where]
            log_p = torch.log_softmax(logits, -1).gather(-1, batch.targets[where][:, None])[:, 0]
        else:
            log_p = target_logprobs(model, batch)
        (log_p * weights).sum().backward()
        found.append((log_p.detach(), model.model.embed_tokens.weight.grad.clone()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_a_batch_without_targets_still_has_a_graph(tiny_model: Callable[..., Any]) -> None:
    batch = random_batch(1, 20)
    batch.targets[:] = IGNORE
    model = tiny_model()
    loss = Learner(model, 97)(batch, 1.0)
    loss.backward()
    assert loss.item() == 0.0
    assert target_logprobs(model, batch).shape == (0,)
