"""Objectives: a model and a batch -> summed loss, with logits only where there is a target.

Legend: B rows, T tokens a row, N positions with a target, D hidden size, V vocabulary.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from medexpert.recipe_train import Stage
from medexpert.train import attention
from medexpert.train.batches import IGNORE, Batch
from medexpert.train.masks import attention_mask

CHUNK = 128
"""Positions whose fp32 logits exist at once, uncompiled: 128 x 49,152 is 25 MB."""
BLOCK = 1024
"""Positions whose softmax is kept in the weight's dtype for one product with the hidden states."""

Objective = Callable[[nn.Module, Batch, float], torch.Tensor]
Softmax = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""logits (n, V), targets (n,) -> log-probability of each target (n,) fp32; logits turn softmax."""


def row_softmax(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A :data:`Softmax` for a compiler: a row at a time in cache, nothing of fp32 in memory."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    peak = wide.amax(-1, keepdim=True)
    total = (wide - peak).exp().sum(-1, keepdim=True).log() + peak
    log_p = (wide.gather(-1, targets[:, None]) - total)[:, 0]
    logits.copy_((wide - total).exp())
    return log_p


def chunked_softmax(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A :data:`Softmax` of plain operations, in chunks, to keep the fp32 part small."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    found = logits.new_empty(len(logits), dtype=wide)
    for start in range(0, len(logits), CHUNK):
        here = slice(start, start + CHUNK)
        log_p = torch.log_softmax(logits[here], dim=-1, dtype=wide)
        found[here] = log_p.gather(-1, targets[here, None])[:, 0]
        logits[here] = log_p.exp_()
    return found


class _ChunkedCrossEntropy(torch.autograd.Function):
    """scale x sum over N of -log softmax(h W^T)[target], gradients made on the way forward.

    hidden (N, D), weight (V, D), targets (N,) -> scalar fp32. The gradient of the weight is one
    product a block, so that V x D is passed over as rarely as memory allows.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, scale: float,
        softmax: Softmax,
    ) -> torch.Tensor:  # fmt: skip
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        sums = _Gradients(hidden, weight, ctx.needs_input_grad)
        for here, slope, log_p in _blocks(hidden, weight, targets, softmax):
            total -= log_p.sum()
            if sums.wanted:
                slope[torch.arange(len(slope), device=slope.device), targets[here]] -= 1
                sums.add(here, slope, scale)
        ctx.save_for_backward(sums.hidden, sums.weight)
        ctx.weight_dtype = weight.dtype
        return total * scale

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        if float(upstream) != 1.0:
            d_hidden = None if d_hidden is None else d_hidden * upstream.to(d_hidden.dtype)
            d_weight = None if d_weight is None else d_weight * upstream.to(d_weight.dtype)
        d_weight = None if d_weight is None else d_weight.to(ctx.weight_dtype)
        return d_hidden, d_weight, None, None, None


class _LinearLogProbs(torch.autograd.Function):
    """log softmax(h W^T)[target] of each position (N,) fp32; logits are made again on the way back.

    d h = sum over V of u (onehot - p) W, d W = (u (onehot - p))^T h, with u the upstream (N,).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor,
        softmax: Softmax,
    ) -> torch.Tensor:  # fmt: skip
        ctx.softmax = softmax
        ctx.save_for_backward(hidden, weight, targets)
        found = [log_p for _, _, log_p in _blocks(hidden, weight, targets, softmax)]
        wide = torch.promote_types(hidden.dtype, torch.float32)
        return torch.cat(found) if found else hidden.new_zeros(0, dtype=wide)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, targets = ctx.saved_tensors
        sums = _Gradients(hidden, weight, ctx.needs_input_grad)
        for here, slope, _ in _blocks(hidden, weight, targets, ctx.softmax):
            slope[torch.arange(len(slope), device=slope.device), targets[here]] -= 1
            slope.mul_(-upstream[here, None].to(slope.dtype))
            sums.add(here, slope, 1.0)
        d_weight = None if sums.weight is None else sums.weight.to(weight.dtype)
        return sums.hidden, d_weight, None, None


class _Gradients:
    """Gradients of hidden and weight, summed over blocks of logits' slopes."""

    def __init__(self, hidden: torch.Tensor, weight: torch.Tensor, needs: tuple[bool, ...]) -> None:
        self._inputs = hidden, weight
        self.hidden = torch.zeros_like(hidden) if needs[0] else None
        self.weight: torch.Tensor | None = None
        self._needs_weight = needs[1]
        self.wanted = needs[0] or needs[1]

    def add(self, here: slice, slope: torch.Tensor, scale: float) -> None:
        """`slope` (n, V): d loss / d logits of the positions `here`."""
        hidden, weight = self._inputs
        if self.hidden is not None:
            self.hidden[here] = (slope @ weight) * scale
        if self._needs_weight:
            part = slope.T @ (hidden[here] * scale)  # (V, D)
            if len(slope) < len(hidden):  # of several blocks: summed in fp32
                part = part.float() if part.dtype == torch.bfloat16 else part
                self.weight = part if self.weight is None else self.weight.add_(part)
            else:
                self.weight = part


def _blocks(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, softmax: Softmax
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """(which positions, their softmax (n, V) in the weight's dtype, log-probabilities (n,))."""
    for start in range(0, len(hidden), BLOCK):
        here = slice(start, min(start + BLOCK, len(hidden)))
        logits = hidden[here] @ weight.T
        log_p = softmax(logits, targets[here])
        yield here, logits, log_p


def chunked_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, scale: float = 1.0,
    softmax: Softmax = chunked_softmax,
) -> torch.Tensor:  # fmt: skip
    """`scale` x summed cross-entropy of a linear head: (N, D), (V, D), (N,) -> scalar."""
    apply: Callable[..., torch.Tensor] = _ChunkedCrossEntropy.apply
    return apply(hidden, weight, targets, scale, softmax)


def _inputs(model: Any, batch: Batch) -> dict[str, Any]:
    """What the model is called with; on a CPU also which items it may work on one by one."""
    config = model.config.get_text_config()
    found: dict[str, Any] = {
        "input_ids": batch.inputs,
        "position_ids": batch.positions,
        "use_cache": False,
    }
    mask = attention_mask(batch, config._attn_implementation, config)
    if mask is not None:
        found["attention_mask"] = mask
    if _takes_items.get(model) and batch.inputs.device.type == "cpu":
        found[attention.ITEMS] = batch.items
        if mask is not None:
            found[attention.PREFIX] = batch.prefix
    return found


_takes_items: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
_heads: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def causal(
    model: nn.Module, batch: Batch, scale: float = 1.0, softmax: Softmax = chunked_softmax
) -> torch.Tensor:
    """`scale` x summed next-token loss of a batch (nats) through a plain linear head."""
    inner: Any = unwrapped(model)
    hidden = inner.get_decoder()(**_inputs(inner, batch)).last_hidden_state  # (B, T, D)
    where = batch.targets != IGNORE
    weight = inner.get_output_embeddings().weight
    return chunked_cross_entropy(hidden[where], weight, batch.targets[where], scale, softmax)


def causal_any_head(model: nn.Module, batch: Batch, scale: float = 1.0) -> torch.Tensor:
    """The same loss through the model's own logits: for heads that scale, cap or shift them."""
    inner: Any = unwrapped(model)
    logits = inner(**_inputs(inner, batch)).logits  # (B, T, V)
    where = batch.targets != IGNORE
    return scale * F.cross_entropy(logits[where].float(), batch.targets[where], reduction="sum")


def target_logprobs(
    model: nn.Module, batch: Batch, softmax: Softmax = chunked_softmax
) -> torch.Tensor:
    """Log-probability of each target, (N,) fp32, in the order of `batch.targets` row by row.

    With gradients. Through a plain linear head at most BLOCK positions' logits exist at once.
    """
    inner: Any = unwrapped(model)
    where = batch.targets != IGNORE
    targets = batch.targets[where]
    if head_of(model) == "linear":
        hidden = inner.get_decoder()(**_inputs(inner, batch)).last_hidden_state[where]
        apply: Callable[..., torch.Tensor] = _LinearLogProbs.apply
        return apply(hidden, inner.get_output_embeddings().weight, targets, softmax)
    logits = inner(**_inputs(inner, batch)).logits[where]
    wide = torch.promote_types(logits.dtype, torch.float32)
    return torch.log_softmax(logits, -1, dtype=wide).gather(-1, targets[:, None])[:, 0]


def unwrapped(model: Any) -> nn.Module:
    """The transformers model under a peft wrapper (its layers stay adapted)."""
    inner: nn.Module = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner


def head_of(model: Any) -> str:
    """How logits are made, "linear" or "own"; found out once a model."""
    inner: Any = unwrapped(model)
    if inner not in _heads:
        _heads[inner] = choose_causal(model, inner.config.get_text_config().vocab_size)[0]
    return _heads[inner]


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


@torch.no_grad()
def takes_items(model: Any, vocabulary: int) -> bool:
    """Whether the model's layers are handed `packed_items` and then give what they gave before.

    Tried on two items of a row: with :mod:`attention` and the usual way, which must agree.
    """
    inner: Any = unwrapped(model)
    config = inner.config.get_text_config()
    if next(inner.parameters()).device.type != "cpu" or config._attn_implementation != "sdpa":
        return False
    attention.install()
    ids = torch.arange(12)[None] % vocabulary
    places = torch.tensor([[*range(5), *range(7)]])
    items = torch.tensor([[0] * 5 + [1] * 7])
    was_training = model.training
    model.eval()
    try:
        run: Any = inner.get_decoder()
        usual = run(input_ids=ids, position_ids=places, use_cache=False).last_hidden_state
        told = run(
            input_ids=ids, position_ids=places, use_cache=False, **{attention.ITEMS: items}
        ).last_hidden_state
    except TypeError:  # a forward without **kwargs
        return False
    finally:
        model.train(was_training)
    return torch.allclose(usual.float(), told.float(), rtol=2e-2, atol=2e-2)


class Learner(nn.Module):
    """A model and its objective as one module: the root that is sharded, compiled and called.

    `forward(batch, scale)` is scale x the summed loss of the batch. `vocabulary` is the number of
    ids; `head` tells how logits are made ("linear" or "own", see :func:`choose_causal`).
    `train.speed.prepare` sets `softmax`, and `width`, to which every row is best padded (0: as is).
    """

    def __init__(self, model: nn.Module, vocabulary: int, settings: Stage | None = None) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.softmax: Softmax = chunked_softmax
        self.width = 0
        self.head, self._causal = choose_causal(model, vocabulary)
        self.pairs: Any = None
        if settings is not None and settings.objective == "preference":
            from medexpert.train.preference import PreferenceObjective

            self.pairs = PreferenceObjective(settings.preference)
        inner = unwrapped(model)
        _heads[inner] = self.head
        _takes_items[inner] = takes_items(model, vocabulary)

    def forward(self, batch: Batch, scale: float = 1.0) -> torch.Tensor:
        if self.pairs is not None:
            return self.pairs(self.model, batch, scale)  # type: ignore[no-any-return]
        if self.head == "linear":
            return causal(self.model, batch, scale, self.softmax)
        return self._causal(self.model, batch, scale)

    def take_facts(self, summed: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """What the objective found since the last call beside the loss; `summed` over processes."""
        return {} if self.pairs is None else self.pairs.take_facts(summed)
