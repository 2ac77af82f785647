"""Models that were trained to read what they are given both ways (prefix language models).

The model's lineage says how it is to be asked, `attention` in medexpert.json:

    causal   (or nothing)  like any model
    prefix   the prompt is read both ways, the answer is written causally behind it
    blank    the same with `prompt [gMASK]` as what is given and `<sop>` before the answer, which
             ends with `<eop>` (GLM, arXiv 2103.10360, section 2.3)

Scoring and generation use the mask of training (`model.attention`). transformers' own generate()
takes no such mask, so the loop is here: one pass over the prompts, then a token at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from medexpert.engines.base import Completion
from medexpert.model.attention import prefix_mask
from medexpert.model.special_tokens import infill_ids
from medexpert.records import UserError

if TYPE_CHECKING:
    from medexpert.engines.generation import Settings

Ids = list[int]
READINGS = ("causal", "prefix", "blank")


@dataclass(frozen=True)
class Reading:
    """How a prompt is put to the model.

    `behind` stands behind the prompt and is read with it, `start` is the first of what is written;
    `ends` are end tokens beside the model's own.
    """

    prefix: bool = False
    behind: tuple[int, ...] = ()
    start: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()

    def given(self, prompt: Ids) -> Ids:
        """The tokens after which the model answers."""
        return [*prompt, *self.behind, *self.start]

    @property
    def extra(self) -> int:
        return len(self.behind) + len(self.start)


def reading_of(lineage: Mapping[str, Any], tokenizer: Any) -> Reading:
    """The reading that a model's lineage asks for.

    Raises UserError for an unknown one, and for "blank" without the tokens of infilling.
    """
    name = lineage.get("attention", "causal")
    if name not in READINGS:
        raise UserError(
            f"the model's lineage says attention = {name!r}", allowed=", ".join(READINGS)
        )
    if name == "blank":
        ids = infill_ids(tokenizer)
        return Reading(True, (ids.gmask,), (ids.sop,), (ids.eop,))
    return Reading(name == "prefix")


def scoring_mask(model: Any, lengths: Sequence[int], sizes: Sequence[int]) -> Any:
    """Mask of right-padded rows of so many tokens, the first `sizes` of each read both ways."""
    place = torch.arange(max(lengths), device=model.device)[None]
    length = torch.tensor(lengths, device=model.device)[:, None]
    size = torch.tensor(sizes, device=model.device)[:, None]
    return _mask(model, (place >= length).long(), place < size)


def _mask(model: Any, items: torch.Tensor, prefix: torch.Tensor) -> Any:
    config = model.config.get_text_config()
    return prefix_mask(items, prefix, config, config._attn_implementation)


@torch.inference_mode()
def generate_prefix(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Ids],
    settings: Settings,
    seeds: Sequence[int],
    reading: Reading,
) -> list[Completion]:
    """Completions of encoded prompts (`Reading.given`), in order.

    Rows are padded on the left; padding sees itself alone and is seen by nobody. Draws are those of
    `engines.generation`, so a result does not depend on its batch.
    """
    from medexpert.engines.generation import Reader, end_tokens, sampling

    ends = [*end_tokens(model, tokenizer), *reading.ends]
    pad = tokenizer.pad_token_id
    pad = pad if pad is not None else (ends[0] if ends else 0)
    width, device = max(map(len, rows)), model.device
    given = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
    place = torch.arange(width, device=device)[None]
    first = torch.tensor([[width - len(row)] for row in rows], device=device)
    real = place >= first
    prefix = real & (place < width - len(reading.start)) & reading.prefix
    step = _Step(model, real, (place - first).clamp_min(0))
    logits = step.prompts(given, _mask(model, (~real).long(), prefix))
    reader = Reader(tokenizer, rows, settings.stop)
    processors: Any = sampling(settings, seeds, device)
    stopping = torch.tensor(ends, dtype=torch.long, device=device)
    made: list[Ids] = [[] for _ in rows]
    done = torch.zeros(len(rows), dtype=torch.bool, device=device)
    for number in range(settings.max_tokens):
        tokens: torch.Tensor = processors(given, logits.float()).argmax(-1)
        tokens = tokens.masked_fill(done, pad)
        for row, token in zip(made, tokens.tolist(), strict=True):
            row.append(token)
        stopped = [bool(settings.stop) and reader.stopped(k, row) for k, row in enumerate(made)]
        done = done | torch.isin(tokens, stopping) | torch.tensor(stopped, device=device)
        if bool(done.all()) or number + 1 == settings.max_tokens:
            break
        logits = step.token(tokens)
    return [reader.completion(k, row, frozenset(ends)) for k, row in enumerate(made)]


class _Step:
    """The model with its cache: logits (B, V) behind the prompts, then behind each token."""

    def __init__(self, model: Any, real: torch.Tensor, positions: torch.Tensor) -> None:
        self.model, self.real, self.positions = model, real, positions
        self.cache: Any = None
        # Logits of every prompt token would be many times the size of the model's activations.
        asked = getattr(model, "_supports_logits_to_keep", None)
        self.keep = {"logits_to_keep": 1} if asked is not None and asked() else {}

    def prompts(self, ids: torch.Tensor, mask: Any) -> torch.Tensor:
        return self._run(ids, mask)

    def token(self, ids: torch.Tensor) -> torch.Tensor:
        """One more token a row; all that is real so far is visible (a two-dimensional mask)."""
        self.real = torch.cat([self.real, torch.ones_like(self.real[:, :1])], dim=1)
        self.positions = self.positions[:, -1:] + 1
        return self._run(ids[:, None], self.real.long())

    def _run(self, ids: torch.Tensor, mask: Any) -> torch.Tensor:
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            **self.keep,
        )
        self.cache = out.past_key_values
        logits: torch.Tensor = out.logits[:, -1]
        return logits
