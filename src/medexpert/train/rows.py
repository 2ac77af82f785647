"""Pieces -> rows -> steps: the plan of a stage, and who reads which row of it.

A plan holds piece numbers in flat arrays, never pieces, so that ten million fit. It is a pure
function of the pieces' lengths and of its arguments: every process makes the same one, and nothing
but the step has to be remembered to resume, on any number of processes.

Legend: N pieces, R rows of all epochs.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from medexpert.records import UserError
from medexpert.train.batches import IGNORE, Batch, Piece, collate

WINDOW = 512
"""Pieces packed together: few enough to keep the order of the mix, enough to fill the rows."""
SHUFFLED_WINDOW = 4096
"""The same where there is no order to keep: up to 2 % fewer rows."""
WINDOW_ROWS = 128
"""Where pieces are much shorter than a row, as many as give so many rows: one row of a window is
left half empty, and of 128 that is little."""

Numbers = NDArray[np.int64]


@runtime_checkable
class Measured(Protocol):
    """Pieces that know their sizes without being read (`train.store`): arrays of shape (N,)."""

    @property
    def lengths(self) -> NDArray[np.int32]: ...
    @property
    def target_counts(self) -> NDArray[np.int32]: ...
    @property
    def tasks(self) -> NDArray[np.int32]: ...


class Rows(Sequence[NDArray[np.int32]]):
    """Lists of piece numbers end to end in one array; `starts` (R + 1,) tells where each begins."""

    def __init__(self, pieces: NDArray[np.int32], starts: Numbers) -> None:
        self.pieces, self.starts = pieces, starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, at: int) -> NDArray[np.int32]: ...
    @overload
    def __getitem__(self, at: slice) -> list[NDArray[np.int32]]: ...
    def __getitem__(self, at: int | slice) -> NDArray[np.int32] | list[NDArray[np.int32]]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        number = range(len(self))[at]
        return self.pieces[self.starts[number] : self.starts[number + 1]]

    @property
    def counts(self) -> Numbers:
        """Pieces of each row, (R,)."""
        return np.diff(self.starts)

    def sums(self, values: NDArray[np.int32]) -> Numbers:
        """Sum over each row of a value of its pieces: (N,) -> (R,)."""
        if not len(self):
            return np.zeros(0, np.int64)
        return np.add.reduceat(values[self.pieces], self.starts[:-1], dtype=np.int64)

    def taken(self, order: Numbers) -> Rows:
        """The rows `order` names, in its order."""
        counts = self.counts[order]
        starts = _starts(counts)
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
        return Rows(self.pieces[np.repeat(self.starts[order], counts) + within], starts)

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """All rows of `parts`, one part after the other."""
        counts = np.concatenate([part.counts for part in parts])
        return cls(np.concatenate([part.pieces for part in parts]), _starts(counts))


def _starts(counts: Numbers) -> Numbers:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def best_fit(window: Sequence[int], sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of the indices in `window`, index i being `sizes[k]` long where `window[k] == i`.

    In order of falling size each goes to the fullest row that still takes it (best-fit-decreasing):
    on real lengths it fills rows as well as first fit, in a twentieth of the time. Raises
    ValueError when a piece is longer than a row.
    """
    rows: list[list[int]] = []
    free: list[int] = []  # room << 32 | row, ascending; full rows are left out
    order = np.lexsort((np.asarray(window), -np.asarray(sizes, np.int64)))
    for at in order.tolist():
        size, index = sizes[at], window[at]
        place = bisect_left(free, size << 32)
        if place < len(free):
            found = free.pop(place)
            room, row = found >> 32, found & 0xFFFFFFFF
            rows[row].append(index)
        else:
            if size > capacity:
                raise ValueError(f"piece of {size} tokens in rows of {capacity}")
            room, row = capacity, len(rows)
            rows.append([index])
        if room > size:
            insort(free, room - size << 32 | row)
    return rows


def pack(lengths: Sequence[int], capacity: int, order: Sequence[int]) -> Iterator[list[int]]:
    """Rows of piece indices, each at most `capacity` tokens, every index of `order` exactly once.

    Packed by :func:`best_fit` within windows of the given order. Raises ValueError when a piece is
    longer than a row.
    """
    span = window_size(len(order), sum(lengths[i] for i in order), capacity)
    for start in range(0, len(order), span):
        window = order[start : start + span]
        yield from best_fit(window, [lengths[i] for i in window], capacity)


def window_size(pieces: int, tokens: int, capacity: int, least: int = WINDOW) -> int:
    """Pieces packed together, of so many with so many tokens in all, in rows of `capacity`."""
    return max(least, -(-WINDOW_ROWS * capacity * pieces // max(tokens, 1)))


class Plan:
    """All rows of a stage, in the order they are learned from: a pure function of its arguments.

    `pieces`: a store, a list, or any iterable (which is then held in memory). `capacity` tokens a
    row. `epochs` passes, the last one cut where it is a fraction; `max_tokens` (0 = no cap) ends
    the plan with the first row that reaches it. Step k reads rows k*rows_per_step ..., of all
    processes together. `shuffle`: pieces in a new order each epoch; else in the given one. Rows of
    a packing window are always shuffled, or length would follow the place in training. `by_task`: a
    row, and a micro-batch, holds pieces of one task. `unit`: what a step's loss is a mean over.
    `fence` (0 = none): the pieces before this number are read before the others, and no row holds
    both; only without `shuffle` and `by_task`, else ValueError. Raises UserError without pieces,
    ValueError when one is longer than a row.
    """

    def __init__(
        self,
        pieces: Iterable[Piece],
        capacity: int,
        epochs: float,
        max_tokens: int,
        rows_per_step: int,
        seed: int,
        shuffle: bool,
        by_task: bool = False,
        unit: Literal["token", "piece"] = "token",
        fence: int = 0,
    ) -> None:
        if fence and (shuffle or by_task):
            raise ValueError("a fence needs pieces that are read in their order")
        self.pieces = pieces if isinstance(pieces, Sequence) else list(pieces)
        if not len(self.pieces):
            raise UserError("no training data is left for this stage", where="data")
        self.capacity, self.rows_per_step, self.by_task = capacity, rows_per_step, by_task
        lengths, targets, tasks = _measures(self.pieces)
        self.tokens_per_epoch = int(lengths.sum(dtype=np.int64))
        wanted = epochs * self.tokens_per_epoch
        if max_tokens:
            wanted = min(wanted, max_tokens)
        groups = tasks if by_task else None
        if fence:  # two groups as tasks are, of which the first comes whole before the second
            groups = (np.arange(len(lengths)) >= fence).astype(np.int32)
        whole: list[Rows] = []
        read = 0
        for epoch in range(math.ceil(epochs)):
            rows = _epoch(lengths, capacity, np.random.default_rng([seed, epoch]), shuffle, groups)
            so_far = read + np.cumsum(rows.sums(lengths))
            # The row that reaches what is wanted is the last.
            last = min(int(np.searchsorted(so_far, wanted)), len(rows) - 1)
            whole.append(rows.taken(np.arange(last + 1)) if last + 1 < len(rows) else rows)
            read = int(so_far[last])
            if read >= wanted:
                break
        self.rows = Rows.joined(whole)
        self.epochs, self.tokens = len(whole), read
        self._lengths = self.rows.sums(lengths)
        self._units = self.rows.sums(targets) if unit == "token" else self.rows.counts
        self._tasks = tasks[self.rows.pieces[self.rows.starts[:-1]]]

    @property
    def steps(self) -> int:
        return math.ceil(len(self.rows) / self.rows_per_step)

    def facts(self) -> dict[str, int | float]:
        """Where the tokens went: `fed_tokens` + `left_out_tokens` = all tokens of the epochs begun.

        `padding` is what rows of full capacity would hold beside tokens, over all rows (it is
        computed only with static shapes; a batch tells its own); `fill` the share they do hold.
        """
        room = len(self.rows) * self.capacity
        return {
            "rows": len(self.rows),
            "fed_tokens": self.tokens,
            "left_out_tokens": self.epochs * self.tokens_per_epoch - self.tokens,
            "padding": room - self.tokens,
            "fill": self.tokens / room,
        }

    def step_rows(self, step: int) -> list[list[int]]:
        """Rows of optimiser step `step` (from 0). The last step may hold fewer."""
        return [row.tolist() for row in self.rows[self._slice(step)]]

    def units(self, step: int) -> int:
        """What the loss of a step is a mean over, of all processes: target tokens, or pieces."""
        return int(self._units[self._slice(step)].sum())

    def batches(
        self, step: int, micro_rows: int, pad: int, rank: int = 0, size: int = 1, width: int = 0
    ) -> list[Batch]:
        """The micro-batches of a step that process `rank` of `size` reads, the longest rows first.

        Each process gets the same number of them; one without a row left gets a batch of padding,
        without a target. Rows of like length are together and read at the same time. A `width`
        pads every batch to the same shape: so many tokens, and the same number of rows. Raises
        ValueError when a row is longer.
        """
        dealt = self.dealt(step, micro_rows, size)
        height = self._height(micro_rows, size) if width else 0
        batches = []
        for start in range(0, len(dealt), size):
            mine = dealt[start + rank] if start + rank < len(dealt) else None
            shown = dealt[start] if mine is None else mine
            rows = [[self.pieces[int(i)] for i in self.rows[int(row)]] for row in shown]
            if mine is None:  # the others' shape: waiting for them would take as long
                wide = width or int(self._lengths[shown].max())
                batches.append(collate([[]] * max(height, len(shown)), pad, wide))
            else:
                batches.append(collate(rows + [[]] * (height - len(rows)), pad, width))
        return batches

    def dealt(self, step: int, micro_rows: int, size: int) -> list[Numbers]:
        """The row numbers of each micro-batch of a step; number k is read by process k mod `size`.

        Every row of the step is in exactly one.
        """
        rows = np.arange(len(self.rows), dtype=np.int64)[self._slice(step)]
        rows = rows[np.argsort(-self._lengths[rows], kind="stable")]
        most = self._height(micro_rows, size)
        if not self.by_task:  # in the last step there may be fewer rows than processes would hold
            return np.array_split(rows, max(math.ceil(len(rows) / most), min(len(rows), size)))
        groups = [rows[self._tasks[rows] == task] for task in np.unique(self._tasks[rows])]
        parts = [p for g in groups for p in np.array_split(g, math.ceil(len(g) / most))]
        return sorted(parts, key=lambda part: -int(self._lengths[part[0]]))

    def _height(self, micro_rows: int, size: int) -> int:
        """Rows of a micro-batch, at most: a step in as few rounds as `micro_rows` allows."""
        rounds = math.ceil(self.rows_per_step / (micro_rows * size))
        return math.ceil(self.rows_per_step / (rounds * size))

    def _slice(self, step: int) -> slice:
        return slice(step * self.rows_per_step, (step + 1) * self.rows_per_step)


def _measures(
    pieces: Sequence[Piece],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Lengths, numbers of targets and tasks of all pieces, each (N,)."""
    if isinstance(pieces, Measured):
        return pieces.lengths, pieces.target_counts, pieces.tasks
    each = [(len(p), np.count_nonzero(p.targets != IGNORE), p.task) for p in pieces]
    lengths, targets, tasks = np.asarray(each, dtype=np.int32).T
    return lengths, targets, tasks


def _epoch(
    lengths: NDArray[np.int32],
    capacity: int,
    rng: np.random.Generator,
    shuffle: bool,
    tasks: NDArray[np.int32] | None,
) -> Rows:
    """All pieces once, packed, in the order in which an epoch reads them.

    With `tasks` each is packed on its own, and the rows of all are merged by the places their
    windows have in the order: every stretch of training sees the tasks in their shares, and groups
    that follow one another in the order stay so.
    """
    count = len(lengths)
    order = rng.permutation(count) if shuffle else np.arange(count)
    places = [np.arange(count)]
    if tasks is not None:
        places = [np.flatnonzero(tasks[order] == task) for task in np.unique(tasks)]
    parts: list[Rows] = []
    keys: list[Numbers] = []
    for place in places:
        tokens = int(lengths[order[place]].sum(dtype=np.int64))
        least = SHUFFLED_WINDOW if shuffle else WINDOW
        span = window_size(len(place), tokens, capacity, least)
        for start in range(0, len(place), span):
            at = place[start : start + span]
            window = order[at]
            packed = best_fit(window.tolist(), lengths[window].tolist(), capacity)
            mixed = [packed[i] for i in rng.permutation(len(packed))]
            flat = np.fromiter(itertools.chain.from_iterable(mixed), np.int32, len(window))
            starts = _starts(np.fromiter(map(len, mixed), np.int64, len(mixed)))
            parts.append(Rows(flat, starts))
            keys.append(at[np.arange(len(mixed)) * len(at) // len(mixed)])
    rows = Rows.joined(parts)
    return rows if len(places) == 1 else rows.taken(np.argsort(np.concatenate(keys)))
