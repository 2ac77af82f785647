"""An engine that answers from a script, for tests: no weights, exact transcripts in `calls`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from medexpert.engines.base import Completion, NoLogprobs, PromptError, TextScore, Usage
from medexpert.prompt.template import ChatFormat

PLAIN = ChatFormat("")

CompletionScript = Mapping[str, str] | Callable[[str], str]
LogprobScript = Mapping[str, Sequence[float]] | Callable[[str, Sequence[str]], Sequence[float]]


@dataclass(frozen=True)
class Call:
    """One question put to the engine, in full."""

    kind: str
    """complete, choice_logprobs or text_logprobs"""
    prompts: tuple[str, ...]
    choices: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


class ScriptedEngine:
    """`completions`: prompt -> text. `logprobs`: (prompt, choices) -> one number a choice.

    Each is a mapping by exact prompt or a function. A prompt that a mapping lacks raises
    PromptError: a scripted engine never invents an answer. Tokens are whitespace-separated words.
    `has_logprobs` False makes it an endpoint without log-probabilities.
    """

    def __init__(
        self,
        completions: CompletionScript | None = None,
        logprobs: LogprobScript | None = None,
        *,
        name: str = "scripted",
        chat: ChatFormat = PLAIN,
        has_logprobs: bool = True,
    ) -> None:
        self._completions: CompletionScript = {} if completions is None else completions
        self._logprobs: LogprobScript = {} if logprobs is None else logprobs
        self.name, self.chat = name, chat
        self.has_logprobs = has_logprobs
        self.calls: list[Call] = []
        self._usage = Usage()

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
        settings = {
            "max_tokens": max_tokens,
            "stop": tuple(stop),
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
        }
        self.calls.append(Call("complete", tuple(prompts), settings=settings))
        made = [self._complete(i, prompt, max_tokens, stop) for i, prompt in enumerate(prompts)]
        self._count(prompts, sum(completion.tokens for completion in made))
        return made

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
        (made,) = self.complete(
            [prompt], max_tokens=max_tokens, stop=stop, temperature=temperature, top_p=top_p,
            seed=seed,
        )  # fmt: skip
        yield from (part for part in made.text.splitlines(keepends=True))

    def _count(self, prompts: Sequence[str], generated: int = 0) -> None:
        words = sum(self.count_tokens(prompt) for prompt in prompts)
        old = self._usage
        self._usage = replace(
            old,
            calls=old.calls + len(prompts),
            prompt_tokens=old.prompt_tokens + words,
            prefilled_tokens=old.prefilled_tokens + words,
            generated_tokens=old.generated_tokens + generated,
        )

    def _complete(
        self, index: int, prompt: str, max_tokens: int, stop: Sequence[str]
    ) -> Completion:
        script = self._completions
        if callable(script):
            text = script(prompt)
        elif prompt in script:
            text = script[prompt]
        else:
            raise PromptError(f"no completion is scripted for {prompt!r}", index=index)
        ends = [at for mark in stop if mark and (at := text.find(mark)) >= 0]
        if ends:
            text = text[: min(ends)]
        words = text.split()
        if len(words) > max_tokens:
            return Completion(" ".join(words[:max_tokens]), max_tokens, "length")
        return Completion(text, len(words), "stop")

    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> list[list[float]]:
        if not self.has_logprobs:
            raise NoLogprobs(f"{self.name} gives no log-probabilities")
        self.calls.append(Call("choice_logprobs", tuple(prompts), tuple(choices)))
        self._count(prompts)
        return [self._score(index, prompt, choices) for index, prompt in enumerate(prompts)]

    def _score(self, index: int, prompt: str, choices: Sequence[str]) -> list[float]:
        script = self._logprobs
        if callable(script):
            values = script(prompt, choices)
        elif prompt in script:
            values = script[prompt]
        else:
            raise PromptError(f"no log-probabilities are scripted for {prompt!r}", index=index)
        if len(values) != len(choices):
            raise PromptError(
                f"{len(values)} log-probabilities scripted for {len(choices)} choices", index=index
            )
        return [float(value) for value in values]

    def text_logprobs(self, texts: Sequence[str]) -> list[TextScore]:
        self.calls.append(Call("text_logprobs", tuple(texts)))
        return [
            TextScore(-float(self.count_tokens(text)), self.count_tokens(text), len(text.encode()))
            for text in texts
        ]

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def facts(self) -> dict[str, Any]:
        return {"engine": "scripted", "model": self.name}

    def usage(self) -> Usage:
        return self._usage
