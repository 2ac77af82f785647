"""Documents and examples -> rows of tokens. The only place that decides what is learned from.

Shapes: a row is one sequence of T tokens; `targets[i]` is the token to predict at position i,
aligned with the inputs, or IGNORE where nothing is learned. Several items share a row; `positions`
restart at 0 at each, and the model is called without an attention mask and without a cache, which
makes transformers keep the items apart (tests/train/test_packing.py holds it to that).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from medexpert.prompt.template import Segment
from medexpert.records import UserError

IGNORE = -100
WINDOW = 512
"""Pieces packed together: few enough to keep the order of the mix, enough to fill the rows."""

Tokens = NDArray[np.int32]


class Encoder(Protocol):
    """Text -> ids: `start` for what begins a sequence, `more` for what follows (`model.text`)."""

    def start(self, text: str) -> list[int]: ...
    def more(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class Piece:
    """Inputs and their targets, both of length T, that stay in one row.

    The first `prefix` inputs are read both ways, the rest causally. `breaks` are where further
    items begin inside the piece: they stay together, and apart in attention (preference pairs).
    `task` is an index into the stage's task names. `reference` holds one number an item.
    """

    inputs: Tokens
    targets: Tokens
    prefix: int = 0
    task: int = 0
    breaks: tuple[int, ...] = ()
    reference: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass
class Account:
    """Where every item and token went; written to the stage manifest."""

    items: int = 0
    not_read: int = 0
    split_items: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    loss_tokens: int = 0

    def add(self, piece: Piece) -> None:
        self.tokens += len(piece)
        self.loss_tokens += int((piece.targets != IGNORE).sum())

    def facts(self) -> dict[str, object]:
        return {
            "items": self.items,
            "not_read_beyond_max_tokens": self.not_read,
            "split_items": self.split_items,
            "dropped": dict(self.dropped),
            "tokens_per_epoch": self.tokens,
            "loss_tokens_per_epoch": self.loss_tokens,
        }


@dataclass(frozen=True)
class Batch:
    """One micro-batch: tensors of shape (B, T), int64 unless said otherwise.

    `items`: which item of the whole batch a token belongs to, counted from 0; padding is an item of
    its own. `prefix` (bool): the token is in the part of its item that is read both ways.
    `tasks` (B,). `reference` (number of items,) float32, NaN where there is none.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor
    items: torch.Tensor
    prefix: torch.Tensor
    tasks: torch.Tensor
    reference: torch.Tensor
    padding: int

    def to(self, device: torch.device) -> Batch:
        """The same on `device`."""
        moved: dict[str, Any] = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in vars(self).items()
        }
        return Batch(**moved)

    @property
    def loss_tokens(self) -> int:
        return int((self.targets != IGNORE).sum())


def text_pieces(text: str, encode: Encoder, eos: int, length: int) -> list[Piece]:
    """A document and its end-of-text token as pieces of at most `length` tokens.

    Every token but the first is a target exactly once, and every token but the last an input
    exactly once: a longer document is split, never cut.
    """
    ids = np.asarray([*encode.start(text), eos], dtype=np.int32)
    inputs, targets = ids[:-1], ids[1:]
    return [
        Piece(inputs[start : start + length], targets[start : start + length])
        for start in range(0, len(inputs), length)
    ]


def segment_piece(segments: Sequence[Segment], encode: Encoder) -> Piece:
    """Rendered segments as one piece; only tokens of learned segments are targets.

    Segments are tokenised one by one, as evaluation does with prompt and answer.
    """
    ids: list[int] = []
    learned: list[bool] = []
    for segment in segments:
        tokens = encode.more(segment.text) if ids else encode.start(segment.text)
        ids += tokens
        learned += [segment.learn] * len(tokens)
    targets = np.where(learned[1:], ids[1:], IGNORE).astype(np.int32)
    last = len(targets) - int(np.argmax(targets[::-1] != IGNORE)) if len(targets) else 0
    return Piece(np.asarray(ids[:-1], dtype=np.int32)[:last], targets[:last])


def document_pieces(
    texts: Iterable[str], encode: Encoder, eos: int, length: int, account: Account, cap: int = 0
) -> list[Piece]:
    """Stage-1 pieces of many documents, counted; read until `cap` tokens are there (0 = all)."""
    pieces: list[Piece] = []
    for text in texts:
        if cap and account.tokens >= cap:
            account.not_read += 1
            continue
        account.items += 1
        parts = text_pieces(text, encode, eos, length)
        account.split_items += len(parts) > 1
        for part in parts:
            account.add(part)
        pieces += parts
    return pieces


def example_pieces(
    rendered: Iterable[Callable[[], Sequence[Segment]]],
    encode: Encoder,
    length: int,
    account: Account,
    cap: int = 0,
) -> list[Piece]:
    """Stage-2 and -3 pieces, read until `cap` tokens are there (0 = all).

    An example that does not fit is dropped and counted, never cut.
    """
    pieces: list[Piece] = []
    for render in rendered:
        if cap and account.tokens >= cap:
            account.not_read += 1
            continue
        account.items += 1
        piece = segment_piece(render(), encode)
        if len(piece) > length:
            account.dropped["longer than sequence_length"] += 1
        elif not (piece.targets != IGNORE).any():
            account.dropped["nothing to learn"] += 1
        else:
            account.add(piece)
            pieces.append(piece)
    return pieces


def pack(lengths: Sequence[int], capacity: int, order: Sequence[int]) -> Iterator[list[int]]:
    """Rows of piece indices, each at most `capacity` tokens, every index of `order` exactly once.

    First fit in order of falling length within windows of the given order (first-fit-decreasing).
    Raises ValueError when a piece is longer than a row.
    """
    for start in range(0, len(order), WINDOW):
        window = sorted(order[start : start + WINDOW], key=lambda i: (-lengths[i], i))
        rows: list[list[int]] = []
        room: list[int] = []
        for index in window:
            size = lengths[index]
            if size > capacity:
                raise ValueError(f"piece of {size} tokens in rows of {capacity}")
            slot = next((r for r, free in enumerate(room) if free >= size), None)
            if slot is None:
                rows.append([])
                room.append(capacity)
                slot = len(rows) - 1
            rows[slot].append(index)
            room[slot] -= size
        yield from rows


class Plan:
    """All rows of a stage, in the order they are learned from: a pure function of its arguments.

    Step k reads rows k*rows_per_step ... ; nothing but the step has to be remembered to resume.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        *,
        capacity: int,
        epochs: float,
        max_tokens: int,
        rows_per_step: int,
        seed: int,
        shuffle: bool,
    ) -> None:
        if not pieces:
            raise UserError("no training data is left for this stage", where="data")
        self.pieces, self.rows_per_step = pieces, rows_per_step
        lengths = [len(piece) for piece in pieces]
        wanted = epochs * sum(lengths)
        if max_tokens:
            wanted = min(wanted, max_tokens)
        self.rows: list[list[int]] = []
        self.tokens = 0
        for epoch in range(math.ceil(epochs)):
            rng = np.random.default_rng([seed, epoch])
            order = rng.permutation(len(pieces)).tolist() if shuffle else list(range(len(pieces)))
            rows = list(pack(lengths, capacity, order))
            for row in _mixed(rows, rng, lengths=lengths, order=order):
                if self.tokens >= wanted:
                    return
                self.rows.append(row)
                self.tokens += sum(lengths[i] for i in row)

    @property
    def steps(self) -> int:
        return math.ceil(len(self.rows) / self.rows_per_step)

    def step_rows(self, step: int) -> list[list[int]]:
        """Rows of optimiser step `step` (from 0). The last step may hold fewer."""
        return self.rows[step * self.rows_per_step : (step + 1) * self.rows_per_step]

    def batches(self, step: int, micro_rows: int, pad: int) -> list[Batch]:
        """Micro-batches of a step, longest rows together so that little is padded."""
        rows = sorted(self.step_rows(step), key=lambda r: -sum(len(self.pieces[i]) for i in r))
        return [
            collate(
                [[self.pieces[i] for i in row] for row in rows[start : start + micro_rows]], pad
            )
            for start in range(0, len(rows), micro_rows)
        ]


def _mixed(
    rows: list[list[int]], rng: np.random.Generator, *, lengths: list[int], order: list[int]
) -> Iterator[list[int]]:
    """Rows shuffled within stretches of one packing window.

    First fit puts long pieces first; without this, length would follow the place in training.
    """
    rank = {index: position // WINDOW for position, index in enumerate(order)}
    stretch: list[list[int]] = []
    for row in rows:
        if stretch and rank[row[0]] != rank[stretch[0][0]]:
            yield from (stretch[i] for i in rng.permutation(len(stretch)))
            stretch = []
        stretch.append(row)
    yield from (stretch[i] for i in rng.permutation(len(stretch)))


def collate(rows: Sequence[Sequence[Piece]], pad: int) -> Batch:
    """Rows of pieces -> tensors (B, T). Padding stands right, an item of its own, no targets."""
    width = max(sum(len(piece) for piece in row) for row in rows)
    inputs = np.full((len(rows), width), pad, dtype=np.int64)
    targets = np.full((len(rows), width), IGNORE, dtype=np.int64)
    positions = np.zeros((len(rows), width), dtype=np.int64)
    items = np.zeros((len(rows), width), dtype=np.int64)
    prefix = np.zeros((len(rows), width), dtype=np.bool_)
    reference: list[float] = []
    padding = 0
    for number, row in enumerate(rows):
        at = 0
        for piece in row:
            end = at + len(piece)
            inputs[number, at:end] = piece.inputs
            targets[number, at:end] = piece.targets
            prefix[number, at : at + piece.prefix] = True
            bounds = [0, *piece.breaks, len(piece)]
            for start, stop in itertools.pairwise(bounds):
                positions[number, at + start : at + stop] = np.arange(stop - start)
                items[number, at + start : at + stop] = len(reference)
                known = len(piece.reference) > 0
                reference.append(piece.reference[bounds.index(start)] if known else math.nan)
            at = end
        if at < width:
            positions[number, at:] = np.arange(width - at)
            items[number, at:] = len(reference)
            reference.append(math.nan)
        padding += width - at
    return Batch(
        inputs=torch.from_numpy(inputs),
        targets=torch.from_numpy(targets),
        positions=torch.from_numpy(positions),
        items=torch.from_numpy(items),
        prefix=torch.from_numpy(prefix),
        tasks=torch.tensor([row[0].task if row else 0 for row in rows]),
        reference=torch.tensor(reference, dtype=torch.float32),
        padding=padding,
    )
