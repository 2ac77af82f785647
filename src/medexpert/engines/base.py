"""The one way to ask any model: completions, choice log-probabilities, text log-probabilities.

Standard library only, so that a strategy can be typed, read and tested without torch. All
log-probabilities are natural logarithms, computed in float32 or better.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from medexpert.records import UserError

if TYPE_CHECKING:
    from medexpert.prompt.template import ChatFormat


@dataclass(frozen=True)
class Completion:
    """Generated text. `tokens` counts what was generated, the end token and a stop string included.

    `finish` is "stop" (end token or stop string; neither is in `text`) or "length".
    """

    text: str
    tokens: int
    finish: str


@dataclass(frozen=True)
class TextScore:
    """`logprob` = sum of ln p over the text's `tokens`; `bytes` = its UTF-8 length."""

    logprob: float
    tokens: int
    bytes: int


def text_scores(texts: Sequence[str], rows: Sequence[Sequence[float]]) -> list[TextScore]:
    """The scores of texts from the ln p of their tokens, `rows` as `TokenScorer` gives them.

    The sum is rounded once (`math.fsum`), so that no engine's order of adding shows.
    """
    return [
        TextScore(math.fsum(row), len(row), len(text.encode("utf-8")))
        for text, row in zip(texts, rows, strict=True)
    ]


@dataclass(frozen=True)
class Usage:
    """What an engine has done since it was opened; the difference of two readings is a cost.

    `prompt_tokens` is what the prompts and what is scored behind them hold, `prefilled_tokens` what
    was really encoded of it: less where prompts share their beginning. `cost` is money by the
    endpoint's prices, 0 if unknown.
    """

    calls: int = 0
    prompt_tokens: int = 0
    prefilled_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0

    def since(self, earlier: Usage) -> Usage:
        """This reading less an earlier one."""
        return Usage(**{name: value - getattr(earlier, name) for name, value in vars(self).items()})


class PromptError(UserError):
    """A fault of one prompt of a call; `index` tells which, so the caller can name its question."""

    def __init__(self, what: str, *, index: int, where: str = "", allowed: str = "") -> None:
        self.index = index
        super().__init__(what, where=where, allowed=allowed)


class NoLogprobs(UserError):
    """The engine cannot tell log-probabilities; strategies that need none work all the same."""


class Engine(Protocol):
    """What a strategy may ask of a model. Results come in the order of the prompts given."""

    name: str
    """Identity of the model in results."""
    chat: ChatFormat
    """Chat template, start and end token of the model's tokenizer."""

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
        """At most `max_tokens` new tokens per prompt; temperature 0 = greedy."""
        ...

    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> list[list[float]]:
        """[prompt][choice] = sum of ln p(choice's tokens | prompt); choices bring their space.

        Raises NoLogprobs where the engine has none.
        """
        ...

    def text_logprobs(self, texts: Sequence[str]) -> list[TextScore]:
        """Log-probability of each whole text, for bits/byte."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of the text, without any start token."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What a number may depend on: model, lineage, dtype, attention, device, context."""
        ...

    def usage(self) -> Usage:
        """What has been done so far."""
        ...


class Streaming(Engine, Protocol):
    """An engine that shows its text as it is made."""

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
        """The text of `complete([prompt])` in pieces, as it is made."""
        ...


@runtime_checkable
class Forgetful(Protocol):
    """An engine that keeps what earlier calls encoded, for later ones that begin alike."""

    def forget(self) -> None:
        """Drop it: what the next calls cost then does not depend on what was asked before."""
        ...


@runtime_checkable
class TokenScorer(Protocol):
    """What tells the log-probability of every token of a text: the local engine, some endpoints."""

    def token_logprobs(self, texts: Sequence[str]) -> list[list[float]]:
        """[text][token] = ln p of the token given those before it.

        Raises NoLogprobs where an endpoint tells none.
        """
        ...
