"""What the questions of a batch were asked, answered and counted: the part every strategy shares.

Per question it keeps the prompts (as a digest), the templates, and the tokens as if nothing were
shared; what an engine saved by sharing is in its `usage()`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from medexpert.prompt import asking
from medexpert.prompt.asking import QuestionRefused, Scored
from medexpert.records import digest

if TYPE_CHECKING:
    from medexpert.engines.base import Completion, Engine

Item = TypeVar("Item")


@dataclass(frozen=True)
class Asked:
    """A prompt for free text, and the question it belongs to."""

    question: str
    prompt: str
    template: str


def draw_seed(seed: int, draw: int) -> int:
    """The engine's seed for a draw: the seed itself for the first, a hash (28 bits) for the others,
    so that no draw of one run is a draw of the run with the next seed."""
    return int(digest([seed, draw])[:7], 16) if draw else seed


def without_refused(
    ask: Callable[[Sequence[Item]], None], items: Sequence[Item], question: Callable[[Item], str]
) -> dict[str, str]:
    """Let `ask` do all items, and tell {question id: why} of those that the engine refuses.

    One that is refused is asked once more, by itself (a broken answer of an endpoint is not its
    last word), and the rest without it. `question` gives the id that a refusal names.
    """
    refused: dict[str, str] = {}
    left = list(items)
    while left:
        try:
            ask(left)
            break
        except QuestionRefused as error:
            alone = [item for item in left if question(item) == error.question]
            left = [item for item in left if question(item) != error.question]
            if not alone:
                raise
        try:
            ask(alone)
        except QuestionRefused as last:
            refused[last.question] = last.why
    return refused


class Ledger:
    """Passes prompts on to the engine and notes, question by question, what it cost."""

    def __init__(self, engine: Engine, *, seed: int) -> None:
        self.engine, self.seed = engine, seed
        self._prompts: dict[str, list[str]] = {}
        self._templates: dict[str, set[str]] = {}
        self._tokens: dict[str, Counter[str]] = {}

    def complete(
        self,
        asked: Sequence[Asked],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        draw: int = 0,
    ) -> list[Completion]:
        """One completion a prompt, in order. `draw` tells repeated samples of one prompt apart.

        Raises UserError naming the question whose prompt does not fit.
        """
        made: list[Completion] = asking.complete(
            [(item.question, item.prompt) for item in asked], self.engine, max_tokens=max_tokens,
            stop=stop, temperature=temperature, top_p=top_p, seed=draw_seed(self.seed, draw),
        )  # fmt: skip
        for item, completion in zip(asked, made, strict=True):
            self._note(item.question, item.prompt, item.template, completion.tokens)
        return made

    def each(self, asked: Sequence[Asked], *, max_tokens: int) -> list[Completion | str]:
        """Greedy completions as `complete`; why, for a question that the engine refuses, also when
        it is asked once more, by itself."""
        found: dict[int, Completion] = {}

        def ask(chosen: Sequence[int]) -> None:
            made = self.complete([asked[k] for k in chosen], max_tokens=max_tokens)
            found.update(zip(chosen, made, strict=True))

        refused = without_refused(ask, range(len(asked)), lambda k: asked[k].question)
        return [found.get(k) or refused[asked[k].question] for k in range(len(asked))]

    def score(self, asked: Sequence[Scored]) -> list[list[float]]:
        """[prompt][label] log-probabilities, see `asking.score`."""
        rows = asking.score(asked, self.engine)
        for item in asked:
            self._note(item.question, item.prompt, item.template, 0)
        return rows

    def _note(self, question: str, prompt: str, template: str, generated: int) -> None:
        self._prompts.setdefault(question, []).append(prompt)
        self._templates.setdefault(question, set()).add(template)
        counts = self._tokens.setdefault(question, Counter({"prompt": 0, "generated": 0}))
        counts["prompt"] += self.engine.count_tokens(prompt)
        counts["generated"] += generated

    def trace(self, question: str) -> dict[str, Any]:
        """`calls`, `templates`, `prompts` (a digest) and `tokens` of a question."""
        prompts = self._prompts.get(question, [])
        return {
            "calls": len(prompts),
            "templates": sorted(self._templates.get(question, ())),
            "prompts": digest(prompts),
            "tokens": dict(self._tokens.get(question, {"prompt": 0, "generated": 0})),
        }
