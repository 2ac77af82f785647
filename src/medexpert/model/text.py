"""Text -> token ids, one rule for training and scoring.

Text is encoded without special tokens, after the ones that the tokenizer itself puts before a text
(none for SmolLM2, BOS for Llama), unless the text already begins with BOS, as rendered chats of
some models do. That is what lm-eval does by default. An end token is never appended here.
"""

from __future__ import annotations

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
        ids = self.more(text)
        return ids if self.bos and text.startswith(self.bos) else [*self.before, *ids]


def start_tokens(tokenizer: Any) -> list[int]:
    """The ids the tokenizer puts before a text by default: none, or BOS."""
    plain: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer("a")["input_ids"]
    for at in range(len(whole) - len(plain) + 1):
        if whole[at : at + len(plain)] == plain:
            return whole[:at]
    return []
