"""Who sees whom in a prefix language model: one rule for training, scoring and generation.

Token i of a row sees token j iff both are of one item and (j is in the item's prefix or j <= i):
part A is read both ways, part B causally (GLM, arXiv 2103.10360, section 2.1). Layers with a
sliding window see, on either side, no further than the window that the model was trained with.

Legend: B rows, T tokens a row.
"""

from __future__ import annotations

from typing import Any

import torch

from medexpert.records import UserError

FULL, SLIDING = "full_attention", "sliding_attention"
IMPLEMENTATIONS = ("sdpa", "eager", "flex_attention")


def visible(items: torch.Tensor, prefix: torch.Tensor, window: int = 0) -> torch.Tensor:
    """(B, 1, T, T) bool, True = row's token i (third axis) sees token j (fourth).

    `items` (B, T) numbers the items, padding being an item of its own, so that every token sees
    itself at least; `prefix` (B, T) bool. `window` > 0: only tokens nearer than that.
    """
    width = items.shape[1]
    place = torch.arange(width, device=items.device)
    seen = prefix[:, None, :] | (place[None, :] <= place[:, None])
    seen &= items[:, None, :] == items[:, :, None]
    if 0 < window < width:
        seen &= (place[None, :] - place[:, None]).abs() < window
    return seen[:, None]


def windows(config: Any) -> dict[str, int]:
    """Window of each kind of layer, 0 = none. One entry without a name: all layers are alike.

    Raises UserError for layers that cannot read a prefix both ways (linear attention, chunks).
    """
    kinds = set(getattr(config, "layer_types", None) or ())
    size = int(getattr(config, "sliding_window", None) or 0)
    if not kinds:
        return {"": size}
    other = sorted(kinds - {FULL, SLIDING})
    if other:
        raise UserError(
            f"this model has layers of kind {', '.join(other)}, which cannot read a prefix both "
            "ways",
            where=str(getattr(config, "model_type", "")),
            allowed="attention = causal, no infilling; or a model of full or sliding attention",
        )
    return {"": 0} if kinds == {FULL} else {FULL: 0, SLIDING: size}


def prefix_mask(
    items: torch.Tensor, prefix: torch.Tensor, config: Any, implementation: str
) -> torch.Tensor | dict[str, Any] | Any:
    """What to pass to a transformers model as `attention_mask` for :func:`visible`.

    sdpa: bool. eager: additive fp32, since a bool mask would be added as 0 and 1 there.
    flex_attention: a BlockMask. A model with sliding layers gets one mask a kind of layer.
    Raises UserError for other implementations: they take two-dimensional masks only, or none.
    """
    if implementation not in IMPLEMENTATIONS:
        raise UserError(
            f"attention implementation {implementation!r} cannot read a prefix both ways",
            allowed=", ".join(IMPLEMENTATIONS),
        )
    make = _blocks if implementation == "flex_attention" else _dense
    made: dict[int, Any] = {}
    found: dict[str, Any] = {}
    for kind, window in windows(config).items():
        window = window if window < items.shape[1] else 0
        if window not in made:
            made[window] = make(items, prefix, window, implementation)
        found[kind] = made[window]
    return found.get("", found)


def _dense(
    items: torch.Tensor, prefix: torch.Tensor, window: int, implementation: str
) -> torch.Tensor:
    seen = visible(items, prefix, window)
    if implementation == "sdpa":
        return seen
    lowest = torch.finfo(torch.float32).min
    mask: torch.Tensor = torch.zeros(seen.shape, device=seen.device)
    return mask.masked_fill_(~seen, lowest)


def _blocks(items: torch.Tensor, prefix: torch.Tensor, window: int, implementation: str) -> Any:
    """A BlockMask of the same rule; blocks in which nothing is seen are never computed."""
    from torch.nn.attention.flex_attention import create_block_mask

    def rule(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        seen = (items[b, i] == items[b, j]) & (prefix[b, j] | (j <= i))
        return seen & ((i - j).abs() < window) if window else seen

    rows, width = items.shape
    build: Any = create_block_mask
    return build(rule, rows, None, width, width, device=str(items.device))


@torch.no_grad()
def check_prefix(model: Any) -> None:
    """Raise UserError unless `model` really reads a prefix both ways under :func:`prefix_mask`.

    Asked of the model itself, on two items of six tokens, since an architecture may ignore or
    rewrite the mask it is given: changing the prefix's last token must move the logits of its first
    and leave the other item alone; changing the last token must move nothing before it.
    """
    config = model.config.get_text_config()
    device = next(model.parameters()).device
    items = torch.tensor([[0] * 6 + [1] * 6], device=device)
    prefix = torch.tensor([[True] * 4 + [False] * 2 + [True] * 3 + [False] * 3], device=device)
    ids = (torch.arange(12, device=device)[None] * 7 + 3) % config.vocab_size
    mask = prefix_mask(items, prefix, config, config._attn_implementation)
    positions = torch.arange(6, device=device).repeat(2)[None]

    def logits(changed: int | None) -> torch.Tensor:
        given = ids.clone()
        if changed is not None:
            given[0, changed] = (given[0, changed] + 1) % config.vocab_size
        out = model(
            input_ids=given, position_ids=positions, attention_mask=mask, use_cache=False
        ).logits
        found: torch.Tensor = out[0].float()
        return found

    was_training = model.training
    model.eval()
    try:
        plain, inside, last = logits(None), logits(3), logits(5)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, IndexError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _cannot(config, f"it does not take such a mask ({line})") from None
    finally:
        model.train(was_training)
    size = plain.abs().max() * 1e-4 + 1e-6
    moved_inside = (plain - inside).abs().amax(-1) > 1e-7 * plain.abs().max()
    still = (plain - inside).abs().amax(-1)[6:].max() < size
    ahead = (plain - last).abs().amax(-1)[:5].max() < size
    if not (bool(moved_inside[:6].all()) and bool(still) and bool(ahead)):
        raise _cannot(config, "it does not keep to such a mask")


def _cannot(config: Any, why: str) -> UserError:
    kind = getattr(config, "model_type", type(config).__name__)
    return UserError(
        f"the architecture {kind} cannot read a prefix both ways: {why}",
        allowed="attention = causal, no infilling",
    )
