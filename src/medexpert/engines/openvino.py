"""Bulk generation on a CPU by OpenVINO GenAI, from a GGUF of the model that is made once.

Prompts go in as token ids of the model's own tokenizer, so the text splitting of the GGUF does not
matter. A beginning that prompts of one call share (a question and its abstract before several
branches) is encoded by one request before them: they all arrive at once, so without it each would
encode it again (`engines.priming`).

It generates and does not score: behind a cached prefix OpenVINO tells no log-probabilities, and
without the cache scoring is slow. `engines.paired` scores with the local engine beside it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from medexpert.engines.base import Completion, NoLogprobs, PromptError, TextScore, Usage
from medexpert.engines.generation import Settings, row_seeds, settings_of
from medexpert.engines.openvino_requests import DTYPES, Requests, dtype_of, library
from medexpert.engines.priming import BLOCK, by_prefix, cached_tokens, waves
from medexpert.model.base import chat_format
from medexpert.model.exported import GgufFolder, base_of, gguf_of
from medexpert.model.folder import check_config, existing, read_header, weight_files
from medexpert.model.staging import Progress, silent
from medexpert.model.text import TextEncoder
from medexpert.prompt.template import ChatFormat
from medexpert.records import UserError

Ids = list[int]
_UNICODE_GAP = "\N{REPLACEMENT CHARACTER}"


class OpenVINOEngine:
    """Generates with an exported model; see `engines.base.Engine`.

    `dtype` is what is computed and cached in: bfloat16 where the CPU has it, else float32.
    `cache_gb` (GiB) holds the keys and values; a prompt with its answer must fit. `rows` prompts
    are in work at once. `threads` 0 = all cores. `prime` False leaves shared beginnings to chance:
    for measuring what priming gives.
    """

    def __init__(
        self,
        exported: GgufFolder,
        *,
        name: str,
        dtype: str = "",
        cache_gb: float = 2.0,
        rows: int = 64,
        threads: int = 0,
        prime: bool = True,
    ) -> None:
        if rows < 1 or cache_gb <= 0:
            raise UserError(f"rows = {rows}, cache_gb = {cache_gb}", allowed="more than 0")
        self.name, self.exported, self.rows, self.prime = name, exported, rows, prime
        self.dtype = dtype_of(dtype)
        self.tokenizer: Any = exported.tokenizer
        self.chat = ChatFormat(*chat_format(self.tokenizer))
        self.context = exported.context
        self.capacity = int(cache_gb * 2**30) // (exported.cache_values * self._bytes)
        self._text = TextEncoder(self.tokenizer)
        self._usage = Usage()
        self._threads = threads
        self._pipeline = self._open_pipeline()

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        name: str = "",
        dtype: str = "",
        kind: str = "f16",
        cache_gb: float = 2.0,
        rows: int = 64,
        threads: int = 0,
        prime: bool = True,
        cache: Path | None = None,
        progress: Progress = silent,
    ) -> OpenVINOEngine:
        """Open a model or adapter folder; its GGUF is made when there is none of these weights.

        `kind` is what the GGUF's matrices are stored as, "f16" or "q8_0". Raises UserError:
        openvino-genai not installed, unknown dtype or kind, no such folder, a model that
        cannot be a GGUF.
        """
        library()
        dtype_of(dtype)
        folder = existing(folder)
        refuse_misread(folder)
        exported = gguf_of(folder, kind=kind, cache=cache, progress=progress)
        return cls(
            exported,
            name=name or _own_name(folder),
            dtype=dtype,
            cache_gb=cache_gb,
            rows=rows,
            threads=threads,
            prime=prime,
        )

    @property
    def _bytes(self) -> int:
        return 4 if self.dtype == "float32" else 2

    def _open_pipeline(self) -> Any:
        genai = library()
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = True
        scheduler.num_kv_blocks = max(1, self.capacity // BLOCK)
        scheduler.max_num_seqs = self.rows
        hint = DTYPES[self.dtype]
        properties: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": hint,
            "KV_CACHE_PRECISION": hint,  # its own default is 8 bits on some machines
        }
        if self._threads:
            properties["INFERENCE_NUM_THREADS"] = self._threads
        path = str(self.exported.path)
        try:
            return genai.ContinuousBatchingPipeline(path, scheduler, "CPU", properties, {}, {})
        except RuntimeError as error:
            raise UserError(f"OpenVINO cannot open this GGUF: {_last(error)}", where=path) from None

    # -- tokens ---------------------------------------------------------------------------------

    def count_tokens(self, text: str) -> int:
        return len(self._text.more(text))

    def _prompt(self, index: int, text: str, room: int) -> Ids:
        """The prompt's ids, `room` more tokens fitting behind. Raises PromptError otherwise."""
        ids = self._text.start(text)
        where = f"prompt {index + 1}"
        if not ids:
            raise PromptError("the prompt is empty", index=index, where=where)
        limits = [
            (self.context, f"the context of {self.name}"),
            (self.capacity // BLOCK * BLOCK, "the key-value cache (cache_gb)"),
        ]
        for limit, what in limits:
            if limit and len(ids) + room > limit:
                raise PromptError(
                    f"{len(ids)} tokens and {room} to follow do not fit {what} ({text[:40]!r}...)",
                    index=index,
                    where=where,
                    allowed=f"{limit} tokens",
                )
        return ids

    # -- generation -----------------------------------------------------------------------------

    def complete(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[Completion]:
        """Generate behind each prompt; temperature 0 = greedy.

        Each prompt has its own random numbers, seeded by `seed`, its text and how often it came
        before in this call. In bfloat16 the sums of a batch may round otherwise than those of a
        single prompt, so that a text can depend on what it was asked with.
        """
        started = time.perf_counter()
        settings = settings_of(max_tokens, stop, temperature, top_p)
        rows = [self._prompt(i, prompt, max_tokens) for i, prompt in enumerate(prompts)]
        seeds = row_seeds(prompts, seed)
        results: dict[int, Completion] = {}
        for batch in self._batches(rows, max_tokens):
            chosen = [rows[k] for k in batch]
            encoded = self._encode_shared(chosen) if self.prime else sum(map(len, chosen))
            run = self._requests(chosen, settings, [seeds[k] for k in batch])
            for _ in run.steps():
                pass
            made = [run.completion(row) for row in range(len(batch))]
            self._count(chosen, encoded, sum(c.tokens for c in made))
            results.update(zip(batch, made, strict=True))
        self._time(started)
        return [results[k] for k in range(len(prompts))]

    def stream(
        self,
        prompt: str,
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Iterator[str]:
        """The text of `complete([prompt])` in pieces, as it is made.

        What may yet turn out to be a stop string or half a character is held back.
        """
        started = time.perf_counter()
        settings = settings_of(max_tokens, stop, temperature, top_p)
        ids = self._prompt(0, prompt, max_tokens)
        run = self._requests([ids], settings, row_seeds([prompt], seed))
        held = max((len(mark) - 1 for mark in settings.stop), default=0)
        shown = ""
        try:
            for _ in run.steps():
                text = run.text(0).rstrip(_UNICODE_GAP)
                text = text[: max(0, len(text) - held)]
                if len(text) > len(shown) and text.startswith(shown):
                    yield text[len(shown) :]
                    shown = text
        finally:  # who stops listening has still used what was made
            made = run.completion(0)
            self._count([ids], len(ids), made.tokens)
            self._time(started)
        if made.text[len(shown) :]:
            yield made.text[len(shown) :]

    def _requests(self, rows: Sequence[Ids], settings: Settings, seeds: Sequence[int]) -> Requests:
        ends = frozenset(self.exported.ends)
        return Requests(self._pipeline, self.tokenizer, ends, rows, settings, seeds)

    def _batches(self, rows: Sequence[Ids], max_tokens: int) -> Iterator[list[int]]:
        """Indices, neighbours by prefix, that fit the cache together (or one row)."""
        batch: list[int] = []
        room = 0
        for index in by_prefix(rows):
            # A request takes whole blocks, and its last one is seldom full.
            need = len(rows[index]) + max_tokens + BLOCK
            if batch and (len(batch) == self.rows or room + need > self.capacity):
                yield batch
                batch, room = [], 0
            batch.append(index)
            room += need
        if batch:
            yield batch

    def _encode_shared(self, rows: Sequence[Ids]) -> int:
        """Encode what rows share, once; the tokens that this and then the rows encode."""
        prefixes = waves(rows)
        encoded = sum(len(row) - cached_tokens(row, prefixes) for row in rows)
        for wave in prefixes:
            ids = [list(prefix.ids) for prefix in wave]
            for at in range(0, len(ids), self.rows):
                part = ids[at : at + self.rows]
                for _ in self._requests(part, Settings(1, (), 0.0, 1.0), [0] * len(part)).steps():
                    pass
            encoded += sum(len(prefix.ids) - prefix.known for prefix in wave)
        return encoded

    def _count(self, rows: Sequence[Ids], encoded: int, generated: int) -> None:
        old = self._usage
        self._usage = replace(
            old,
            calls=old.calls + len(rows),
            prompt_tokens=old.prompt_tokens + sum(map(len, rows)),
            prefilled_tokens=old.prefilled_tokens + encoded,
            generated_tokens=old.generated_tokens + generated,
        )

    def _time(self, started: float) -> None:
        seconds = self._usage.seconds + time.perf_counter() - started
        self._usage = replace(self._usage, seconds=seconds)

    # -- scoring: not here ----------------------------------------------------------------------

    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> list[list[float]]:
        raise self._no_logprobs()

    def text_logprobs(self, texts: Sequence[str]) -> list[TextScore]:
        raise self._no_logprobs()

    def _no_logprobs(self) -> NoLogprobs:
        return NoLogprobs(
            "the openvino engine generates and gives no log-probabilities",
            where=self.name,
            allowed="the paired engine, which scores with the local one",
        )

    # -- what it is -----------------------------------------------------------------------------

    def usage(self) -> Usage:
        """`prefilled_tokens` counts a beginning that prompts of one call share once. What an
        earlier call left in the cache is not subtracted, so the true number may be less."""
        return self._usage

    def facts(self) -> dict[str, Any]:
        return {
            "engine": "openvino",
            "model": self.name,
            "lineage": self.exported.lineage,
            "weights": self.exported.weights,
            "gguf": {"type": self.exported.kind, "sha256": self.exported.sha256},
            "dtype": self.dtype,
            "reading": "causal",
            "device": "cpu",
            "context": self.context,
            "cache_tokens": self.capacity,
            "rows": self.rows,
            "prime": self.prime,
            "start_tokens": list(self._text.before),
            "threads": self._threads,
            "openvino_genai": metadata.version("openvino-genai"),
        }


def refuse_misread(folder: Path) -> None:
    """Raise UserError for a model that OpenVINO's GGUF reader opens as another one.

    Of a Llama with biases in its attention it drops the biases without a word (2026.4.1, seen on
    random models; plain Llama, Qwen2 with its biases and Qwen3 come out right).
    """
    plain = base_of(folder)
    llama = str(check_config(plain)["model_type"]) == "llama"
    tensors = {name for path in weight_files(plain) for name in read_header(path)} if llama else ()
    biases = sorted(name for name in tensors if name.endswith("_proj.bias"))
    if biases:
        raise UserError(
            f"OpenVINO leaves out the biases of this Llama ({biases[0]})",
            where=str(folder),
            allowed="the local engine",
        )


def _own_name(folder: Path) -> str:
    """The folder's own name, or "RUN/STAGE" for RUN/STAGE/model, as the local engine has it."""
    parts = folder.resolve().parts
    return "/".join(parts[-3:-1] if parts[-1] in ("model", "adapter") else parts[-1:])


def _last(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
