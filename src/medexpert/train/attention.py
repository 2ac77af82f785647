"""Attention of packed items on a CPU: each item by itself, and only the blocks that are seen.

PyTorch's CPU kernel multiplies whole rows against a mask, so that a row of many short items costs
as much as one long item, and its way back is slow. Here every item is a few plain products. With
rows of 512 tokens this is two to five times faster (docs/log.md, "Training speed").
In bf16 the scores are rounded before the softmax, as in transformers' eager attention.

Legend: B rows, T tokens a row, H query heads, G key heads (H / G queries share a key head), D size
of a head, n tokens of an item, R rows taken together, N = R x G.

    P = softmax(scale Q K^T + mask),  O = P V
    dV = P^T dO,  dS = P * (dO V^T - rowsum(P * dO V^T)),  dQ = scale dS K,  dK = scale dS^T Q
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import library as operators

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


class _Item(NamedTuple):
    """Tokens start to end of the rows `at` (a list, or all of them); `prefix` (n,) or None."""

    at: Any
    start: int
    end: int
    prefix: torch.Tensor | None


def _runs(items: torch.Tensor, prefix: torch.Tensor | None) -> list[_Item]:
    """The items of a batch; causal ones that lie alike in several rows are taken together.

    `items` (B, T). Fewer and larger products: starting them and waiting for them costs as well.
    Rows longer than KEEP are taken one by one, since their blocks are large enough and memory is
    scarce.
    """
    alike: dict[tuple[int, int, int], list[int]] = {}
    alone = items.shape[1] > KEEP
    found = []
    for row, numbers in enumerate(items):
        cuts = (numbers[1:] != numbers[:-1]).nonzero().flatten().add_(1).tolist()
        edges = [0, *cuts, len(numbers)]
        for start, end in itertools.pairwise(edges):
            if int(numbers[start]) == UNSEEN:
                continue
            seen = None if prefix is None else prefix[row, start:end]
            if seen is not None and bool(seen.any()):
                found.append(_Item([row], start, end, seen))
            else:  # plain causal
                alike.setdefault((start, end, row * alone), []).append(row)
    for (start, end, _), rows in alike.items():
        found.append(_Item(rows if len(rows) < len(items) else slice(None), start, end, None))
    return found


def _blocks(n: int, both_ways: bool) -> Iterator[tuple[int, int, int]]:
    """(first query, last + 1, keys) of the blocks of an item."""
    for start in range(0, n, BLOCK):
        end = min(n, start + BLOCK)
        yield start, end, n if both_ways else end


def _after(rows: int, keys: int, diagonal: int) -> torch.Tensor:
    """(rows, keys) bool: the key lies after the query, whose number is its row + diagonal."""
    return torch.ones(rows, keys, dtype=torch.bool).triu_(diagonal + 1)


@functools.lru_cache(maxsize=BLOCK)
def _corner(rows: int) -> torch.Tensor:
    """The square of :func:`_after` on the diagonal; all sizes together are under 1 MB."""
    return _after(rows, rows, 0)


def _weights(
    queries: torch.Tensor, keys: torch.Tensor, start: int, end: int, prefix: torch.Tensor | None,
    scale: float, out: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """P (N, H/G x m, k) of a block of m = end - start queries, in the place `out` where it is kept.

    queries (N, H/G x m, D), keys (N, k, D), N = R x G for R rows.
    """
    scores = torch.baddbmm(
        queries.new_zeros(()), queries, keys.transpose(1, 2), beta=0, alpha=scale
    )
    shaped = scores.view(len(keys), -1, end - start, keys.shape[1])
    if prefix is None:  # only the last keys can lie after a query
        shaped[..., start:].masked_fill_(_corner(end - start), -math.inf)
    else:
        shaped.masked_fill_(_after(end - start, keys.shape[1], start) & ~prefix, -math.inf)
    if not len(out):
        return torch.softmax(scores, -1)
    torch.softmax(scores, -1, out=out[: scores.numel()].view_as(scores))
    return out[: scores.numel()].view_as(scores)


def _split(states: torch.Tensor, item: _Item, groups: int) -> torch.Tensor:
    """The item's part of (B, H, T, D) as (R x G, H/G, n, D)."""
    part = states[item.at, :, item.start : item.end]
    return part.reshape(len(part) * groups, -1, *part.shape[2:])


def _place(into: torch.Tensor, item: _Item, found: torch.Tensor, start: int, end: int) -> None:
    """Write (R x G, H/G x m, D), a block of the item, to (B, H, T, D)."""
    heads, size = into.shape[1], into.shape[3]
    shaped = found.view(-1, heads, end - start, size).to(into.dtype)
    into[item.at, :, item.start + start : item.start + end] = shaped


@operators.custom_op("medexpert::packed_attention", mutates_args=())
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
    for item in _runs(items, prefix):
        q = _split(query, item, groups)
        k, v = (_split(x, item, groups)[:, 0].contiguous() for x in (key, value))  # (N, n, D)
        for start, end, keys in _blocks(k.shape[1], item.prefix is not None):
            queries = q[:, :, start:end].flatten(1, 2)
            p = _weights(queries, k[:, :keys], start, end, item.prefix, scale, kept[at:])
            at += p.numel() if len(kept) else 0
            _place(out.transpose(1, 2), item, torch.bmm(p, v[:, :keys]), start, end)
    return out, kept


@packed_attention.register_fake
def _(query: Any, key: Any, value: Any, items: Any, prefix: Any, scale: float) -> Any:
    rows, heads, width, size = query.shape
    return (
        query.new_empty((rows, width, heads, size)),
        query.new_empty(_kept(rows, heads, width, prefix is not None)),
    )


@operators.custom_op("medexpert::packed_attention_back", mutates_args=())
def packed_attention_back(
    upstream: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    items: torch.Tensor, prefix: torch.Tensor | None, kept: torch.Tensor, scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Gradients of query, key and value; upstream (B, T, H, D)."""
    groups = key.shape[1]
    d_query = torch.zeros_like(query)
    d_key, d_value = torch.zeros_like(key), torch.zeros_like(value)
    at = 0
    for item in _runs(items, prefix):
        q = _split(query, item, groups)
        up = _split(upstream.transpose(1, 2), item, groups)
        k, v = (_split(x, item, groups)[:, 0].contiguous() for x in (key, value))  # (N, n, D)
        wide = torch.promote_types(k.dtype, torch.float32)
        dk, dv = (torch.zeros(k.shape, dtype=wide) for _ in range(2))
        for start, end, keys in _blocks(k.shape[1], item.prefix is not None):
            queries = q[:, :, start:end].flatten(1, 2)  # (N, H/G x m, D)
            goal = up[:, :, start:end].flatten(1, 2)
            if len(kept):
                number = queries.shape[0] * queries.shape[1] * keys
                p = kept[at : at + number].view(*queries.shape[:2], keys)
                at += number
            else:
                p = _weights(queries, k[:, :keys], start, end, item.prefix, scale, kept)
            dv[:, :keys] += torch.bmm(p.transpose(1, 2), goal)
            d_p = torch.bmm(goal, v[:, :keys].transpose(1, 2))
            d_s = torch.ops.aten._softmax_backward_data(d_p, p, -1, p.dtype)
            _place(d_query, item, torch.bmm(d_s, k[:, :keys]), start, end)
            dk[:, :keys] += torch.bmm(d_s.transpose(1, 2), queries)
        _place(d_key, item, dk.mul_(scale), 0, k.shape[1])
        _place(d_value, item, dv, 0, k.shape[1])
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
