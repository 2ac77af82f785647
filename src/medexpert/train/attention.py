"""Attention of packed items on a CPU: each item by itself, and only the blocks that are seen.

PyTorch's CPU kernel multiplies whole rows against a mask, so that a row of many short items costs
as much as one long item, and its way back is slow. Here every item is a few plain products. With
rows of 512 tokens this is two to five times faster (docs/log.md, "Training speed").
In bf16 the scores are rounded before the softmax, as in transformers' eager attention.

Legend: B rows, T tokens a row, H query heads, G key heads (H / G queries share a key head), D size
of a head, n tokens of an item.

    P = softmax(scale Q K^T + mask),  O = P V
    dV = P^T dO,  dS = P * (dO V^T - rowsum(P * dO V^T)),  dQ = scale dS K,  dK = scale dS^T Q
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch

BLOCK = 128
"""Queries of an item that are multiplied at once; keys after a block are not looked at."""
KEEP = 1024
"""Rows up to so long keep P for the way back; for longer ones it is made again, to save memory."""
UNSEEN = -1
"""Item number of tokens that nothing looks at: their attention is zero."""
ITEMS, PREFIX = "packed_items", "packed_prefix"
"""Names under which the decoder passes `items` and `prefix` on to its layers."""


def _kept(rows: int, heads: int, width: int, both_ways: bool) -> int:
    """Upper limit of the numbers in all P of a batch; items of any lengths need no more."""
    if width > KEEP:
        return 0
    ends = (min(width, (i // BLOCK + 1) * BLOCK) for i in range(width))
    return rows * heads * (width * width if both_ways else sum(ends))


def _runs(items: torch.Tensor) -> list[tuple[int, int, int]]:
    """(row, start, end) of each item; `items` (B, T)."""
    found = []
    for row, numbers in enumerate(items):
        cuts = (numbers[1:] != numbers[:-1]).nonzero().flatten().add_(1).tolist()
        edges = [0, *cuts, len(numbers)]
        for start, end in itertools.pairwise(edges):
            if int(numbers[start]) != UNSEEN:
                found.append((row, start, end))
    return found


def _blocks(n: int, both_ways: bool) -> Iterator[tuple[int, int, int]]:
    """(first query, last + 1, keys) of the blocks of an item."""
    for start in range(0, n, BLOCK):
        end = min(n, start + BLOCK)
        yield start, end, n if both_ways else end


def _weights(
    queries: torch.Tensor, keys: torch.Tensor, start: int, end: int, prefix: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:  # fmt: skip
    """P (G, H/G, end - start, k) of a block; queries (G, H/G x its length, D), keys (G, k, D)."""
    scores = torch.baddbmm(
        queries.new_zeros(()), queries, keys.transpose(1, 2), beta=0, alpha=scale
    )
    shaped = scores.view(len(keys), -1, end - start, keys.shape[1])
    if prefix is None:  # only the last keys can lie after a query
        unseen = torch.ones(end - start, end - start, dtype=torch.bool).triu_(1)
        shaped[..., start:].masked_fill_(unseen, -math.inf)
    else:
        unseen = torch.ones(end - start, keys.shape[1], dtype=torch.bool).triu_(start + 1)
        shaped.masked_fill_(unseen & ~prefix, -math.inf)
    return torch.softmax(shaped, -1)


@torch.library.custom_op("medexpert::packed_attention", mutates_args=())
def packed_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, items: torch.Tensor,
    prefix: torch.Tensor | None, scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Attention within items: (B, H, T, D), (B, G, T, D) twice -> (B, T, H, D), and P for later.

    `items` (B, T) numbers the items, UNSEEN takes none; `prefix` (B, T) bool: seen from everywhere
    in its item. Token i sees j iff they are of one item and (prefix[j] or j <= i).
    """
    rows, heads, width, size = query.shape
    groups = key.shape[1]
    out = query.new_zeros((rows, width, heads, size))
    kept = query.new_empty(_kept(rows, heads, width, prefix is not None))
    at = 0
    for row, first, last in _runs(items):
        n = last - first
        q = query[row, :, first:last].view(groups, -1, n, query.shape[-1])  # (G, H/G, n, D)
        k = key[row, :, first:last].contiguous()
        v = value[row, :, first:last].contiguous()
        o = out[row, first:last].view(n, groups, -1, size)  # (n, G, H/G, D)
        seen = _prefix_of(prefix, row, first, last)
        for start, end, keys in _blocks(n, seen is not None):
            p = _weights(q[:, :, start:end].flatten(1, 2), k[:, :keys], start, end, seen, scale)
            if len(kept):
                kept[at : at + p.numel()].view_as(p).copy_(p)
                at += p.numel()
            mixed = torch.bmm(p.flatten(1, 2), v[:, :keys])
            o[start:end] = mixed.view(groups, -1, end - start, size).permute(2, 0, 1, 3)
    return out, kept


def _prefix_of(prefix: torch.Tensor | None, row: int, first: int, last: int) -> torch.Tensor | None:
    """The prefix of an item, None where it has none (then it is plain causal)."""
    found = None if prefix is None else prefix[row, first:last]
    return found if found is not None and bool(found.any()) else None


@packed_attention.register_fake
def _(query: Any, key: Any, value: Any, items: Any, prefix: Any, scale: float) -> Any:
    rows, heads, width, size = query.shape
    return (
        query.new_empty((rows, width, heads, size)),
        query.new_empty(_kept(rows, heads, width, prefix is not None)),
    )


@torch.library.custom_op("medexpert::packed_attention_back", mutates_args=())
def packed_attention_back(
    upstream: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    items: torch.Tensor, prefix: torch.Tensor | None, kept: torch.Tensor, scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Gradients of query, key and value; upstream (B, T, H, D)."""
    groups = key.shape[1]
    d_query = torch.zeros_like(query)
    d_key, d_value = torch.zeros_like(key), torch.zeros_like(value)
    at = 0
    for row, first, last in _runs(items):
        n = last - first
        q = query[row, :, first:last].view(groups, -1, n, query.shape[-1])
        up = upstream[row, first:last].reshape(n, groups, -1, upstream.shape[-1])
        up = up.permute(1, 2, 0, 3)
        k = key[row, :, first:last].contiguous()
        v = value[row, :, first:last].contiguous()
        dq = d_query[row, :, first:last].view(groups, -1, n, query.shape[-1])
        wide = torch.promote_types(k.dtype, torch.float32)
        dk, dv = (torch.zeros(k.shape, dtype=wide) for _ in range(2))
        seen = _prefix_of(prefix, row, first, last)
        for start, end, keys in _blocks(n, seen is not None):
            queries = q[:, :, start:end].flatten(1, 2)  # (G, m, D)
            goal = up[:, :, start:end].flatten(1, 2)
            if len(kept):
                size = queries.shape[0] * queries.shape[1] * keys
                p = kept[at : at + size].view(groups, -1, keys)
                at += size
            else:
                p = _weights(queries, k[:, :keys], start, end, seen, scale).flatten(1, 2)
            dv[:, :keys] += torch.bmm(p.transpose(1, 2), goal)
            d_p = torch.bmm(goal, v[:, :keys].transpose(1, 2))
            d_s = torch.ops.aten._softmax_backward_data(d_p, p, -1, p.dtype)
            dq[:, :, start:end] = torch.bmm(d_s, k[:, :keys]).view_as(q[:, :, start:end])
            dk[:, :keys] += torch.bmm(d_s.transpose(1, 2), queries)
        d_key[row, :, first:last] = dk.mul_(scale)
        d_value[row, :, first:last] = dv
    return d_query.mul_(scale), d_key, d_value


@packed_attention_back.register_fake
def _(
    upstream: Any, query: Any, key: Any, value: Any, items: Any, prefix: Any, kept: Any,
    scale: float,
) -> Any:  # fmt: skip
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    query, key, value, items, prefix, ctx.scale = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(query, key, value, items, prefix, output[1])


def _back(ctx: Any, upstream: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
    grads = packed_attention_back(upstream, *ctx.saved_tensors, ctx.scale)
    return *grads, None, None, None


packed_attention.register_autograd(_back, setup_context=_remember)

# What a model may hand on to its attention without changing what is computed here.
_HARMLESS = {"position_ids", "use_cache", "output_attentions", "output_hidden_states",
             "return_dict", "cache_position", "is_causal", "num_items_in_batch"}  # fmt: skip


def _attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, dropout: float = 0.0,
    scaling: float | None = None, **more: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """transformers' sdpa attention; packed items, where they are told, by :func:`packed_attention`.

    Layers that do more than plain causal attention (windows, sinks, biases) go the usual way.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    items, prefix = more.pop(ITEMS, None), more.pop(PREFIX, None)
    plain = (
        items is not None and not dropout
        and query.device.type == "cpu"
        and more.get("is_causal", getattr(module, "is_causal", True)) is not False
        and query.shape[2] == key.shape[2] and query.shape[-1] == value.shape[-1]
        and all(name in _HARMLESS or value_ is None for name, value_ in more.items())
    )  # fmt: skip
    if not plain:
        found, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return found, None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return packed_attention(query, key, value, items, prefix, scale)[0], None


def install() -> None:
    """Let transformers' "sdpa" take packed items. Without them it stays what it was."""
    from transformers import AttentionInterface

    AttentionInterface.register("sdpa", _attend)
