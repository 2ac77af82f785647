"""What a builder may ask of a model, which is handed in (see `medexpert.construct_verbs`).

A teacher is asked for a list of prompts at a time, all from one template, and answers in their
order. What it cannot do for one prompt (it does not fit the context, an endpoint refuses it) is a
`Refusal` of that prompt, so that one document never ends a long run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Written:
    """Free text. `tokens` counts what was generated; `finish` is "stop" or "length"."""

    text: str
    tokens: int
    finish: str
    prompt_hash: str


@dataclass(frozen=True)
class Chosen:
    """Probabilities over the choices, in their order; they sum to 1."""

    probabilities: tuple[float, ...]
    prompt_hash: str


@dataclass(frozen=True)
class Refusal:
    """Why the teacher has no answer to one prompt."""

    why: str


class Teacher(Protocol):
    """A model that writes and chooses."""

    name: str
    """What records call it."""
    identity: str
    """Equal only for teachers that answer alike: name, weights, number format, sampling."""

    def template_id(self, template: str, lang: str) -> str:
        """`name@digest` of the template's text in a language."""
        ...

    def options(self, choices: Sequence[str], *, lang: str) -> Mapping[str, str]:
        """Label -> text of each choice, in order, as prompts name them. Raises UserError."""
        ...

    def read(self, text: str, choices: Sequence[str], *, lang: str) -> str:
        """The choice a text states as its answer, or NO_ANSWER."""
        ...

    def fault(self, text: str, choice: str, choices: Sequence[str], *, lang: str) -> str:
        """Why an explanation of `choice` is unsound by the rules of the strategy `voc`, or ""."""
        ...

    def write(
        self,
        template: str,
        fields: Sequence[Fields],
        *,
        lang: str,
        max_tokens: int,
        seed: int,
        stop: Sequence[str] = (),
    ) -> list[Written | Refusal]:
        """A text for each of `fields`."""
        ...

    def choose(
        self, template: str, fields: Sequence[Fields], choices: Sequence[str], *, lang: str
    ) -> list[Chosen | Refusal]:
        """Probabilities of the choices for each of `fields`; a template may show the choices."""
        ...
