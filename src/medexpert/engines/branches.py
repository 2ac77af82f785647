"""Rows that continue from shared beginnings (`engines.shared`), exactly as if encoded whole.

A batch holds, slot by slot, `[padding, what is shared] [rest of the row] [room to write]`. Places
are told and padding is masked, so under full attention only the order of slots matters and
the holes do not. Layers with a sliding window count slots: rows go this way only where no slot
is out of the window's reach. A model of another kind is asked the naive way (`obstacle`).

Legend: B rows, T tokens, G key heads, D size of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from medexpert.engines.network import Network, padded_left, padded_right
from medexpert.engines.prefix import scoring_mask
from medexpert.engines.shared import Leaf, Node

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Largest difference of a continued to a whole pass, in parts of the largest state; else 5 %."""

HELD = 4
"""Slots of a batch in parts of the tokens of a pass: what is written is a token a row at a time, so
a batch of many rows is no large pass, but its cache is to be held."""


class _Layer(DynamicLayer):  # type: ignore[misc,no-untyped-call,unused-ignore]
    """A cache layer with room for all that will come: nothing is copied to append a token."""

    def __init__(self, leaves: Sequence[Leaf], number: int, shared: int, slots: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.leaves, self.number = leaves, number
        self.used, self.shared, self.slots = shared, shared, slots

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.is_initialized:
            self.all_keys = self._begin(key_states, 0)
            self.all_values = self._begin(value_states, 1)
            self.dtype, self.device = key_states.dtype, key_states.device
            self.is_initialized = True
        end = self.used + key_states.shape[2]
        self.all_keys[:, :, self.used : end] = key_states
        self.all_values[:, :, self.used : end] = value_states
        self.used = end
        self.keys, self.values = self.all_keys[:, :, :end], self.all_values[:, :, :end]
        return self.keys, self.values

    def _begin(self, like: torch.Tensor, which: int) -> torch.Tensor:
        rows, groups, _, size = like.shape
        made = like.new_empty((rows, groups, self.slots, size))
        for row, leaf in enumerate(self.leaves):
            before = self.shared - leaf.depth
            made[row, :, :before] = 0  # masked, but not-a-number times nought is no nought
            for node, start, end in leaf.base.chain(leaf.depth) if leaf.base else ():
                kept = node.kept[self.number][which][:, start - node.start : end - node.start]
                made[row, :, before + start : before + end] = kept
        return made

    def select(self, rows: torch.Tensor) -> None:
        self.all_keys, self.all_values = self.all_keys[rows], self.all_values[rows]

    def get_seq_length(self) -> int:
        return self.used

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.used + query_length, 0


class Branches:
    """A batch of leaves and its cache. `left`: shorter rests are padded on the left, as writing
    `room` more tokens behind them needs; otherwise on the right."""

    def __init__(
        self, network: Network, leaves: Sequence[Leaf], *, room: int = 0, left: bool = False,
        both_ways: bool = False,
    ) -> None:  # fmt: skip
        self.network = network
        rests = [leaf.rest for leaf in leaves]
        depths = torch.tensor([leaf.depth for leaf in leaves])[:, None]
        sizes = torch.tensor([len(rest) for rest in rests])[:, None]
        width, shared = int(sizes.max()), int(depths.max())
        ids = padded_left(rests) if left else padded_right(rests)
        begin = width - sizes if left else torch.zeros_like(sizes)
        place = torch.arange(width)[None]
        real = (place >= begin) & (place < begin + sizes)
        seen = torch.arange(shared)[None] >= shared - depths
        device = network.device
        self.mask = torch.cat([seen, real], 1).to(device)
        self.positions = (depths + (place - begin).clamp_min(0)).to(device)
        self.holes = not bool(self.mask.all())
        self.inputs: dict[str, Any] = {"input_ids": ids.to(device), "use_cache": True}
        if both_ways:
            lengths = [len(rest) for rest in rests]
            self.inputs["attention_mask"] = scoring_mask(network.model, lengths, lengths)
        elif shared or left:
            self.inputs["position_ids"] = self.positions
            # Without padding before a token, `quick.blocks` needs no mask to see what it may.
            if left or not network.blocks or bool((depths != shared).any()):
                self.inputs["attention_mask"] = self.mask.long()
        self.cache = empty_cache(network.model)
        slots = shared + width + room
        self.layers = [_Layer(leaves, n, shared, slots) for n in range(len(self.cache.layers))]
        self.cache.layers = list(self.layers)
        self.inputs["past_key_values"] = self.cache
        self.shared = shared

    def states(self) -> torch.Tensor:
        """Last states (or logits, see `Network`) of the rests, (B, T, H)."""
        return self.network.states(self.inputs)

    def first_logits(self) -> torch.Tensor:
        """Logits (B, V) behind the rests, which must be padded on the left."""
        return self.network.last_logits(self.inputs)

    def next_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) behind one more token a row, `tokens` (B,)."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        self.positions = self.positions[:, -1:] + 1
        return self.network.last_logits(
            {
                "input_ids": tokens[:, None],
                "attention_mask": self.mask.long(),
                "position_ids": self.positions,
                "past_key_values": self.cache,
                "use_cache": True,
            }
        )

    def select(self, rows: torch.Tensor) -> None:
        """Go on with these rows only."""
        self.mask, self.positions = self.mask[rows], self.positions[rows]
        for layer in self.layers:
            layer.select(rows)

    def kept(self, row: int, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values (G, size, D) of the first tokens of a row's rest, a pair a layer."""
        at = slice(self.shared, self.shared + size)
        return [
            (layer.all_keys[row, :, at].clone(), layer.all_values[row, :, at].clone())
            for layer in self.layers
        ]


def empty_cache(model: Any) -> Any:
    """transformers' own cache for the model; its layers tell what kind they are."""
    return DynamicCache(config=model.config)


def compute(
    network: Network, nodes: Sequence[Node], *, budget: int, both_ways: bool, reach: int = 0
) -> int:
    """Fill `kept` of nodes whose parents are filled, in batches; the tokens that were encoded."""
    leaves = [Leaf(k, node.ids, node.parent, node.start) for k, node in enumerate(nodes)]
    for batch in grouped(leaves, budget, reach=reach, level=network.blocks):
        made = Branches(network, batch, both_ways=both_ways)
        network.encode(made.inputs)
        for row, leaf in enumerate(batch):
            nodes[leaf.index].kept = made.kept(row, nodes[leaf.index].size)
    return sum(node.size for node in nodes)


def grouped(
    leaves: Sequence[Leaf], budget: int, *, room: int = 0, reach: int = 0, level: bool = False
) -> Iterator[list[Leaf]]:
    """Batches of leaves of like length, longest first (or one row alone): rows x longest rest
    <= budget, rows x slots <= HELD x budget, slots <= reach where there is one. `level`: leaves of
    a batch share equally many tokens."""
    batch: list[Leaf] = []
    depth = rest = 0

    def order(leaf: Leaf) -> tuple[int, int, int]:
        length = len(leaf.ids)
        return (-leaf.depth if level else -length, -length if level else -leaf.depth, leaf.index)

    for leaf in sorted(leaves, key=order):
        deeper, longer = max(depth, leaf.depth), max(rest, len(leaf.ids) - leaf.depth)
        slots, rows = deeper + longer + room, len(batch) + 1
        full = longer * rows > budget or slots * rows > HELD * budget or 0 < reach < slots
        if batch and (full or (level and depth != leaf.depth)):
            yield batch
            batch, deeper, longer = [], leaf.depth, len(leaf.ids) - leaf.depth
        batch.append(leaf)
        depth, rest = deeper, longer
    if batch:
        yield batch


def reach_of(model: Any) -> tuple[int, str]:
    """(slots of a batch up to which keys and values are what they are in a whole pass, why): the
    smallest sliding window, or the length from which on positions are scaled otherwise ("longrope",
    by the longest row of a pass). (0, "") = any."""
    sliding = [x for x in empty_cache(model).layers if isinstance(x, DynamicSlidingWindowLayer)]
    limits = [(int(layer.sliding_window), "sliding window") for layer in sliding]
    told = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    for rope in (told, *told.values()):  # in some models one for each kind of layer
        if isinstance(rope, dict) and rope.get("rope_type") == "longrope":
            limits.append((int(rope["original_max_position_embeddings"]), "rotary scaling"))
    return min(limits, default=(0, ""))


@torch.inference_mode()
def obstacle(network: Network) -> str:
    """Why this model cannot go on from shared beginnings exactly; "" where it can.

    Asked of the model itself: two rows of unlike length, continued from a node, against two whole
    passes. An architecture may count positions or lay out its cache in a way of its own.
    """
    kinds = {type(layer) for layer in empty_cache(network.model).layers}
    other = sorted(kind.__name__ for kind in kinds - {DynamicLayer, DynamicSlidingWindowLayer})
    if other or not kinds:
        return f"its cache has layers of kind {', '.join(other) or 'none'}"
    ids = [(7 * k + 3) % network.vocabulary for k in range(12)]
    node = Node(ids[:5])
    leaves = [Leaf(0, ids[:7], node, 5), Leaf(1, [*ids[:3], *ids[8:12]], node, 3)]
    reach, limit = reach_of(network.model)
    if 0 < reach < 9:
        return f"its {limit} is {reach} tokens"
    try:
        compute(network, [node], budget=1, both_ways=False)
        found = Branches(network, leaves, room=1, left=True).first_logits()
    except (TypeError, ValueError, AttributeError, RuntimeError, KeyError, IndexError) as error:
        return f"its forward pass refuses: {type(error).__name__}"
    for row, leaf in enumerate(leaves):
        inputs = {"input_ids": torch.tensor([leaf.ids], device=network.device), "use_cache": False}
        whole = network.last_logits(inputs)[0].float()
        allowed = TOLERANCE.get(network.model.dtype, 0.05) * float(whole.abs().max())
        if not bool(((found[row].float() - whole).abs() <= allowed).all()):
            return "continued and whole passes differ"
    return ""
