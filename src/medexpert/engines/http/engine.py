"""The engine itself: see the package's docstring and `engines.base`.

Over /completions prompts are sent as they are rendered; over /chat/completions, for endpoints that
only chat, as the messages they were rendered from. Which of the two, and where the log-probability
of a choice comes from, is found by a probe when the engine is opened, or declared and then checked
(`settings.LABELS`); `facts` tells both.

Nothing is cut silently: a prompt that the endpoint says is too long is a PromptError, and with a
tokenizer so is one of which the endpoint read fewer tokens than it holds.
"""

from __future__ import annotations

import hashlib
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from medexpert.engines.base import Completion, TextScore, Usage, text_scores
from medexpert.engines.http import answers, requests
from medexpert.engines.http.client import BadAnswer, Client, EndpointError
from medexpert.engines.http.labels import Labels
from medexpert.engines.http.link import Link
from medexpert.engines.http.loop import Loop
from medexpert.engines.http.probe import Probe
from medexpert.engines.http.requests import CHAT, Decoding, Given
from medexpert.engines.http.settings import HttpSettings
from medexpert.engines.tokenizer import Tokenizer, open_tokenizer
from medexpert.prompt.template import ChatFormat
from medexpert.records import digest


class HttpEngine:
    """See `engines.base.Streaming`. `close` ends its thread; so does the end of the program."""

    def __init__(
        self, settings: HttpSettings, tokenizer: Tokenizer | None = None, *, name: str = ""
    ) -> None:
        """Connects and probes. Raises UserError: what `Probe.run` raises, key missing."""
        key = settings.key()
        loop = Loop()
        client: Client | None = None
        try:
            client = loop.run(_made(settings, key))
            offer = loop.run(Probe(client, settings, tokenizer).run())
        except BaseException:
            loop.close(client.close if client else None)
            raise
        self.close = weakref.finalize(self, loop.close, client.close)
        self.settings = replace(settings, model=offer.model)
        self.offer, self.tokenizer = offer, tokenizer
        self.name = name or offer.model
        plain = tokenizer.chat if tokenizer is not None else ChatFormat("")
        self.chat = CHAT if offer.api == "chat" else plain
        self._link = Link(self.settings, offer, tokenizer, client, loop)
        self._labels = Labels(self._link)
        self._counts: dict[str, int] = {}

    @classmethod
    def open(
        cls, settings: HttpSettings, say: Callable[[str], None], *, name: str = ""
    ) -> HttpEngine:
        """Open the tokenizer that the settings name, then the endpoint; tell what was found."""
        tokenizer = open_tokenizer(settings.tokenizer, say) if settings.tokenizer else None
        engine = cls(settings, tokenizer, name=name)
        offer = engine.offer
        say(
            f"{settings.base_url}: {offer.kind}, model {offer.model}, asked over {offer.api}; "
            f"labels by {offer.labels}; tokens counted by {engine.counting}"
        )
        return engine

    def identity(self) -> str:
        """Digest of what answers depend on as far as an endpoint tells: not its weights."""
        offer, tokenizer = self.offer, self.tokenizer
        told: list[Any] = [
            self.settings.base_url, offer.model, offer.kind, offer.api, offer.labels, offer.ids
        ]  # fmt: skip
        if offer.labels == "top":  # what is not among so many counts as impossible
            told.append(self.settings.top_logprobs)
        return digest([*told, tokenizer.digest if tokenizer else ""])

    # -- tokens -----------------------------------------------------------------------------------

    @property
    def counting(self) -> str:
        """Who counts tokens: the tokenizer given, the endpoint, or nobody (an estimate)."""
        if self.tokenizer is not None:
            return f"the tokenizer {self.settings.tokenizer or 'given'}"
        return "the endpoint" if self.offer.counter >= 0 else "an estimate (4 characters a token)"

    def count_tokens(self, text: str) -> int:
        """Tokens of the text, without any start token, by `counting`."""
        text = requests.spoken(text)
        if self.tokenizer is not None or self.offer.counter < 0:
            return self._link.own_count(text)
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        if key not in self._counts:
            path, body = requests.counter(self.offer.counter, self.offer.model, text)
            url = self.settings.base_url.removesuffix("/v1") + path
            found = answers.counted(self._link.loop.run(self._link.client.ask(url, body)))
            if found is None:
                raise BadAnswer("the answer holds no number of tokens", where=url)
            self._counts[key] = found
        return self._counts[key]

    # -- generation -------------------------------------------------------------------------------

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
        """See `engines.base.Engine`. Each prompt of a call has its own seed, made from the call's,
        the text and its earlier occurrences; whether a seed repeats a draw is up to the endpoint.

        Raises PromptError (a prompt that does not fit, a bad answer to it), EndpointError.
        """
        how = Decoding.checked(max_tokens, stop, temperature, top_p)
        given = [self._link.given(i, prompt, max_tokens) for i, prompt in enumerate(prompts)]
        seeds = requests.seeds(prompts, seed)
        return self._link.run(
            [partial(self._complete, one, how, own) for one, own in zip(given, seeds, strict=True)]
        )

    async def _complete(self, given: Given, how: Decoding, seed: int) -> Completion:
        path, body = requests.generation(given, how, seed, self.offer)
        read = partial(self._completion, how)
        return await self._link.request(path, body, given, how.max_tokens, read)

    def _completion(self, how: Decoding, answer: Any) -> Completion:
        """Raises BadAnswer for a missing field. A text that ends at a filter ends as "stop"."""
        choice = answers.first_choice(answer, self.settings.base_url)
        whole = answers.text_of(choice, self.offer.api, self.settings.base_url)
        text = answers.cut_at(whole, how.stop)
        told = answers.usage_of(answer)[2]
        tokens = told if told >= 0 else self._link.own_count(whole)
        finish = choice.get("finish_reason")
        length = finish == "length" and text == whole
        self._link.notes["empty completions"] += not text
        self._link.notes["ended by a filter"] += finish == "content_filter"
        return Completion(text, tokens, "length" if length else "stop")

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
        """See `engines.base.Streaming`. Raises EndpointError when the stream breaks off, and at its
        end PromptError when the endpoint tells that it had cut the prompt."""
        how = Decoding.checked(max_tokens, stop, temperature, top_p)
        given = self._link.given(0, prompt, max_tokens)
        path, body = requests.generation(given, how, requests.seeds([prompt], seed)[0], self.offer)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        url = f"{self.settings.base_url}{path}"
        events = self._link.client.stream(url, body, tokens=given.size + max_tokens)
        told: dict[str, Any] = {}
        said, failed, started = "", False, time.perf_counter()
        try:
            pieces = self._link.loop.iterate(events)
            for piece in answers.shown(pieces, self.offer.api, how.stop, told):
                said += piece
                yield piece
            self._link.whole(given, told)
        except EndpointError as error:
            failed = True
            raise self._link.blamed(0, error) from None
        finally:
            if said or not failed:
                self._link.count(told, given, self._link.own_count(said))
            self._link.took(time.perf_counter() - started)

    # -- scoring ----------------------------------------------------------------------------------

    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> list[list[float]]:
        """See `engines.base.Engine`; what the numbers mean is in `settings.LABELS`.

        Over chat a choice is scored as an answer, without the space before it. Raises NoLogprobs
        where the endpoint tells none, PromptError, EndpointError.
        """
        return self._labels.score(prompts, choices)

    def text_logprobs(self, texts: Sequence[str]) -> list[TextScore]:
        """See `engines.base.Engine`; windows as in the local engine.

        Raises NoLogprobs as `token_logprobs`.
        """
        return text_scores(texts, self.token_logprobs(texts))

    def token_logprobs(self, texts: Sequence[str]) -> list[list[float]]:
        """See `engines.base.TokenScorer`; windows as in the local engine.

        Raises NoLogprobs where the endpoint echoes no tokens or takes no token ids, or no tokenizer
        was given.
        """
        return self._labels.tokens(texts)

    # -- what it is -------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """What has been done so far, by the endpoint's own counts."""
        return self._link.usage

    def facts(self) -> dict[str, Any]:
        """Endpoint, model and what the probe found; counters of what happened; never the key."""
        cache, offer, client = self._link.cache, self.offer, self._link.client
        counts = cache and {"hits": cache.hits, "misses": cache.misses, "bad": cache.corrupted}
        return {
            "engine": "http",
            "model": self.name,
            "endpoint": self.settings.base_url,
            "served_model": offer.model,
            "server": offer.kind,
            "api": offer.api,
            "labels": offer.labels,
            "token_ids": offer.ids,
            "context": offer.context,
            "tokenizer": self.settings.tokenizer,
            "tokenizer_digest": self.tokenizer.digest if self.tokenizer else "",
            "tokens_counted_by": self.counting,
            "probes": dict(offer.tried),
            "requests": client.tries,
            "retries": client.retried,
            "notes": {name: count for name, count in self._link.notes.items() if count},
            "cache": counts,
        }


async def _made(settings: HttpSettings, key: str) -> Client:
    """The client, made inside the loop that it belongs to."""
    return Client(settings, key=key)
