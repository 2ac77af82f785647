"""Choices behind prompts as rows of tokens to be scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Ids = list[int]


@dataclass(frozen=True)
class Row:
    """Tokens to be scored for a prompt: behind the last len(wanted) of `ids`, the tokens of each
    wanted place, which belong to the choices of these numbers."""

    prompt: int
    ids: Ids
    wanted: list[Ids]
    choices: list[int]


def rows_of(prompt: int, given: Ids, tails: Sequence[Ids]) -> list[Row]:
    """One row for all choices of a single token, one for each longer choice."""
    single = [k for k, tail in enumerate(tails) if len(tail) == 1]
    rows = [Row(prompt, given, [[tails[k][0] for k in single]], single)] if single else []
    return rows + [
        Row(prompt, given + tail[:-1], [[token] for token in tail], [k])
        for k, tail in enumerate(tails)
        if len(tail) > 1
    ]
