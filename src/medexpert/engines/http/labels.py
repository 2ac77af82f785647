"""ln p(choice | prompt), by each of the ways that endpoints offer (`settings.LABELS`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from medexpert.engines.base import NoLogprobs, PromptError
from medexpert.engines.http import answers, requests
from medexpert.engines.http.client import BadAnswer
from medexpert.engines.http.link import Link
from medexpert.engines.http.loop import together
from medexpert.engines.http.requests import Given
from medexpert.records import UserError

WINDOW = 1024
"""Tokens of a text scored in one go, as in the local engine."""


@dataclass(frozen=True)
class _Echo:
    """The echoed tokens, the last `written` of which are the endpoint's own; `read` = tokens of the
    prompt by its usage, -1 = not told."""

    tokens: list[answers.Token]
    read: int
    written: int


class Labels:
    """Scores choices and texts over a link."""

    def __init__(self, link: Link) -> None:
        self.link, self.offer, self.tokenizer = link, link.offer, link.tokenizer
        self.ways = {"top": self._top, "choice": self._choice, "forced": self._forced}

    def score(self, prompts: Sequence[str], choices: Sequence[str]) -> list[list[float]]:
        """See `HttpEngine.choice_logprobs`."""
        if not choices:
            raise UserError("no choices to score", allowed="one or more")
        if self.offer.labels == "none":
            told = "; ".join(f"{way}: {why}" for way, why in self.offer.tried.items())
            raise NoLogprobs(
                f"{self.offer.model} gives no log-probabilities ({told})", where=self.link.url
            )
        wanted = [c.strip() if self.offer.api == "chat" else c for c in choices]
        if empty := [choice for choice in wanted if not choice]:
            raise UserError(f"the choice {empty[0]!r} holds no text")
        longest = max(self.link.own_count(choice) for choice in wanted)
        given = [self.link.given(i, prompt, longest) for i, prompt in enumerate(prompts)]
        way = self.ways.get(self.offer.labels, self._echo)
        return self.link.run([partial(way, one, wanted) for one in given])

    # -- from the echoed prompt -------------------------------------------------------------------

    async def _echo(self, given: Given, choices: list[str]) -> list[float]:
        return await together([partial(self._echo_one, given, choice) for choice in choices])

    async def _echo_one(self, given: Given, choice: str) -> float:
        """The choice's tokens are found by count where ids were sent, else by their text, else
        behind the tokens of the prompt alone."""
        whole = requests.given(given.text + choice, self.offer, self.tokenizer)
        if isinstance(given.prompt, list) and isinstance(whole.prompt, list):
            size, end = len(given.prompt), len(whole.prompt)
            same = whole.prompt[:size] == given.prompt
            tail = (await self._echoed(whole)).tokens[size:end] if same else []
            if same and len(tail) != end - size:
                raise BadAnswer("the answer tells of fewer tokens than were sent")
        else:
            echo = await self._echoed(whole)
            found = answers.behind(echo.tokens, given.text, choice)
            tail = await self._counted(given, echo) if found is None else found
        if not tail:
            raise BadAnswer(_joined(given.text, choice))
        return answers.total(tail, self.link.url)

    async def _counted(self, given: Given, whole: _Echo) -> list[answers.Token]:
        """The choice's tokens, behind those of the prompt alone; [] when the two begin unlike."""
        head = await self._echoed(given)
        start, end = len(head.tokens) - head.written, len(whole.tokens) - whole.written
        same = [t.text for t in head.tokens[:start]] == [t.text for t in whole.tokens[:start]]
        fits = min(head.read, whole.read) < 0 or whole.read - head.read == end - start
        return whole.tokens[start:end] if same and fits else []

    async def _echoed(self, given: Given) -> _Echo:
        """The prompt's tokens and what was written behind them."""

        def read(answer: Any) -> _Echo:
            choice = answers.first_choice(answer, self.link.url)
            prompt, _, made = answers.usage_of(answer)
            if self.offer.echo == "echo":
                tokens, written = answers.tokens_of(choice), made if made >= 0 else 1
            else:
                tokens, written = answers.prompt_tokens_of(choice), 0
            if not tokens:
                raise BadAnswer("the log-probabilities are missing from the answer")
            return _Echo(tokens, prompt, written)

        path, body = requests.echo(given, self.offer)
        return await self.link.request(path, body, given, 1, read)

    # -- from the answer --------------------------------------------------------------------------

    async def _forced(self, given: Given, choices: list[str]) -> list[float]:
        return await together([partial(self._force, given, choice) for choice in choices])

    async def _force(self, given: Given, choice: str) -> float:
        """The choice's tokens one after the other, each behind those before it."""
        whole: Any = requests.given(given.text + choice, self.offer, self.tokenizer).prompt
        if not isinstance(whole, list) or not isinstance(given.prompt, list):
            raise BadAnswer("the endpoint takes no token ids")
        size = len(given.prompt)
        if whole[:size] != given.prompt or len(whole) == size:
            raise BadAnswer(_joined(given.text, choice))
        steps = [partial(self._one_token, whole[:at], whole[at]) for at in range(size, len(whole))]
        return math.fsum(await together(steps))

    async def _one_token(self, ids: list[int], token: int) -> float:
        def read(answer: Any) -> float:
            tokens = answers.tokens_of(answers.first_choice(answer, self.link.url))
            if not tokens:
                raise BadAnswer("the log-probabilities are missing from the answer")
            return answers.checked(tokens[0], self.link.url)

        path, body = requests.forced(ids, token, self.offer)
        given = Given("", ids, len(ids), len(ids))
        return await self.link.request(path, body, given, 1, read)

    async def _choice(self, given: Given, choices: list[str]) -> list[float]:
        def read(answer: Any) -> list[float]:
            found = answers.first_choice(answer, self.link.url)
            text = answers.text_of(found, self.offer.api, self.link.url)
            if text not in choices:
                raise BadAnswer(f"the endpoint answered {text!r}, which is none of the choices")
            return [0.0 if choice == text else -math.inf for choice in choices]

        path, body = requests.chosen(given, choices, self.offer)
        return await self.link.request(path, body, given, max(map(len, choices)), read)

    async def _top(self, given: Given, choices: list[str]) -> list[float]:
        def read(answer: Any) -> list[float]:
            top = answers.first_top(answers.first_choice(answer, self.link.url))
            if not top:
                raise BadAnswer("the log-probabilities are missing from the answer")
            values = answers.by_first_token(top, choices)
            if max(values) == -math.inf:
                raise BadAnswer(
                    f"none of the choices is among the {len(top)} most likely first tokens"
                )
            self.link.notes["choices not among the top tokens"] += values.count(-math.inf)
            return values

        path, body = requests.top(given, self.link.settings.top_logprobs, self.offer)
        return await self.link.request(path, body, given, 1, read)

    # -- whole texts ------------------------------------------------------------------------------

    def tokens(self, texts: Sequence[str]) -> list[list[float]]:
        """See `HttpEngine.token_logprobs`."""
        offer, tokenizer = self.offer, self.tokenizer
        if tokenizer is None or not offer.ids or not offer.echo:
            raise NoLogprobs(
                "scoring whole texts needs the model's tokenizer (--engine-option tokenizer=MODEL;"
                f" {'given' if tokenizer else 'none given'}) and /completions that take token ids"
                f" ({'found' if offer.ids else 'not found'}) and tell a prompt's"
                f" log-probabilities by echo or prompt_logprobs ({offer.echo or 'neither found'})",
                where=self.link.url,
            )
        start = tokenizer.text_start()
        if start is None:
            raise UserError(f"the tokenizer of {offer.model} has neither BOS nor EOS")
        # Room for the token given before a window, and for the one that is written behind it.
        window = min(offer.context - 2 if offer.context else WINDOW, WINDOW)
        rows = [tokenizer.more(text) for text in texts]
        scores: list[list[float]] = [[] for _ in texts]
        pieces = [
            (owner, [start, *row][at : at + window + 1])
            for owner, row in enumerate(rows)
            for at in range(0, len(row), window)
        ]
        try:
            found = self.link.run([partial(self._piece, ids) for _, ids in pieces])
        except PromptError as error:
            owner = pieces[error.index][0]
            where = f"text {owner + 1}"
            raise PromptError(error.what, index=owner, where=where) from None
        for (owner, _), values in zip(pieces, found, strict=True):  # windows in order
            scores[owner] += values
        return scores

    async def _piece(self, ids: list[int]) -> list[float]:
        tokens = (await self._echoed(Given("", ids, len(ids), len(ids)))).tokens
        if len(tokens) < len(ids):
            raise BadAnswer("the answer tells of fewer tokens than were sent")
        return [answers.checked(token, self.link.url) for token in tokens[1 : len(ids)]]


def _joined(prompt: str, choice: str) -> str:
    return (
        f"the tokenizer joins the prompt's end {prompt[-20:]!r} with the choice {choice!r}, so it"
        " cannot be scored behind this prompt"
    )
