"""Objectives: a model and a batch -> summed loss, with logits only where there is a target.

Legend: B rows, T tokens a row, N positions with a target, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from medexpert.train.batches import IGNORE, Batch

CHUNK = 128
"""Positions whose fp32 logits exist at once: 128 x 49,152 is 25 MB."""
BLOCK = 1024
"""Positions whose softmax is kept in the weight's dtype for one product with the hidden states."""

Objective = Callable[[nn.Module, Batch, float], torch.Tensor]


class _ChunkedCrossEntropy(torch.autograd.Function):
    """scale x sum over N of -log softmax(h W^T)[target], gradients made on the way forward.

    hidden (N, D), weight (V, D), targets (N,) -> scalar fp32. The gradient of the weight is one
    product a block, so that V x D is passed over as rarely as memory allows.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, scale: float
    ) -> torch.Tensor:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        total = hidden.new_zeros((), dtype=torch.float32)
        d_hidden = torch.empty_like(hidden) if needs_hidden else None
        d_weight: torch.Tensor | None = None
        for start in range(0, len(hidden), BLOCK):
            block, goals = hidden[start : start + BLOCK], targets[start : start + BLOCK]
            slope, loss = _softmax_slope(block, weight, goals, needs_hidden or needs_weight)
            total += loss
            if slope is None:
                continue
            if d_hidden is not None:
                d_hidden[start : start + BLOCK] = (slope @ weight) * scale
            if needs_weight:
                part = slope.T @ (block * scale)  # (V, D)
                # A single block, the usual case, needs no fp32 sum.
                whole = len(hidden) <= BLOCK
                d_weight = part if whole else part.float() + (0 if d_weight is None else d_weight)
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.weight_dtype = weight.dtype
        return total * scale

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        if float(upstream) != 1.0:
            d_hidden = None if d_hidden is None else d_hidden * upstream.to(d_hidden.dtype)
            d_weight = None if d_weight is None else d_weight * upstream.to(d_weight.dtype)
        return d_hidden, None if d_weight is None else d_weight.to(ctx.weight_dtype), None, None


def _softmax_slope(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, needed: bool
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """d loss / d logits of a block (N, V) in the weight's dtype, and its summed loss."""
    slope = weight.new_empty((len(hidden), len(weight))) if needed else None
    loss = hidden.new_zeros((), dtype=torch.float32)
    rows = torch.arange(len(hidden), device=hidden.device)
    for start in range(0, len(hidden), CHUNK):
        here = slice(start, start + CHUNK)
        logits = hidden[here] @ weight.T  # (n, V)
        log_p = torch.log_softmax(
            logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32)
        )
        loss -= log_p.gather(-1, targets[here, None]).sum()
        if slope is not None:
            slope[here] = log_p.exp_()
    if slope is not None:
        slope[rows, targets] -= 1
    return slope, loss


def chunked_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, scale: float = 1.0
) -> torch.Tensor:
    """`scale` x summed cross-entropy of a linear head: (N, D), (V, D), (N,) -> scalar."""
    apply: Callable[..., torch.Tensor] = _ChunkedCrossEntropy.apply
    return apply(hidden, weight, targets, scale)


def causal(model: nn.Module, batch: Batch, scale: float = 1.0) -> torch.Tensor:
    """`scale` x summed next-token loss of a batch (nats) through a plain linear head."""
    inner: Any = unwrapped(model)
    hidden = inner.get_decoder()(
        input_ids=batch.inputs, position_ids=batch.positions, use_cache=False
    ).last_hidden_state  # (B, T, D)
    where = batch.targets != IGNORE
    return chunked_cross_entropy(
        hidden[where], inner.get_output_embeddings().weight, batch.targets[where], scale
    )


def causal_any_head(model: nn.Module, batch: Batch, scale: float = 1.0) -> torch.Tensor:
    """The same loss through the model's own logits: for heads that scale, cap or shift them."""
    inner: Any = unwrapped(model)
    logits = inner(
        input_ids=batch.inputs, position_ids=batch.positions, use_cache=False
    ).logits  # (B, T, V)
    where = batch.targets != IGNORE
    return scale * F.cross_entropy(logits[where].float(), batch.targets[where], reduction="sum")


def unwrapped(model: Any) -> nn.Module:
    """The transformers model under a peft wrapper (its layers stay adapted)."""
    inner: nn.Module = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner


@torch.no_grad()
def choose_causal(model: Any, vocabulary: int) -> tuple[str, Objective]:
    """`linear` when the logits are the plain product with the head's weight, else `own`.

    Decided by comparing both on eight tokens, so that a model that caps or scales its logits
    (Gemma 2, Granite, Cohere) is trained on the logits it will be used with.
    """
    inner: Any = unwrapped(model)
    was_training = model.training
    model.eval()
    device = next(inner.parameters()).device
    ids = torch.arange(8, device=device)[None] % vocabulary
    head = inner.get_output_embeddings()
    own = inner(input_ids=ids, use_cache=False).logits.float()
    hidden = inner.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    model.train(was_training)
    plain = isinstance(head, nn.Linear) and head.bias is None
    if plain and torch.allclose((hidden @ head.weight.T).float(), own, rtol=1e-2, atol=1e-2):
        return "linear", causal
    return "own", causal_any_head


class Learner(nn.Module):
    """A model and its objective as one module: the root that is sharded, compiled and called.

    `forward(batch, scale)` is scale x the summed loss of the batch. `vocabulary` is the number of
    ids; `head` tells how logits are made ("linear" or "own", see :func:`choose_causal`).
    """

    def __init__(self, model: nn.Module, vocabulary: int) -> None:
        super().__init__()
        self.model = model
        self.head, self.objective = choose_causal(model, vocabulary)

    def forward(self, batch: Batch, scale: float = 1.0) -> torch.Tensor:
        return self.objective(self.model, batch, scale)
