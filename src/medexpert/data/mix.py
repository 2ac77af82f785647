"""In which order the records of a stage are learned.

Within a group the target share of source i is p_i proportional to min(n_i, cap)^tau, or its
explicit weight. The order takes from the source furthest behind its share, so any prefix holds the
shares to within a few records until a source runs out; then the rest go on in their proportions.
Replay is a second group, mixed in by characters. Mixing orders, it never drops: replay beyond its
share is taken out before, by :func:`choose_replay`, and counted.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from medexpert.records import UserError

Ref = tuple[str, int]
"""(source, position in that source)."""


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


def order_group(counts: Mapping[str, int], share: Mapping[str, float], seed: int) -> list[Ref]:
    """Every (source, position) exactly once, shuffled within a source, interleaved by `share`."""
    queues = {name: _shuffled(name, n, seed) for name, n in counts.items() if n > 0}
    order: list[Ref] = []
    while queues:
        total = sum(share[name] for name in queues)
        wanted = {name: share[name] / total for name in queues}
        taken = dict.fromkeys(queues, 0)
        step = 0
        while True:
            step += 1
            name = max(wanted, key=lambda n: (wanted[n] * step - taken[n], n))
            taken[name] += 1
            order.append((name, queues[name].pop()))
            if not queues[name]:
                del queues[name]
                break  # the shares of those that are left are worked out anew
    return order


def _shuffled(name: str, n: int, seed: int) -> list[int]:
    positions = list(range(n))
    random.Random(f"mix:{seed}:{name}").shuffle(positions)
    return positions


def choose_replay(
    order: Sequence[Ref], sizes: Mapping[str, Sequence[int]], train_chars: int, share: float
) -> tuple[list[Ref], list[Ref]]:
    """(used, surplus) of the replay order, so that used / (used + train) is `share` of characters.

    Exact to within half a record when the replay sources are large enough; else all are used.
    """
    if share >= 1:
        return list(order), []
    wanted = share / (1 - share) * train_chars
    total = 0
    for number, (name, position) in enumerate(order):
        size = sizes[name][position]
        if total + size / 2 > wanted:
            return list(order[:number]), list(order[number:])
        total += size
    return list(order), []


def interleave(
    train: Sequence[Ref], replay: Sequence[Ref], sizes: Mapping[str, Sequence[int]]
) -> list[Ref]:
    """Both orders in one, each kept, so that any prefix has the whole's replay share of characters.

    The prefix share is off by at most one record's characters.
    """
    total = [sum(sizes[name][i] for name, i in group) for group in (train, replay)]
    done = [0, 0]
    queues = [list(reversed(train)), list(reversed(replay))]
    order: list[Ref] = []
    while queues[0] or queues[1]:
        behind = done[1] * total[0] < done[0] * total[1]
        which = 1 if queues[1] and (behind or not queues[0]) else 0
        name, position = queues[which].pop()
        done[which] += sizes[name][position]
        order.append((name, position))
    return order


def realised(
    order: Iterable[Ref], sizes: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, float]]:
    """Source -> its share of records and of characters in an order."""
    records: dict[str, int] = {}
    characters: dict[str, int] = {}
    for name, position in order:
        records[name] = records.get(name, 0) + 1
        characters[name] = characters.get(name, 0) + sizes[name][position]
    n, c = sum(records.values()) or 1, sum(characters.values()) or 1
    return {
        name: {"records": round(records[name] / n, 4), "characters": round(characters[name] / c, 4)}
        for name in records
    }
