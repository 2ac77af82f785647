"""Requests to OpenVINO GenAI's continuous batching: token ids in, token ids out, step by step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from medexpert.engines.base import Completion
from medexpert.engines.generation import Reader, Settings
from medexpert.records import UserError, unknown_name

Ids = list[int]
DTYPES = {"float32": "f32", "bfloat16": "bf16"}
INSTALL = "pip install 'medexpert[cpu-gen]'"
_NUMBERS = itertools.count(1)


class Requests:
    """Requests that are in work together. `steps` yields after every token."""

    def __init__(
        self, pipeline: Any, tokenizer: Any, ends: frozenset[int], rows: Sequence[Ids],
        settings: Settings, seeds: Sequence[int],
    ) -> None:  # fmt: skip
        self.pipeline, self.ends = pipeline, ends
        self.rows, self.settings, self.seeds = rows, settings, seeds
        self.made: list[Ids] = [[] for _ in rows]
        self.reader = Reader(tokenizer, rows, settings.stop)

    def text(self, row: int) -> str:
        return self.reader.text(row, [token for token in self.made[row] if token not in self.ends])

    def completion(self, row: int) -> Completion:
        return self.reader.completion(row, self.made[row], self.ends)

    def steps(self) -> Iterator[None]:
        import numpy as np
        import openvino

        going: dict[int, Any] = {}
        try:
            for row, ids in enumerate(self.rows):
                tensor = openvino.Tensor(np.array([ids], dtype=np.int64))
                config = self._config(self.seeds[row])
                going[row] = self.pipeline.add_request(next(_NUMBERS), tensor, config)
            while self.pipeline.has_non_finished_requests():
                self.pipeline.step()
                for row, handle in list(going.items()):
                    if self._read(row, handle):
                        del going[row]
                yield
            if going:
                raise UserError(
                    f"OpenVINO did not finish {len(going)} prompts: they do not fit its cache",
                    allowed="a larger cache_gb",
                )
        finally:  # an interrupted call leaves nothing behind for the next
            for handle in going.values():
                handle.cancel()
            while self.pipeline.has_non_finished_requests():
                self.pipeline.step()

    def _read(self, row: int, handle: Any) -> bool:
        """Take over new tokens; whether the row is done."""
        done = False
        while handle.can_read():
            for output in handle.read().values():
                self.made[row] += [int(token) for token in output.generated_ids]
                done = done or output.finish_reason.name != "NONE"
        if not done and self.settings.stop and self.reader.stopped(row, self.made[row]):
            handle.cancel()
            return True
        return done

    def _config(self, seed: int) -> Any:
        config: Any = library().GenerationConfig()
        config.max_new_tokens = self.settings.max_tokens
        config.stop_token_ids = set(self.ends)
        config.apply_chat_template = False
        if self.settings.temperature:
            config.do_sample = True
            config.temperature = self.settings.temperature
            config.top_p = self.settings.top_p
            config.rng_seed = seed % 2**32
        return config


def library() -> Any:
    """The openvino_genai module. Raises UserError when it is not installed."""
    try:
        import openvino_genai
    except ImportError as error:
        raise UserError(
            f"the openvino engine needs the package openvino-genai ({error}): {INSTALL}"
        ) from None
    return openvino_genai


def dtype_of(name: str) -> str:
    """The dtype asked for, or the best the CPU has. Raises UserError if it has no such."""
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if not name:
        return "bfloat16" if "BF16" in able else "float32"
    if name not in DTYPES:
        raise unknown_name("dtype", name, DTYPES)
    if name == "bfloat16" and "BF16" not in able:
        raise UserError("this CPU has no bfloat16", where="dtype", allowed="float32")
    return name
