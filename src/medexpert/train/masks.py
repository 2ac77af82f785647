"""The attention mask of a training batch, from its items and their prefixes."""

from __future__ import annotations

from typing import Any

import torch

from medexpert.model.attention import prefix_mask
from medexpert.train.batches import Batch

__all__ = ["attention_mask"]


def attention_mask(
    batch: Batch, implementation: str, config: Any = None
) -> torch.Tensor | dict[str, Any] | Any:
    """`attention_mask` of the model's forward: token i sees j iff same item and (prefix or j <= i).

    None where every item is causal: transformers keeps items apart by their restarting positions,
    without a cache, and faster. Otherwise (B, 1, T, T): bool for sdpa, additive fp32 for eager, a
    BlockMask for flex_attention; for a `config` (the text config) with sliding layers a mask a kind
    of layer. A row of packed items equals separate runs of each.

    Raises UserError for an attention implementation that takes no such mask.
    """
    if not bool(batch.prefix.any()):
        return None
    return prefix_mask(batch.items, batch.prefix, config, implementation)
