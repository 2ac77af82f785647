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

CHUNK = 256
"""Positions whose logits are in memory at once: 256 x 49,152 fp32 is 50 MB."""

Objective = Callable[[nn.Module, Batch], torch.Tensor]


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum over N of -log softmax(h W^T)[target], gradients made chunk by chunk on the way.

    hidden (N, D), weight (V, D), targets (N,) -> scalar fp32. Logits of at most CHUNK positions
    exist at a time; the gradient of the weight is summed in fp32.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        total = hidden.new_zeros((), dtype=torch.float32)
        d_hidden = torch.empty_like(hidden) if needs_hidden else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        for start in range(0, len(hidden), CHUNK):
            part, goal = hidden[start : start + CHUNK], targets[start : start + CHUNK]
            logits = (part @ weight.T).float()  # (n, V)
            log_z = torch.logsumexp(logits, dim=-1, keepdim=True)
            total += (log_z.squeeze(-1) - logits.gather(-1, goal[:, None]).squeeze(-1)).sum()
            if d_hidden is None and d_weight is None:
                continue
            slope = logits.sub_(log_z).exp_()  # softmax, in place
            slope.scatter_add_(
                -1, goal[:, None], torch.full_like(goal[:, None], -1, dtype=slope.dtype)
            )
            slope = slope.to(weight.dtype)
            if d_hidden is not None:
                d_hidden[start : start + CHUNK] = slope @ weight
            if d_weight is not None:
                d_weight += slope.T @ part
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        d_hidden, d_weight = ctx.saved_tensors
        if d_hidden is not None:
            d_hidden = d_hidden * upstream.to(d_hidden.dtype)
        if d_weight is not None:
            d_weight = (d_weight * upstream).to(ctx.weight_dtype)
        return d_hidden, d_weight, None


def chunked_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Summed cross-entropy of a linear head: (N, D), (V, D), (N,) -> scalar."""
    apply: Callable[..., torch.Tensor] = _ChunkedCrossEntropy.apply
    return apply(hidden, weight, targets)


def causal(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Summed next-token loss of a batch (nats) through a plain linear head."""
    inner: Any = unwrapped(model)
    hidden = inner.get_decoder()(
        input_ids=batch.inputs, position_ids=batch.positions, use_cache=False
    ).last_hidden_state  # (B, T, D)
    where = batch.targets != IGNORE
    return chunked_cross_entropy(
        hidden[where], inner.get_output_embeddings().weight, batch.targets[where]
    )


def causal_any_head(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The same loss through the model's own logits: for heads that scale, cap or shift them."""
    inner: Any = unwrapped(model)
    logits = inner(
        input_ids=batch.inputs, position_ids=batch.positions, use_cache=False
    ).logits  # (B, T, V)
    where = batch.targets != IGNORE
    return F.cross_entropy(logits[where].float(), batch.targets[where], reduction="sum")


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


OBJECTIVES: dict[str, Objective] = {"causal": causal, "causal_any_head": causal_any_head}
