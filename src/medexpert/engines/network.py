"""A causal model as the local engine asks it: last states, then only the logits that are needed.

Legend: B rows, T tokens a row, H size of a state, V of the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch

from medexpert.engines import quick
from medexpert.engines.prefix import scoring_mask

Ids = list[int]
LOGIT_ELEMENTS = 1 << 25
"""Largest block of logits held at once (elements; 128 MiB in float32)."""


class Network:
    """`plain`: logits are the output embedding of the decoder's last state, so that only those have
    to be made that are asked for. Models that scale or cap them go the long way."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.vocabulary = int(model.config.get_text_config().vocab_size)
        taken = inspect.signature(model.forward).parameters
        self.takes = frozenset(taken)
        self.plain = self._head_is_plain()
        self.blocks = self.plain and quick.blocks_hold(model)
        """Whether passes without a mask go by `quick.blocks`."""

    @property
    def device(self) -> Any:
        return self.model.device

    def changes(self) -> int:
        """Rises whenever a weight is changed in place."""
        return sum(0 if p.is_inference() else p._version for p in self.model.parameters())

    def states(self, inputs: dict[str, Any]) -> torch.Tensor:
        """The decoder's last states (B, T, H), or logits (B, T, V) where the head is not plain."""
        if self.plain:
            free = self.blocks and "attention_mask" not in inputs
            with quick.blocks(self.model) if free else nullcontext():
                found: torch.Tensor = self.model.get_decoder()(**inputs).last_hidden_state
            return found
        logits: torch.Tensor = self.model(**inputs).logits
        return logits

    def encode(self, inputs: dict[str, Any]) -> None:
        """Only what the pass leaves in the cache is wanted."""
        if self.plain:
            self.states(inputs)
        else:
            self.last_logits(inputs)

    def last_logits(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Logits (B, V) behind the last token of each row."""
        if self.plain:
            logits: torch.Tensor = self.model.get_output_embeddings()(self.states(inputs)[:, -1])
            return logits
        keep = {"logits_to_keep": 1} if "logits_to_keep" in self.takes else {}
        whole: torch.Tensor = self.model(**inputs, **keep).logits
        return whole[:, -1]

    def score_rows(self, rows: Sequence[Ids], both_ways: Sequence[int] = ()) -> torch.Tensor:
        """`states` of whole right-padded rows; the first `both_ways` tokens of each, where given,
        are read both ways. No mask otherwise: no token sees what follows it, so neither padding."""
        padded = padded_right(rows)
        inputs: dict[str, Any] = {"input_ids": padded.to(self.device), "use_cache": False}
        if both_ways:
            lengths = [len(row) for row in rows]
            inputs["attention_mask"] = scoring_mask(self.model, lengths, both_ways)
        return self.states(inputs)

    def logprobs(self, states: torch.Tensor, wanted: Sequence[Sequence[int]]) -> list[list[float]]:
        """ln p of the wanted tokens at each state [N, H or V], logits made in float32 by blocks."""
        found: list[list[float]] = []
        step = max(1, LOGIT_ELEMENTS // self.vocabulary)
        for at in range(0, len(wanted), step):
            block = states[at : at + step]
            logits = self.model.get_output_embeddings()(block) if self.plain else block
            logits = logits.float()
            taken = wanted[at : at + step]
            rows = [row for row, tokens in enumerate(taken) for _ in tokens]
            flat = [token for tokens in taken for token in tokens]
            values = logits[rows, flat] - logits.logsumexp(1)[rows]
            left = iter(values.double().cpu().tolist())
            found += [list(islice(left, len(tokens))) for tokens in taken]
        return found

    @torch.inference_mode()
    def _head_is_plain(self) -> bool:
        probe = torch.arange(4).unsqueeze(0).to(self.device) % self.vocabulary
        try:
            states = self.model.get_decoder()(input_ids=probe, use_cache=False).last_hidden_state
            logits = self.model.get_output_embeddings()(states)
        except (AttributeError, TypeError):
            return False
        whole = self.model(input_ids=probe, use_cache=False).logits
        return logits.shape == whole.shape and torch.allclose(logits, whole, rtol=1e-5, atol=1e-6)


def padded_right(rows: Sequence[Ids], pad: int = 0) -> torch.Tensor:
    """(B, T) with `pad` behind shorter rows."""
    width = max(map(len, rows))
    return torch.tensor([row + [pad] * (width - len(row)) for row in rows])


def padded_left(rows: Sequence[Ids], pad: int = 0) -> torch.Tensor:
    """(B, T) with `pad` before shorter rows."""
    width = max(map(len, rows))
    return torch.tensor([[pad] * (width - len(row)) + row for row in rows])
