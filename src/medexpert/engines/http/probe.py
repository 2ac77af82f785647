"""What an endpoint really offers, found by asking it once when it is opened.

A server may ignore what it does not know, so an offer counts only when the answer shows it: an echo
is there token by token, a forced answer is the forced one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from medexpert.engines.http import requests
from medexpert.engines.http.answers import (
    counted,
    first_choice,
    first_top,
    prompt_tokens_of,
    text_of,
    tokens_of,
    total,
    usage_of,
)
from medexpert.engines.http.client import BadAnswer, Client, EndpointError, NoJson, Refused
from medexpert.engines.http.requests import Offer
from medexpert.engines.http.settings import HttpSettings
from medexpert.engines.tokenizer import Tokenizer
from medexpert.records import UserError, unknown_name

PROMPT = "One, two, three, four"
FORCED = " zebra"
"""An answer that no model gives to PROMPT by itself; its first token is forced."""
ECHOES = ("echo", "prompt_logprobs")
SURE = -0.5
"""ln p of it above this: the endpoint tells p after forcing, not the model's own."""


class Probe:
    """Asks an endpoint what it offers. The probes cost a few tokens and are never cached."""

    def __init__(self, client: Client, settings: HttpSettings, tokenizer: Tokenizer | None) -> None:
        self.client, self.settings, self.tokenizer = client, settings, tokenizer
        self.base = settings.base_url
        self.root = self.base.removesuffix("/v1")
        self.model = settings.model
        self.limit = "max_tokens"
        self.tried: dict[str, str] = {}

    async def run(self) -> Offer:
        """What the endpoint offers. Raises UserError: no endpoint, unknown model, key refused, or
        something that the settings ask for is not offered."""
        entry = await self._find_model()
        kind = await self._kind(entry)
        meta = entry.get("meta") if isinstance(entry.get("meta"), dict) else {}
        told = entry.get("max_model_len") or (meta or {}).get("n_ctx")
        told = told if isinstance(told, int) else 0
        api = await self._find_api()
        ids, adds_start = await self._find_ids(api)
        labels = await self._find_labels(api, ids)
        echo = labels if labels in ECHOES else ""
        for way in ECHOES if labels == "forced" else ():
            if not echo and await self._offers(way, api):
                echo = way
        return Offer(
            kind=kind, model=self.model, context=self.settings.context or told, api=api,
            labels=labels, echo=echo, ids=ids, adds_start=adds_start, limit=self.limit,
            counter=await self._find_counter(), tried=dict(self.tried),
        )  # fmt: skip

    # -- which model, which server ----------------------------------------------------------------

    async def _find_model(self) -> dict[str, Any]:
        """The entry of the model in the endpoint's list; {} where there is no list."""
        url = f"{self.base}/models"
        try:
            answer = await self.client.ask(url, retries=0)
        except EndpointError as error:
            if error.status in (0, 401, 403):
                raise
            self.tried["models"], answer = f"not told ({error.status})", None
        rows = answer.get("data") if isinstance(answer, dict) else None
        rows = rows if isinstance(rows, list) else []
        entries = {str(row["id"]): row for row in rows if isinstance(row, dict) and row.get("id")}
        if not entries:
            self.tried.setdefault("models", "not told")
            if not self.model:
                raise UserError(
                    "the endpoint does not tell its models: name one", where=url,
                    allowed="openai:MODEL, or ADDRESS#MODEL",
                )  # fmt: skip
            return {}
        self.tried["models"] = f"{len(entries)} told"
        if not self.model and len(entries) == 1:
            self.model = next(iter(entries))
        if self.model not in entries and self.settings.model_check == "off":
            self.tried["models"] += ", not this one"
            return {}
        if self.model not in entries:
            raise unknown_name("model", self.model, entries, where=url)
        return dict(entries[self.model])

    async def _kind(self, entry: Mapping[str, Any]) -> str:
        owner = str(entry.get("owned_by", ""))
        for path, name in (("/version", "vllm"), ("/api/version", "ollama")):
            answer = await self._try(f"{self.root}{path}")
            if isinstance(answer, dict) and isinstance(answer.get("version"), str):
                return f"{name} {answer['version']}"
        props = await self._try(f"{self.root}/props")
        if isinstance(props, dict) and "default_generation_settings" in props:
            return f"llama.cpp {props.get('build_info', '')}".strip()
        if (await self._count(2)) > 0:
            return requests.COUNTERS[2]
        return owner or "unknown"

    async def _try(self, url: str, body: dict[str, Any] | None = None) -> Any:
        """The answer, or None where there is none of use."""
        try:
            return await self.client.ask(url, body, retries=0)
        except EndpointError:
            return None

    async def _count(self, number: int) -> int:
        """Tokens of PROMPT by a row of `requests.COUNTERS`, 0 where it does not answer."""
        path, body = requests.counter(number, self.model, PROMPT)
        return counted(await self._try(f"{self.root}{path}", body)) or 0

    async def _find_counter(self) -> int:
        if self.tokenizer is not None:
            return -1
        for number in range(len(requests.COUNTERS)):
            if await self._count(number) > 1:
                return number
        return -1

    # -- what it can do ---------------------------------------------------------------------------

    async def _find_api(self) -> str:
        """Raises what the endpoint answers when it has neither, or not the one asked for."""
        asked = self.settings.api
        if asked in ("auto", "completions"):
            try:
                first_choice(await self._completion({}), self.base)
            except (Refused, BadAnswer, NoJson) as error:
                self.tried["completions"] = _why(error)
                if asked == "completions":
                    raise
            else:
                self.tried["completions"] = "offered"
                return "completions"
        try:
            answer = await self._chat({})
        except Refused as error:
            if "max_completion_tokens" not in error.words:
                raise
            self.limit = "max_completion_tokens"
            answer = await self._chat({})
        first_choice(answer, self.base)
        self.tried["chat"] = "offered"
        return "chat"

    async def _completion(self, extra: dict[str, Any]) -> Any:
        body = {"model": self.model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0.0}
        return await self.client.ask(f"{self.base}/completions", {**body, **extra}, retries=1)

    async def _chat(self, extra: dict[str, Any]) -> Any:
        message = {"role": "user", "content": PROMPT}
        body = {"model": self.model, "messages": [message], self.limit: 1}
        return await self.client.ask(f"{self.base}/chat/completions", {**body, **extra}, retries=1)

    async def _find_labels(self, api: str, ids: bool) -> str:
        """The way to log-probabilities that is asked for, or the first that works."""
        asked = self.settings.labels
        order: tuple[str, ...] = (asked,)
        if asked == "auto":
            exact = ("forced", *ECHOES) if api == "completions" else ()
            order = (*exact, "top")
        for way in order:
            if way == "none":
                return way
            if way == "forced" and not ids:
                self.tried[way] = "needs a tokenizer and an endpoint that takes token ids"
            elif await self._offers(way, api):
                return way
        if asked == "auto":
            return "none"
        raise UserError(
            f"the endpoint does not offer labels = {asked!r} ({self.tried.get(asked, '')})",
            where=self.base,
            allowed="labels = 'auto' takes what it offers",
        )

    async def _offers(self, way: str, api: str) -> bool:
        try:
            self.tried[way] = await self._outcome(way, api)
        except (BadAnswer, NoJson, Refused) as error:
            self.tried[way] = _why(error)
        except EndpointError as error:
            if error.status < 500:
                raise
            self.tried[way] = _why(error)
        return self.tried[way] == "offered"

    async def _outcome(self, way: str, api: str) -> str:
        """ "offered", or what is missing."""
        request = self._completion if api == "completions" else self._chat
        if way in ECHOES:
            reads = tokens_of if way == "echo" else prompt_tokens_of
            extra = {"echo": True, "logprobs": 1} if way == "echo" else {"prompt_logprobs": 0}
            tokens = reads(first_choice(await request(extra), self.base))
            if len(tokens) < 3 or "four" not in "".join(t.text for t in tokens):
                return "the prompt's tokens are not told"
            total(tokens[1:3], self.base)
            return "offered"
        if way == "top":
            asked = requests.top_fields(api, self.settings.top_logprobs)
            found = first_top(first_choice(await request(asked), self.base))
            return "offered" if len(found) > 1 else "no top_logprobs in the answer"
        if way == "choice":
            fields = {**requests.chosen_fields([FORCED.strip()]), self.limit: 16}
            choice = first_choice(await request(fields), self.base)
            came = text_of(choice, api, self.base) == FORCED.strip()
            return "offered" if came else "the answer is none of the choices"
        assert self.tokenizer is not None
        token = self.tokenizer.more(FORCED)[0]
        choice = first_choice(await request(requests.forced_fields(token)), self.base)
        own = tokens_of(choice)
        if not own or not own[0].text or not FORCED.startswith(own[0].text):
            return "the forced token did not come, or without its log-probability"
        sure = total(own[:1], self.base) > SURE
        return "log-probabilities are those after forcing" if sure else "offered"

    async def _find_ids(self, api: str) -> tuple[bool, bool]:
        """(takes token ids as a prompt, puts start tokens before a text)."""
        tokenizer = self.tokenizer
        if tokenizer is None or api != "completions":
            return False, False
        plain, whole = len(tokenizer.more(PROMPT)), len(tokenizer.start(PROMPT))
        read = usage_of(await self._completion({}))[0]
        if read < 0:
            self.tried["token ids"] = "its answers do not tell how many tokens it read"
            return False, whole > plain
        if read not in (plain, whole):
            raise UserError(
                f"the endpoint reads {read} tokens where the tokenizer {self.settings.tokenizer}"
                f" makes {whole} of the same text: it is another model's",
                where="tokenizer",
            )
        adds_start = whole > plain and read == whole
        try:
            answer = await self._completion({"prompt": tokenizer.start(PROMPT)})
            ids = usage_of(answer)[0] == whole
        except EndpointError as error:
            self.tried["token ids"] = _why(error)
            return False, adds_start
        self.tried["token ids"] = "offered" if ids else "read as something else"
        return ids, adds_start


def _why(error: UserError) -> str:
    return re.sub(r"\s+", " ", error.what)[:160]
