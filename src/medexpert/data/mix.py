"""In which order the records of a stage are learned.

Within a group the target share of source i is p_i proportional to min(n_i, cap)^tau, or its
explicit weight. The order takes records so that any prefix holds the shares to within a record of
each source, until a source runs out; then the rest go on in their proportions. A small source may
be passed over several times (`max_epochs`) to hold its share. Replay is a second group, mixed in by
characters. Mixing orders, it never drops: replay beyond its share is told by :func:`take_replay`.

Everything is arrays: a reference is a row number of the stage's lines, and the order of a source
comes from a seeded hash of its records' ids, so neither file order nor workers change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medexpert.records import UserError

Refs = NDArray[np.int64]
"""Line numbers of a stage, in the order in which they are learned."""


@dataclass(frozen=True)
class Pool:
    """The lines of one source that may be used: their numbers and a seeded hash of each."""

    name: str
    lines: Refs
    rank: NDArray[np.uint64]


def targets(
    counts: Mapping[str, int], weights: Mapping[str, float], *, tau: float, cap: int
) -> dict[str, float]:
    """Share of each source, summing to 1; sources without a record are left out.

    Sources with a weight get it; the others divide what is left by min(n, cap)^tau. When all have
    a weight, the weights are scaled to sum to 1. Raises UserError when weights leave nothing.
    """
    live = {name: n for name, n in counts.items() if n > 0}
    fixed = {name: weights[name] for name in live if weights.get(name, 0) > 0}
    free = {name: float(min(n, cap)) ** tau for name, n in live.items() if name not in fixed}
    total = sum(fixed.values())
    if not free:
        return {name: weight / total for name, weight in fixed.items()}
    if total >= 1:
        raise UserError(
            f"the weights sum to {total:g}, which leaves nothing for {', '.join(sorted(free))}",
            allowed="weights that sum to less than 1, or a weight for every source of the stage",
        )
    rest = (1 - total) / sum(free.values())
    return {name: fixed[name] if name in fixed else free[name] * rest for name in live}


def draws(
    counts: Mapping[str, int], share: Mapping[str, float], max_epochs: float
) -> dict[str, int]:
    """How many records each source gives: enough to hold its share while the largest lasts.

    The source with the most records for its share is used once; the others as often as their share
    asks, at most `max_epochs` times, at least once.
    """
    live = {name: n for name, n in counts.items() if n > 0}
    length = max((n / share[name] for name, n in live.items()), default=0.0)
    return {
        name: max(n, min(round(share[name] * length), int(max_epochs * n)))
        for name, n in live.items()
    }


def order_group(
    pools: Sequence[Pool], share: Mapping[str, float], wanted: Mapping[str, int], seed: int
) -> Refs:
    """The lines of a group: `wanted` of each source, its own in seeded order, spread by `share`.

    The k-th line of a source stands at (k + 1/2) / share (stride scheduling).
    """
    lines, places = [], []
    for pool in pools:
        if not len(pool.lines):
            continue
        passes = -(-wanted[pool.name] // len(pool.lines))
        whole = np.concatenate([shuffled(pool, seed, epoch) for epoch in range(passes)])
        lines.append(whole[: wanted[pool.name]])
        places.append((np.arange(wanted[pool.name]) + 0.5) / share[pool.name])
    if not lines:
        return np.empty(0, dtype=np.int64)
    order = np.argsort(np.concatenate(places), kind="stable")
    result: Refs = np.concatenate(lines)[order]
    return result


def shuffled(pool: Pool, seed: int, epoch: int) -> Refs:
    """The pool's lines in an order that depends on their ids, the seed and the epoch only."""
    salt = hashlib.sha256(f"mix:{seed}:{pool.name}:{epoch}".encode()).digest()[:8]
    key = pool.rank ^ np.uint64(int.from_bytes(salt, "little"))
    key = (key ^ (key >> np.uint64(31))) * np.uint64(0x7FB5D329728EA185)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x81DADEF4BC2DD44D)
    order = np.argsort(key ^ (key >> np.uint64(33)), kind="stable")
    result: Refs = pool.lines[order]
    return result


def take_replay(order: Refs, sizes: NDArray[np.int64], train_chars: int, share: float) -> int:
    """How many lines of the replay order are used, so that replay is `share` of all characters.

    `sizes`: characters of every line of the stage. Exact to within half a record when the replay
    sources are large enough; else all are used.
    """
    if share >= 1:
        return len(order)
    wanted = share / (1 - share) * train_chars
    lengths = sizes[order]
    before = np.cumsum(lengths) - lengths
    return int(np.searchsorted(before + lengths / 2, wanted, side="right"))


def interleave(train: Refs, replay: Refs, sizes: NDArray[np.int64]) -> Refs:
    """Both orders in one, each kept, so that any prefix has the whole's replay share of characters.

    The prefix share is off by at most one record's characters.
    """
    places = []
    for group in (train, replay):
        lengths = sizes[group]
        total = max(int(lengths.sum()), 1)
        places.append((np.cumsum(lengths) - lengths / 2) / total)
    order = np.argsort(np.concatenate(places), kind="stable")
    result: Refs = np.concatenate([train, replay])[order]
    return result
