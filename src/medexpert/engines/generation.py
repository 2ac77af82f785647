"""Batched generation for `local.py`: left padding, stop strings, sampling seeded row by row."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from medexpert.engines.base import Completion
from medexpert.records import UserError

Ids = list[int]
_LEAD = 4
"""Prompt tokens decoded with the generated ones: some tokenizers drop a text's first space."""


@dataclass(frozen=True)
class Settings:
    """How to decode; see `engines.base.Engine.complete`."""

    max_tokens: int
    stop: tuple[str, ...]
    temperature: float
    top_p: float


def settings_of(max_tokens: int, stop: Sequence[str], temperature: float, top_p: float) -> Settings:
    """Settings of a call. Raises UserError for values outside their range."""
    if max_tokens < 1:
        raise UserError(f"max_tokens = {max_tokens}", allowed="1 or more")
    if not 0 <= temperature < math.inf or not 0 < top_p <= 1:
        raise UserError(
            f"temperature = {temperature}, top_p = {top_p}",
            allowed="temperature >= 0 and 0 < top_p <= 1",
        )
    return Settings(max_tokens, tuple(s for s in stop if s), temperature, top_p)


def row_seeds(prompts: Sequence[str], seed: int) -> list[int]:
    """One seed a prompt, from the call's seed, the text and its earlier occurrences in the call."""
    seen: Counter[str] = Counter()
    seeds = []
    for prompt in prompts:
        text = f"{seed}\n{seen[prompt]}\n{prompt}"
        seeds.append(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))
        seen[prompt] += 1
    return seeds


def generate(
    model: Any, tokenizer: Any, rows: Sequence[Ids], settings: Settings, seeds: Sequence[int]
) -> list[Completion]:
    """Completions of already encoded prompts, in order."""
    ends = end_tokens(model, tokenizer)
    pad = tokenizer.pad_token_id
    pad = pad if pad is not None else (ends[0] if ends else 0)
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=settings.max_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        eos_token_id=ends or None,
        pad_token_id=pad,
    )
    reader = Reader(tokenizer, rows, settings.stop)
    with torch.inference_mode(), _blank_defaults(model, config):
        out = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
            logits_processor=sampling(settings, seeds, model.device),
            stopping_criteria=StoppingCriteriaList([_StopStrings(reader, width)]),
        )
    made = out[:, width:].tolist()
    return [reader.completion(k, row, frozenset(ends)) for k, row in enumerate(made)]


def end_tokens(model: Any, tokenizer: Any) -> Ids:
    """The tokenizer's EOS, then the end tokens the model's folder names (chat models have two)."""
    named = getattr(model.generation_config, "eos_token_id", None)
    listed = named if isinstance(named, list) else [named]
    found = [tokenizer.eos_token_id, *listed]
    return list(dict.fromkeys(token for token in found if token is not None))


@contextmanager
def _blank_defaults(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Hide the folder's generation_config: transformers fills unset fields from it (repetition
    penalty, temperature, ...), which would change results without a trace."""
    kept = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = kept


class Reader:
    """Generated ids -> text, and where a stop string ends them."""

    def __init__(self, tokenizer: Any, prompts: Sequence[Ids], stop: tuple[str, ...]) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.leads = [row[-_LEAD:] for row in prompts]
        self.heads = [self._decode(lead) for lead in self.leads]

    def _decode(self, ids: Ids) -> str:
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def text(self, row: int, ids: Ids) -> str:
        whole = self._decode(self.leads[row] + ids)
        head = self.heads[row]
        # A prompt that ends within a character decodes differently with what follows.
        return whole[len(head) :] if whole.startswith(head) else self._decode(ids)

    def stopped(self, row: int, ids: Ids) -> bool:
        text = self.text(row, ids)
        return any(mark in text for mark in self.stop)

    def completion(self, row: int, ids: Ids, ends: frozenset[int]) -> Completion:
        """Text up to the first end token or stop string; tokens up to and including it."""
        finish = "length"
        for at, token in enumerate(ids):
            if token in ends:
                ids, finish = ids[: at + 1], "stop"
                break
        said = [token for token in ids if token not in ends]
        text = self.text(row, said)
        if self.stop and self.stopped(row, said):
            finish = "stop"
            size = next(n for n in range(1, len(said) + 1) if self.stopped(row, said[:n]))
            ids = ids[:size]
            text = text[: min(at for mark in self.stop if (at := text.find(mark)) >= 0)]
        return Completion(text, len(ids), finish)


class _StopStrings(StoppingCriteria):  # type: ignore[misc,unused-ignore]
    """Rows whose generated text holds a stop string are done."""

    def __init__(self, reader: Reader, width: int) -> None:
        self.reader, self.width = reader, width

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        made = input_ids[:, self.width :].tolist() if self.reader.stop else []
        done = [self.reader.stopped(row, ids) for row, ids in enumerate(made)]
        done = done or [False] * input_ids.shape[0]
        return torch.tensor(done, device=input_ids.device, dtype=torch.bool)


def sampling(settings: Settings, seeds: Sequence[int], device: Any = "cpu") -> LogitsProcessorList:
    """Processors after which argmax is a sample; empty for greedy. Draws are made on `device`."""
    if settings.temperature == 0:
        return LogitsProcessorList()
    steps: list[LogitsProcessor] = [TemperatureLogitsWarper(settings.temperature)]
    if settings.top_p < 1:
        steps.append(TopPLogitsWarper(settings.top_p))
    return LogitsProcessorList([*steps, _GumbelNoise(seeds, device)])


class _GumbelNoise(LogitsProcessor):  # type: ignore[misc,unused-ignore]
    """argmax(logits + Gumbel noise) is a draw from softmax(logits); -ln of an exponential draw is
    Gumbel. Each row has its own generator, so rows do not depend on each other. A row needs a draw
    for each entry of the vocabulary: for a GPU a CPU would be long about them.
    """

    def __init__(self, seeds: Sequence[int], device: Any) -> None:
        self.device = device
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        draws = scores.new_empty(scores.shape, dtype=torch.float32, device=self.device)
        for row, generator in zip(draws, self.generators, strict=True):
            row.exponential_(generator=generator)
        noise = draws.clamp_min_(1e-30).log_()
        return scores.float() - noise.to(scores.device)
