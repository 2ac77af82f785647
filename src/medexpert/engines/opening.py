"""An engine from what a person types: the one place that reads `--model` and its options.

    FOLDER, NAME, owner/name or FILE.gguf      the local engine
    openvino:MODEL                             OpenVINO writes, the local engine scores
    openai:MODEL with base_url                 an OpenAI-compatible endpoint
    http://host:port/v1#MODEL                  the same in one word; #MODEL may be missing where one
                                               model is served

Importing this module, and opening an endpoint, does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medexpert.records import UserError, digest, unknown_name

if TYPE_CHECKING:
    from medexpert.engines.base import Engine
    from medexpert.engines.http.settings import HttpSettings

DTYPES = ("float32", "bfloat16")
HTTP, OPENVINO = "openai", "openvino"
KINDS = ("local", OPENVINO, HTTP)
"""What may stand before the colon of `--model KIND:MODEL`."""


@dataclass(frozen=True)
class EngineSpec:
    """What is to be opened. `dtype`, `batch_tokens` and `threads` are for engines on this machine,
    `base_url` for endpoints; `options` (name -> text) of an endpoint are the fields of
    `http.settings.HttpSettings`, of OpenVINO those of `paired.Writer`."""

    model: str
    base_url: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "float32"
    batch_tokens: int = 4096
    threads: int = 0

    @property
    def kind(self) -> str:
        """A member of KINDS. Raises UserError for `WORD:MODEL` with another word."""
        if self.model.startswith(("http://", "https://")):
            return HTTP
        word, colon, _ = self.model.partition(":")
        if not colon or "/" in word or "\\" in word or len(word) == 1:  # a path, a drive
            return "local"
        if word not in KINDS:
            raise unknown_name("engine", word, KINDS, where=f"--model {self.model}")
        return word

    @property
    def name(self) -> str:
        """The model without the word before the colon."""
        word = f"{self.kind}:"
        return self.model.removeprefix(word)

    def check(self) -> None:
        """Find cheap mistakes before anything is opened. Raises UserError."""
        if self.kind == HTTP:
            self.endpoint()
            return
        if self.dtype not in DTYPES:
            raise unknown_name("dtype", self.dtype, DTYPES, where="--dtype")
        if self.kind == OPENVINO:
            from medexpert.engines.paired import writer_from

            writer_from(self.options)
        options = self.options if self.kind == "local" else ()
        given = [*options, *(["base_url"] if self.base_url else [])]
        if given:
            raise UserError(
                f"{given[0]} is for an endpoint, and {self.model} is a model on this machine",
                where="engine options",
                allowed=f"--model {HTTP}:MODEL",
            )

    def endpoint(self) -> HttpSettings:
        """The settings of an endpoint. Raises UserError."""
        from medexpert.engines.http.settings import settings_from

        return settings_from(self.name, base_url=self.base_url, options=self.options)


def options_from(given: Sequence[str]) -> dict[str, str]:
    """{name: text} of `NAME=VALUE` words. Raises UserError: no =, or a name given twice."""
    found: dict[str, str] = {}
    for word in given:
        name, sign, value = word.partition("=")
        if not sign or not name.strip():
            raise UserError(f"{word!r}", where="--engine-option", allowed="NAME=VALUE")
        if name.strip() in found:
            raise UserError(f"{name.strip()} is given twice", where="--engine-option")
        found[name.strip()] = value.strip()
    return found


def open_engine(spec: EngineSpec, say: Callable[[str], None]) -> tuple[Engine, str]:
    """(engine, digest): of the weights of a model on this machine (with OpenVINO also of how it
    writes); of an endpoint, whose weights nobody can see, of its address, model and what the probe
    found.

    Raises UserError: what `EngineSpec.check` and the engines raise.
    """
    spec.check()
    if spec.kind == HTTP:
        from medexpert.engines.http import HttpEngine

        endpoint = HttpEngine.open(spec.endpoint(), say)
        return endpoint, endpoint.identity()
    from medexpert.engines.local import LocalEngine
    from medexpert.model.base import fetch
    from medexpert.model.folder import model_digest

    folder = fetch(spec.name, progress=say)
    if spec.kind == OPENVINO:
        from medexpert.engines.paired import PairedEngine, writer_from

        say(f"opening {folder} (OpenVINO writes, {spec.dtype} scores)")
        writer = writer_from(spec.options)
        pair = PairedEngine.open(
            folder,
            writer=writer,
            dtype=spec.dtype,
            batch_tokens=spec.batch_tokens,
            threads=spec.threads,
            progress=say,
        )
        # Other options write other texts, and so does the other precision where it was left to the
        # CPU: results of one must not go on with the other's.
        how = vars(writer) | {"dtype": pair.facts()["generator"]["dtype"]}
        return pair, digest([model_digest(folder), OPENVINO, how])
    say(f"opening {folder} ({spec.dtype})")
    engine = LocalEngine.open(folder, dtype=spec.dtype, batch_tokens=spec.batch_tokens)
    return engine, model_digest(folder)
