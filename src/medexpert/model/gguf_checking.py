"""Is this GGUF that model? The file is read back by transformers and held against the folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from medexpert.model.staging import Progress, silent
from medexpert.records import UserError

TEXTS = (
    "Does aspirin lower the risk of a second heart attack?\n\n1. yes\n\n2. no\n",
    'A 64-year-old man took 12.5 mg twice daily (p < 0.001; 95% CI 1.2-3.4).\t\n  It\'s "stable".',
    "患者，男，64岁，血压 150/90 mmHg。α-blocker, naïve T cells, ± 5 µg",
)
"""Digits, blank lines, contractions, runs of spaces, Chinese and Greek: where splittings differ."""
TOLERANCE = {"f16": 0.01, "q8_0": 0.15}
"""Largest allowed distance of two distributions over the next token (total variation, 0 to 1)."""


def check_gguf(
    folder: Path, path: Path, *, kind: str = "f16", progress: Progress = silent
) -> dict[str, Any]:
    """Facts: `largest_logit_difference`, and `total_variation` = the largest half-sum of
    |p - q| over the vocabulary at any position of `TEXTS`.

    Raises UserError when a text gives other tokens, the chat template was lost, or a distribution
    is further away than rounding to `kind` explains. Needs memory for the model twice in float32.
    """
    import torch

    from medexpert.model.base import chat_format, load
    from medexpert.model.dequantise import dequantise

    progress("reading the GGUF back and comparing")
    model, tokenizer = load(folder, dtype=torch.float32, device="cpu")
    # Where the template was made to fit one model's own words, its text is a test of them as well.
    template, bos, eos = chat_format(tokenizer)
    texts = [*TEXTS, f"{bos}user\nIs it so?{eos}\n"]
    wanted = [_ids(tokenizer, text) for text in texts]
    before = [_logits(model, ids) for ids in wanted]
    del model
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        dequantise(path, Path(scratch), silent)
        other, its = load(Path(scratch), dtype=torch.float32, device="cpu")
    for text, ids in zip(texts, wanted, strict=True):
        if _ids(its, text) != ids:
            raise UserError(f"read back, it gives other tokens for {text[:30]!r}", where=str(path))
    if chat_format(its)[0] != template:
        raise UserError("read back, its chat template is another one", where=str(path))
    largest = distance = 0.0
    for ids, one in zip(wanted, before, strict=True):
        two = _logits(other, ids)[:, : one.shape[-1]]
        largest = max(largest, float((one - two).abs().max()))
        apart = (one.softmax(-1) - two.softmax(-1)).abs().sum(-1) / 2
        distance = max(distance, float(apart.max()))
    if not distance <= TOLERANCE[kind]:
        raise UserError(
            f"read back, it predicts otherwise than the model: distributions differ by"
            f" {distance:.3f}",
            where=str(path),
            allowed=f"{TOLERANCE[kind]} for {kind}",
        )
    return {"largest_logit_difference": largest, "total_variation": distance}


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids


def _logits(model: Any, ids: list[int]) -> Any:
    """[T, V] of one text."""
    import torch

    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].float()
