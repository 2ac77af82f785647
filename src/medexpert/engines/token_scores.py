"""Log-probability of every token of a text, with a `LocalEngine`'s model and tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from medexpert.records import UserError

if TYPE_CHECKING:
    from medexpert.engines.local import LocalEngine

WINDOW = 1024
"""Tokens scored in one go, as in `LocalEngine.text_logprobs`, whose sums these are the parts of."""


class LocalTokenScores:
    """`engines.base.TokenScorer` over an opened local engine; one text at a time."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine

    @torch.inference_mode()
    def token_logprobs(self, texts: Sequence[str]) -> list[list[float]]:
        """[text][token] = ln p of the token given those before it, in float32 or better.

        The first token of a text is given BOS (EOS where there is none); the first of each further
        window of min(context, 1024) tokens is given the token before it. An empty text has none.
        """
        model, tokenizer = self.engine.model, self.engine.tokenizer
        start = tokenizer.bos_token_id
        start = tokenizer.eos_token_id if start is None else start
        if start is None:
            raise UserError(
                f"the tokenizer of {self.engine.name} has neither BOS nor EOS to start a text"
            )
        window = min(self.engine.context or WINDOW, WINDOW)
        found: list[list[float]] = []
        for text in texts:
            ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            given = [start, *ids]
            row: list[float] = []
            for at in range(0, len(ids), window):
                part = torch.tensor([ids[at : at + window]], device=model.device)
                inputs = torch.tensor([given[at : at + part.shape[1]]], device=model.device)
                logits = model(input_ids=inputs, use_cache=False).logits[0].float()
                values = logits.gather(1, part.T)[:, 0] - logits.logsumexp(1)
                row += values.double().cpu().tolist()
            found.append(row)
        return found
