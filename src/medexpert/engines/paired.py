"""One model behind two engines: one writes, the other scores.

On a laptop OpenVINO writes rationales fast and cannot score; the local engine scores in float32.
Verification-of-Choice needs both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medexpert.engines.base import Completion, Engine, Forgetful, Streaming, TextScore, Usage
from medexpert.model.staging import Progress, silent
from medexpert.records import UserError, unknown_name

DTYPES = ("float32", "bfloat16")
KINDS = ("f16", "q8_0")


@dataclass(frozen=True)
class Writer:
    """How OpenVINO writes: `dtype` ("" = bfloat16 where the CPU has it, else float32), `gguf` the
    type of the weights ("f16" or "q8_0"), `cache_gb` GiB for keys and values, `rows` at once."""

    dtype: str = ""
    gguf: str = "f16"
    cache_gb: float = 2.0
    rows: int = 64


def writer_from(options: Mapping[str, str]) -> Writer:
    """A Writer of `name -> text`. Raises UserError: an unknown name, a value that is none."""
    where = "engine options"
    known: dict[str, Any] = {name: type(value) for name, value in vars(Writer()).items()}
    values: dict[str, Any] = {}
    for name, text in options.items():
        if name not in known:
            raise unknown_name("option of the openvino engine", name, known, where=where)
        try:
            values[name] = known[name](text)
        except ValueError:
            raise UserError(f"{name} = {text!r}", where=where, allowed="a number") from None
    made = Writer(**values)
    if made.dtype and made.dtype not in DTYPES:
        raise unknown_name("dtype", made.dtype, DTYPES, where=where)
    if made.gguf not in KINDS:
        raise unknown_name("gguf", made.gguf, KINDS, where=where)
    if not 0 < made.cache_gb < float("inf") or made.rows < 1:
        raise UserError(
            f"cache_gb = {made.cache_gb}, rows = {made.rows}", where=where, allowed="more than 0"
        )
    return made


class PairedEngine:
    """`generator` completes and streams, `scorer` gives log-probabilities; see `base.Engine`.

    Raises UserError when they do not say the same of themselves: name or chat format differ.
    """

    def __init__(self, generator: Streaming, scorer: Engine) -> None:
        if generator.name != scorer.name or generator.chat != scorer.chat:
            raise UserError(
                f"a pair needs one model in both engines, not {generator.name} and {scorer.name}"
            )
        self.generator, self.scorer = generator, scorer
        self.name, self.chat = scorer.name, scorer.chat

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        name: str = "",
        writer: Writer | None = None,
        dtype: str = "float32",
        batch_tokens: int = 4096,
        threads: int = 0,
        progress: Progress = silent,
    ) -> PairedEngine:
        """OpenVINO writes, the local engine scores in `dtype`; both from one folder."""
        chosen = writer or Writer()
        from medexpert.engines.local import LocalEngine
        from medexpert.engines.openvino import OpenVINOEngine

        generator = OpenVINOEngine.open(
            folder,
            name=name,
            dtype=chosen.dtype,
            kind=chosen.gguf,
            cache_gb=chosen.cache_gb,
            rows=chosen.rows,
            threads=threads,
            progress=progress,
        )
        scorer = LocalEngine.open(
            folder, name=generator.name, dtype=dtype, batch_tokens=batch_tokens
        )
        return cls(generator, scorer)

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
        return self.generator.complete(
            prompts, max_tokens=max_tokens, stop=stop, temperature=temperature, top_p=top_p,
            seed=seed,
        )  # fmt: skip

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
        return self.generator.stream(
            prompt, max_tokens=max_tokens, stop=stop, temperature=temperature, top_p=top_p,
            seed=seed,
        )  # fmt: skip

    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> list[list[float]]:
        return self.scorer.choice_logprobs(prompts, choices)

    def text_logprobs(self, texts: Sequence[str]) -> list[TextScore]:
        return self.scorer.text_logprobs(texts)

    def count_tokens(self, text: str) -> int:
        return self.scorer.count_tokens(text)

    def facts(self) -> Mapping[str, Any]:
        """What both say of themselves, each under its part."""
        generator, scorer = dict(self.generator.facts()), dict(self.scorer.facts())
        return {
            "engine": "paired",
            "model": self.name,
            "lineage": scorer.get("lineage", {}),
            "generator": generator,
            "scorer": scorer,
        }

    def forget(self) -> None:
        """See `engines.base.Forgetful`."""
        for part in (self.generator, self.scorer):
            if isinstance(part, Forgetful):
                part.forget()

    def usage(self) -> Usage:
        """The sum of both."""
        one, two = vars(self.generator.usage()), vars(self.scorer.usage())
        return Usage(**{name: one[name] + two[name] for name in one})
