"""Choices whose texts differ from question to question: told apart, and lettered.

A prediction names its choice by text, so the texts of a question must differ. Some benchmarks print
one text under two letters with only one of them right; the later one then gets its letter behind
it, `50 % [D]`, and :func:`printed` gives the texts as the benchmark has them, for prompts that show
letters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

LETTERS = ascii_uppercase
_MARK = re.compile(r" \[[A-Z]\]$")


def distinct(texts: Sequence[str]) -> tuple[str, ...]:
    """The texts, each later copy of one marked with its own letter. At most 26 texts."""
    found: list[str] = []
    for letter, text in zip(LETTERS, texts, strict=False):
        while text in found:
            text = f"{text} [{letter}]"
        found.append(text)
    return tuple(found)


def printed(choices: Sequence[str]) -> tuple[str, ...]:
    """The texts that :func:`distinct` was given, whatever order they are in now."""
    found: list[str] = []
    for text in choices:
        bare = _MARK.sub("", text)
        found.append(bare if bare != text and bare in choices else text)
    return tuple(found)


def letter_of(choice: str, choices: Sequence[str]) -> str:
    """The letter of a choice by its place. Raises ValueError when it is none of them."""
    return LETTERS[tuple(choices).index(choice)]
