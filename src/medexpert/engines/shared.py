"""Which prompts begin alike, so that what they share is encoded once: a tree of token sequences.

A node is a stretch of tokens whose keys and values are kept, behind those of its parent. `plan`
puts the rows of one call on nodes, those of earlier calls included; `Store` keeps nodes from call
to call. Under causal attention any beginning of a node is as good as the whole. A model that reads
its prompt both ways may share a whole prompt only, since every key depends on all of it.

Standard library only: what is kept in a node is the business of `engines.branches`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Ids = list[int]
LEAST = 16
"""Fewer tokens than this are not worth sharing."""
PART = 8
"""Nor is less than this part (one eighth) of what is to be encoded: sharing has a price as well."""


@dataclass(eq=False)
class Node:
    """Keys and values (`kept`, None until computed) of ids[start:], seen behind ids[:start] as the
    parent chain holds them."""

    ids: Ids
    start: int = 0
    parent: Node | None = None
    kept: Any = None

    @property
    def size(self) -> int:
        return len(self.ids) - self.start

    def chain(self, most: int) -> Iterator[tuple[Node, int, int]]:
        """(node, from, to) of the stretches that make up ids[:most], the last one first."""
        node: Node | None = self
        while node is not None and most > 0:
            if most > node.start:
                yield node, node.start, most
            most, node = min(most, node.start), node.parent


@dataclass(eq=False)
class Leaf:
    """Row `index` of a call: `ids`, of which the first `depth` are taken from `base`."""

    index: int
    ids: Ids
    base: Node | None = None
    depth: int = 0

    @property
    def rest(self) -> Ids:
        return self.ids[self.depth :]


@dataclass
class Store:
    """The nodes used last, at most `limit` tokens of them."""

    limit: int
    _nodes: dict[int, Node] = field(default_factory=dict)  # by id(); the least recently used first

    @property
    def tokens(self) -> int:
        return sum(node.size for node in self._nodes.values())

    def longest(self, ids: Ids) -> tuple[Node | None, int]:
        """The node that shares the longest beginning with `ids`, and how long that is."""
        found: tuple[Node | None, int] = (None, 0)
        for node in self._nodes.values():
            length = common(node.ids, ids)
            if length > found[1]:
                found = node, length
        return found

    def whole(self, ids: Ids) -> Node | None:
        """The node of exactly these ids."""
        return next((node for node in self._nodes.values() if node.ids == ids), None)

    def use(self, node: Node) -> None:
        """Keep the node, as the most recently used; drop those that no longer fit."""
        # A parent is always newer than its children: what goes first is nobody's parent.
        for one in _upwards(node):
            self._nodes.pop(id(one), None)
            self._nodes[id(one)] = one
        left = self.tokens
        for key in list(self._nodes):
            if left <= self.limit:
                break
            left -= self._nodes.pop(key).size

    def clear(self) -> None:
        self._nodes.clear()


def _upwards(node: Node | None) -> Iterator[Node]:
    while node is not None:
        yield node
        node = node.parent


def common(one: Ids, other: Ids) -> int:
    """Length of the common beginning."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def plan(rows: Sequence[Ids], free: Sequence[int], store: Store) -> list[Leaf]:
    """A leaf for every row, in an order in which rows that share stand together.

    The last `free[i]` >= 1 tokens of row i are never shared: what the model says there is wanted.
    Nodes that are not yet computed have `kept` None.
    """
    leaves: list[Leaf] = []
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    stack: list[tuple[list[int], Node | None, int]] = [(order, None, 0)] if order else []
    while stack:
        group, base, depth = stack.pop()
        if len(group) == 1:
            leaves.append(_leaf(group[0], rows, free, store, base, depth))
            continue
        ends = {i: len(rows[i]) - free[i] for i in group}
        length = min(common(rows[group[0]], rows[group[-1]]), *ends.values())
        held, known = store.longest(rows[group[0]][:length])
        if known > depth and _worth(known - depth, length - depth):
            base, depth = held, known
        if _worth(length - depth, max(len(rows[i]) for i in group) - depth):
            base, depth = Node(rows[group[0]][:length], depth, base), length
        for part in reversed(_parted(group, rows, ends, length)):
            if part[1]:
                stack.append((part[0], base, depth))
            else:
                leaves += [_leaf(i, rows, free, store, base, depth) for i in part[0]]
    return leaves


def _worth(saved: int, whole: int) -> bool:
    return saved >= LEAST and saved * PART >= whole


def _parted(
    group: Sequence[int], rows: Sequence[Ids], ends: dict[int, int], length: int
) -> list[tuple[list[int], bool]]:
    """The group by its next token; rows that may share no further by themselves (False)."""
    over = [i for i in group if ends[i] <= length]
    parts: list[tuple[list[int], bool]] = [(over, False)] if over else []
    token = -1
    for i in group:
        if ends[i] > length:
            if rows[i][length] != token:
                token = rows[i][length]
                parts.append(([], True))
            parts[-1][0].append(i)
    return parts


def _leaf(
    index: int, rows: Sequence[Ids], free: Sequence[int], store: Store, base: Node | None,
    depth: int,
) -> Leaf:  # fmt: skip
    """The row on the deepest node there is for it."""
    ids = rows[index]
    held, known = store.longest(ids[: len(ids) - free[index]])
    if known > depth and _worth(known - depth, len(ids) - depth):
        base, depth = held, known
    return Leaf(index, ids, base, depth)


def plan_whole(
    rows: Sequence[Ids], free: Sequence[int], sizes: Sequence[int], store: Store, *, always: bool
) -> list[Leaf]:
    """As `plan`, for a model that reads the first `sizes[i]` tokens of row i both ways: rows share
    exactly these or nothing. The last of them is encoded again where the row ends on it, which is
    exact, since it sees all of them either way. `always`: a node even for one row alone.
    """
    heads = [tuple(ids[:size]) for ids, size in zip(rows, sizes, strict=True)]
    times = Counter(heads)
    made: dict[tuple[int, ...], Node | None] = {}
    leaves = []
    for index, (ids, head) in enumerate(zip(rows, heads, strict=True)):
        if head not in made:
            new = Node(list(head)) if always or times[head] > 1 else None
            made[head] = store.whole(list(head)) or new
        depth = min(len(head), len(ids) - free[index]) if made[head] else 0
        leaves.append(Leaf(index, ids, made[head], depth))
    return sorted(leaves, key=lambda leaf: leaf.ids)


def waves(leaves: Sequence[Leaf], limit: int) -> Iterator[list[Leaf]]:
    """Leaves in their order, cut so that each part needs at most `limit` tokens of new nodes (or
    one leaf): what is computed for one part can be dropped before the next."""
    wave: list[Leaf] = []
    seen: set[int] = set()
    tokens = 0
    for leaf in leaves:
        new = [n for n in _upwards(leaf.base) if n.kept is None and id(n) not in seen]
        size = sum(node.size for node in new)
        if wave and size and tokens + size > limit:
            yield wave
            wave, tokens = [], 0
        wave.append(leaf)
        seen |= {id(node) for node in new}
        tokens += size
    if wave:
        yield wave


def levels(leaves: Sequence[Leaf]) -> Iterator[list[Node]]:
    """The nodes that these leaves need and that are not yet computed, parents before children."""
    found: dict[int, list[Node]] = {}
    seen: set[int] = set()
    for leaf in leaves:
        chain = [node for node in _upwards(leaf.base) if node.kept is None]
        for level, node in enumerate(reversed(chain)):
            if id(node) not in seen:
                seen.add(id(node))
                found.setdefault(level, []).append(node)
    for level in sorted(found):
        yield found[level]
