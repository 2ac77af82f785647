"""One endpoint, one model: requests with their cache, accounts, and faults told by prompt."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from medexpert.engines.base import Completion, PromptError, Usage
from medexpert.engines.http import requests
from medexpert.engines.http.answers import usage_of
from medexpert.engines.http.cache import ResponseCache
from medexpert.engines.http.client import BadAnswer, Client, EndpointError, Refused
from medexpert.engines.http.loop import Loop, together
from medexpert.engines.http.requests import Given, Offer
from medexpert.engines.http.settings import HttpSettings
from medexpert.engines.tokenizer import Tokenizer

Value = TypeVar("Value")
Job = Callable[[], Coroutine[Any, Any, Value]]
PROMPTS = frozenset({400, 403, 413, 422})
"""Refusals that are about what was sent (403: by a filter); any other (no money left, no such
model) ends the work."""


class Link:
    """What generation and scoring share. `notes` counts what is worth telling in the facts."""

    def __init__(
        self,
        settings: HttpSettings,
        offer: Offer,
        tokenizer: Tokenizer | None,
        client: Client,
        loop: Loop,
    ) -> None:
        self.settings, self.offer, self.tokenizer = settings, offer, tokenizer
        self.client, self.loop = client, loop
        self.url = settings.base_url
        self.cache: ResponseCache | None = None
        if settings.cache:
            folder = Path(settings.cache).expanduser()
            self.cache = ResponseCache(folder, address=self.url, model=offer.model)
        self.usage, self._counting = Usage(), threading.Lock()
        self.notes: Counter[str] = Counter()

    def run(self, jobs: Sequence[Job[Value]]) -> list[Value]:
        """The values of all jobs, one a prompt, in order; the time goes to the account.

        A fault of one prompt is raised as PromptError with its number.
        """
        started = time.perf_counter()
        numbered = [self._numbered(index, job) for index, job in enumerate(jobs)]
        try:
            return self.loop.run(together(numbered))
        finally:
            self.took(time.perf_counter() - started)

    def _numbered(self, index: int, job: Job[Value]) -> Job[Value]:
        async def told() -> Value:
            try:
                return await job()
            except (Refused, BadAnswer) as error:
                raise self.blamed(index, error) from None

        return told

    def blamed(self, index: int, error: EndpointError) -> EndpointError | PromptError:
        """The error as a fault of prompt `index`, where it is one."""
        what, allowed = error.what, ""
        if isinstance(error, Refused) and error.too_long:
            what = f"it does not fit the context of {self.offer.model} ({error.words})"
            allowed = f"{self.offer.context} tokens" if self.offer.context else ""
        elif not isinstance(error, BadAnswer) and error.status not in PROMPTS:
            return error
        return PromptError(what, index=index, where=f"prompt {index + 1}", allowed=allowed)

    async def request(
        self, path: str, body: dict[str, Any], given: Given, room: int, read: Callable[[Any], Value]
    ) -> Value:
        """What `read` makes of the answer, from the cache or the endpoint; only what it can read is
        kept. `room` = new tokens asked for. An answer from the cache costs nothing."""
        kept = self.cache.get(path, body) if self.cache is not None else None
        if kept is not None:
            value = read(kept)
            self.count(kept, given, _written(value), paid=False)
            return value
        answer = await self.client.ask(f"{self.url}{path}", body, tokens=given.size + room)
        self.whole(given, answer)
        value = read(answer)
        if self.cache is not None:
            self.cache.put(path, body, answer)
        self.count(answer, given, _written(value))
        return value

    def whole(self, given: Given, answer: Any) -> None:
        """Raises BadAnswer when the endpoint read less than the prompt holds."""
        read = usage_of(answer)[0]
        if self.settings.cut_check == "on" and 0 <= read < given.least:
            raise BadAnswer(
                f"the endpoint read {read} tokens of a prompt of {given.least}: it cuts prompts"
                " (raise its context), or leaves out those it had cached (cut_check = off)",
                where=self.url,
            )

    def count(self, answer: Any, given: Given, written: int, *, paid: bool = True) -> None:
        """Add an answer to the account; `written` tokens where it does not tell its own."""
        prompt, cached, generated = usage_of(answer)
        if prompt < 0 or generated < 0:
            self.notes["answers without usage, counted here"] += 1
            prompt = given.size if prompt < 0 else prompt
            generated = written if generated < 0 else generated
        self._add(
            calls=1,
            prompt_tokens=prompt,
            prefilled_tokens=(prompt - cached) * paid,
            generated_tokens=generated,
            cost=self.settings.cost(prompt, cached, generated) * paid,
        )

    def took(self, seconds: float) -> None:
        """Add time to the account."""
        self._add(seconds=seconds)

    def _add(self, **more: float) -> None:
        with self._counting:  # answers are counted in the loop's thread, time in the caller's
            old: dict[str, Any] = vars(self.usage)
            self.usage = replace(self.usage, **{name: old[name] + more[name] for name in more})

    def own_count(self, text: str) -> int:
        """Tokens of a text by the tokenizer given, else an estimate."""
        return len(self.tokenizer.more(text)) if self.tokenizer else requests.estimate(text)

    def given(self, index: int, prompt: str, room: int) -> Given:
        """The prompt as it is sent. Raises PromptError: empty, or known not to fit."""
        where = f"prompt {index + 1}"
        if not prompt:
            raise PromptError("the prompt is empty", index=index, where=where)
        made, context = requests.given(prompt, self.offer, self.tokenizer), self.offer.context
        if self.tokenizer is not None and context and made.size + room > context:
            raise PromptError(
                f"{made.size} tokens and {room} to follow do not fit the context of"
                f" {self.offer.model} ({requests.spoken(prompt)[:40]!r}...)",
                index=index, where=where, allowed=f"{context} tokens",
            )  # fmt: skip
        return made


def _written(value: Any) -> int:
    """Tokens written for a value by our own count; a score asks for one."""
    return value.tokens if isinstance(value, Completion) else 1
