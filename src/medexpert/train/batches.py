"""Documents and examples -> pieces of tokens; rows of pieces -> tensors.

The only place that decides what is learned from; `rows.py` decides in which order.

Shapes: a row is one sequence of T tokens; `targets[i]` is the token to predict at position i,
aligned with the inputs, or IGNORE where nothing is learned. Several items share a row; `positions`
restart at 0 at each, and the model is called without an attention mask and without a cache, which
makes transformers keep the items apart (tests/train/test_packing.py holds it to that).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from medexpert.prompt.template import Segment

IGNORE = -100
TOGETHER = 64
"""Texts tokenised in one call: a fast tokenizer spreads them over the cores."""

Tokens = NDArray[np.int32]


class Encoder(Protocol):
    """Text -> ids: `start` for what begins a sequence, `more` for what follows (`model.text`)."""

    def start(self, text: str) -> list[int]: ...
    def more(self, text: str) -> list[int]: ...


@runtime_checkable
class ManyEncoder(Protocol):
    """An encoder that takes many texts in one call, to the same ids as `start` one by one."""

    def starts(self, texts: Sequence[str]) -> list[list[int]]: ...


@dataclass(frozen=True)
class Piece:
    """Inputs and their targets, both of length T, that stay in one row.

    The first `prefix` inputs of each item are read both ways, the rest causally. `breaks` are where
    further items begin inside the piece: they stay together, and apart in attention (preference
    pairs). `task` is an index into the stage's task names. `reference` holds one number an item.
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
    """Where every item and token went; written to the stage manifest.

    `tokens` (inputs kept) + `dropped_tokens` = inputs of all items that were read. `split_tokens`
    are those of items that became several pieces; they are kept.
    """

    items: int = 0
    not_read: int = 0
    split_items: int = 0
    split_tokens: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_tokens: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    objectives: Counter[str] = field(default_factory=Counter)
    """Pieces of each kind: words, sentences, suffix, causal."""
    fence: int = 0
    """Pieces before this one are not mixed with later ones; 0 = none."""

    def add(self, piece: Piece) -> None:
        self.tokens += len(piece)
        self.loss_tokens += int((piece.targets != IGNORE).sum())

    def add_item(self, parts: Sequence[Piece]) -> None:
        """All pieces of one item."""
        for part in parts:
            self.add(part)
        if len(parts) > 1:
            self.split_items += 1
            self.split_tokens += sum(len(part) for part in parts)

    def drop(self, piece: Piece, reason: str) -> None:
        self.dropped[reason] += 1
        self.dropped_tokens += len(piece)

    def facts(self) -> dict[str, object]:
        return {
            "items": self.items,
            "not_read_beyond_max_tokens": self.not_read,
            "split_items": self.split_items,
            "split_tokens": self.split_tokens,
            "dropped": dict(self.dropped),
            "dropped_tokens": self.dropped_tokens,
            "tokens_per_epoch": self.tokens,
            "loss_tokens_per_epoch": self.loss_tokens,
            "objectives": dict(self.objectives),
            "fence": self.fence,
        }

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Take over what :meth:`facts` told, from a store that an earlier run filled."""
        self.items, self.not_read = facts["items"], facts["not_read_beyond_max_tokens"]
        self.split_items, self.split_tokens = facts["split_items"], facts["split_tokens"]
        self.dropped = Counter(facts["dropped"])
        self.dropped_tokens = facts["dropped_tokens"]
        self.tokens, self.loss_tokens = facts["tokens_per_epoch"], facts["loss_tokens_per_epoch"]
        self.objectives, self.fence = Counter(facts["objectives"]), facts["fence"]


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


def id_pieces(document: Sequence[int], length: int) -> list[Piece]:
    """A document's ids, its end-of-text token included, as pieces of at most `length` tokens.

    Every token but the first is a target exactly once, and every token but the last an input
    exactly once: a longer document is split, never cut.
    """
    ids = np.asarray(document, dtype=np.int32)
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


def tokenised(
    texts: Iterable[str], encode: Encoder, account: Account, cap: int = 0
) -> Iterator[tuple[str, list[int]]]:
    """Each text with its ids, counted in `account.items`.

    Once the account, which the caller fills, has `cap` tokens (0 = no cap) the rest is counted in
    `account.not_read` and not tokenised.
    """
    waiting = iter(texts)
    while together := list(itertools.islice(waiting, TOGETHER)):
        if cap and account.tokens >= cap:
            account.not_read += len(together)
            continue
        if isinstance(encode, ManyEncoder):
            every = encode.starts(together)
        else:
            every = [encode.start(text) for text in together]
        for text, ids in zip(together, every, strict=True):
            if cap and account.tokens >= cap:
                account.not_read += 1
                continue
            account.items += 1
            yield text, ids


def document_pieces(
    texts: Iterable[str], encode: Encoder, eos: int, length: int, account: Account, cap: int = 0
) -> Iterator[Piece]:
    """Stage-1 pieces of many documents, counted; read until `cap` tokens are there (0 = all)."""
    for _, ids in tokenised(texts, encode, account, cap):
        parts = id_pieces([*ids, eos], length)
        account.add_item(parts)
        yield from parts


def collate(rows: Sequence[Sequence[Piece]], pad: int, width: int = 0) -> Batch:
    """Rows of pieces -> tensors (B, T), T = `width`, or the longest row where that is 0.

    Padding stands right, an item of its own, no targets; a row may be nothing else. Raises
    ValueError when a row is longer than `width`.
    """
    longest = max(sum(len(piece) for piece in row) for row in rows)
    width = width or max(longest, 1)
    if longest > width:
        raise ValueError(f"row of {longest} tokens in a batch of width {width}")
    first = next((row[0].task for row in rows if row), 0)  # a micro-batch may be of one task only
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
            bounds = [0, *piece.breaks, len(piece)]
            for start, stop in itertools.pairwise(bounds):
                positions[number, at + start : at + stop] = np.arange(stop - start)
                items[number, at + start : at + stop] = len(reference)
                prefix[number, at + start : at + min(start + piece.prefix, stop)] = True
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
        tasks=torch.tensor([row[0].task if row else first for row in rows]),
        reference=torch.tensor(reference, dtype=torch.float32),
        padding=padding,
    )
