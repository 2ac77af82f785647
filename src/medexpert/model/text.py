"""Text -> token ids, one rule for training and scoring.

Text is encoded without special tokens, after the ones that the tokenizer itself puts before a text
(none for SmolLM2, BOS for Llama, [gMASK]<sop> for GLM-4), unless the text already begins with them
or with BOS, as rendered chats of some models do. That is what lm-eval does by default. An end token
is never appended here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class TextEncoder:
    """`start` encodes the beginning of a sequence, `more` what follows in it."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.bos = str(tokenizer.bos_token or "")
        self.before = start_tokens(tokenizer)

    def more(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def start(self, text: str) -> list[int]:
        return self._begun(text, self.more(text))

    def starts(self, texts: Sequence[str]) -> list[list[int]]:
        """`start` of each text, in one call, which a fast tokenizer spreads over the cores."""
        every = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [self._begun(text, ids) for text, ids in zip(texts, every, strict=True)]

    def _begun(self, text: str, ids: list[int]) -> list[int]:
        begun = bool(self.before) and ids[: len(self.before)] == self.before
        return ids if begun or (self.bos and text.startswith(self.bos)) else [*self.before, *ids]


def start_tokens(tokenizer: Any) -> list[int]:
    """The ids the tokenizer puts before a text by default: none, or BOS."""
    plain: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer("a")["input_ids"]
    for at in range(len(whole) - len(plain) + 1):
        if whole[at : at + len(plain)] == plain:
            return whole[:at]
    return []
