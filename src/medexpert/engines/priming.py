"""Which beginnings several prompts of one call share, and in which order to encode them first.

Pure functions of token ids. Caches keep whole blocks, so all lengths here are multiples of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Ids = list[int]
BLOCK = 32
"""Tokens in one block of OpenVINO's key-value cache on a CPU."""


@dataclass(frozen=True)
class Prefix:
    """A beginning that `rows` prompts share; its first `known` tokens are encoded before it."""

    ids: tuple[int, ...]
    known: int
    rows: int


def by_prefix(rows: Sequence[Ids]) -> list[int]:
    """Indices of the rows in lexicographic order: rows that share a beginning are neighbours."""
    return sorted(range(len(rows)), key=lambda k: (rows[k], k))


def waves(rows: Sequence[Ids], block: int = BLOCK) -> list[list[Prefix]]:
    """Prefixes to encode before the rows, wave after wave; those of one wave do not build on each
    other, those of the next build on it.

    A prefix is worth its request when two rows or more share at least one block beyond what the
    wave before has encoded: it is then encoded once instead of once a row.
    """
    ordered = sorted(rows)
    found: list[list[Prefix]] = []
    open_ = [(0, len(ordered), 0, 0)]  # rows from, to; tokens already encoded; wave
    while open_:
        low, high, known, wave = open_.pop()
        if high - low < 2:
            continue
        # Of sorted rows the first and the last share what all share.
        shared = common(ordered[low], ordered[high - 1])
        whole = shared // block * block
        if whole > known:
            found += [[] for _ in range(wave + 1 - len(found))]
            found[wave].append(Prefix(tuple(ordered[low][:whole]), known, high - low))
            known, wave = whole, wave + 1
        while low < high and len(ordered[low]) == shared:  # it ends here: nothing more to share
            low += 1
        start = low
        for at in range(low + 1, high + 1):
            if at == high or ordered[at][shared] != ordered[start][shared]:
                open_.append((start, at, known, wave))
                start = at
    return [sorted(wave, key=lambda prefix: prefix.ids) for wave in found]


def cached_tokens(row: Ids, prefixes: Sequence[Sequence[Prefix]]) -> int:
    """Tokens of the row that the waves have encoded. One token at least is left to encode."""
    longest = 0
    for wave in prefixes:
        for prefix in wave:
            size = len(prefix.ids)
            if longest < size <= len(row) and tuple(row[:size]) == prefix.ids:
                longest = size
    return min(longest, len(row) - 1)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the shared beginning."""
    size = min(len(one), len(other))
    return next((k for k in range(size) if one[k] != other[k]), size)
