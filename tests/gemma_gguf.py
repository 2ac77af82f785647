"""Gemma 3 read from its GGUF without transformers: tensors, forward pass, text to tokens.

Written from llama.cpp's conventions: norm weights are stored as 1 + w and are used as they are, the
embeddings are scaled by the root of the width, every sixth layer sees all (its rotary base is the
file's, that of the others is 10,000), queries are scaled by the root of the head's width, and the
token of the highest score among neighbours is joined first. numpy in float32; small and slow.
"""

from __future__ import annotations

import re
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

CONTROL, USER_DEFINED = 3, 4
LOCAL_BASE, PATTERN = 10_000.0, 6


class GemmaFile:
    """The fields and de-quantised tensors of a gemma3 GGUF."""

    def __init__(self, path: Path) -> None:
        import gguf

        self.reader = gguf.GGUFReader(path)
        self.tensors = {t.name: t for t in self.reader.tensors}
        assert self.field("general.architecture") == "gemma3"
        self.layers = int(self.field("gemma3.block_count"))
        self.epsilon = float(self.field("gemma3.attention.layer_norm_rms_epsilon"))

    def field(self, name: str) -> Any:
        found = self.reader.get_field(name)
        return None if found is None else found.contents()

    def tensor(self, name: str) -> Any:
        from gguf.quants import dequantize

        stored = self.tensors[name]
        return dequantize(stored.data, stored.tensor_type).astype(np.float32)

    def logits(self, ids: list[int]) -> Any:
        """Logits of every position, one sequence."""
        embeddings = self.tensor("token_embd.weight")
        x = embeddings[ids] * np.float32(np.sqrt(embeddings.shape[1]))
        for number in range(self.layers):
            x = self._layer(x, number)
        return self._norm(x, "output_norm") @ embeddings.T

    def _norm(self, x: Any, name: str) -> Any:
        root = np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(self.epsilon))
        return x / root * self.tensor(f"{name}.weight")

    def _layer(self, x: Any, number: int) -> Any:
        block = f"blk.{number}"
        attended = self._attention(self._norm(x, f"{block}.attn_norm"), number)
        x = x + self._norm(attended, f"{block}.post_attention_norm")
        h = self._norm(x, f"{block}.ffn_norm")
        gate = h @ self.tensor(f"{block}.ffn_gate.weight").T
        up = h @ self.tensor(f"{block}.ffn_up.weight").T
        gelu = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        down = (gelu * up).astype(np.float32) @ self.tensor(f"{block}.ffn_down.weight").T
        return x + self._norm(down, f"{block}.post_ffw_norm")

    def _attention(self, h: Any, number: int) -> Any:
        block, length = f"blk.{number}", len(h)
        width = int(self.field("gemma3.attention.key_length"))
        window = int(self.field("gemma3.attention.sliding_window"))
        everywhere = (number + 1) % PATTERN == 0
        base = float(self.field("gemma3.rope.freq_base")) if everywhere else LOCAL_BASE

        def heads(name: str) -> Any:
            made = h @ self.tensor(f"{block}.attn_{name}.weight").T
            return made.reshape(length, -1, width)

        q = _rotated(self._norm(heads("q"), f"{block}.attn_q_norm"), base)
        k = _rotated(self._norm(heads("k"), f"{block}.attn_k_norm"), base)
        v = heads("v")
        k, v = (part.repeat(q.shape[1] // part.shape[1], axis=1) for part in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.float32(np.sqrt(width))
        back = np.arange(length)[:, None] - np.arange(length)[None, :]
        seen = (back >= 0) & (everywhere | (back < window))
        scores = np.where(seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(length, -1)
        return mixed @ self.tensor(f"{block}.attn_output.weight").T

    @cached_property
    def vocabulary(self) -> tuple[dict[str, int], list[float], re.Pattern[str]]:
        """Token to id, the scores, and a pattern of the tokens that are matched whole."""
        tokens, kinds = self.field("tokenizer.ggml.tokens"), self.field("tokenizer.ggml.token_type")
        whole = [t for t, k in zip(tokens, kinds, strict=True) if k in (CONTROL, USER_DEFINED)]
        longest_first = "|".join(re.escape(t) for t in sorted(whole, key=len, reverse=True))
        ids = {token: number for number, token in enumerate(tokens)}
        return ids, self.field("tokenizer.ggml.scores"), re.compile(longest_first)

    def encode(self, text: str) -> list[int]:
        """Text to tokens as sentencepiece does, with the file's BOS where the file asks for it."""
        ids, scores, whole = self.vocabulary
        add = self.field("tokenizer.ggml.add_bos_token")
        found = [int(self.field("tokenizer.ggml.bos_token_id"))] if add else []
        place = 0
        for match in whole.finditer(text):
            found += _joined(text[place : match.start()], ids, scores)
            found.append(ids[match.group()])
            place = match.end()
        return found + _joined(text[place:], ids, scores)


def _rotated(x: Any, base: float) -> Any:
    """Rotary positions on the two halves of each head."""
    half = x.shape[-1] // 2
    speed = base ** (-np.arange(half) / half)
    angle = np.arange(len(x))[:, None, None] * speed
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def _joined(text: str, ids: dict[str, int], scores: list[float]) -> list[int]:
    """Neighbours joined: the highest score first, the leftmost of equals; bytes for the rest."""
    pieces = list(text.replace(" ", "\u2581"))
    while True:
        near = [a + b for a, b in pairwise(pieces)]
        pairs = [(-scores[ids[both]], at) for at, both in enumerate(near) if both in ids]
        if not pairs:
            break
        at = min(pairs)[1]
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    found: list[int] = []
    for piece in pieces:
        spelt = [ids[f"<0x{byte:02X}>"] for byte in piece.encode("utf-8")]
        found += [ids[piece]] if piece in ids else spelt
    return found
