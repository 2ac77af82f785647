"""Requests to an endpoint: retries, pace, time limits, and one clear line for each way it fails.

The key is sent in a header and appears nowhere else: every word of the endpoint that may be shown
goes through `Client.words`, which takes it out.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from medexpert.engines.http.pace import Pace, back_off, retry_after
from medexpert.engines.http.settings import HttpSettings
from medexpert.records import UserError

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses that may pass: they are asked again."""
TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size)|maximum (context|model) length|exceeds? the (available )?"
    r"context|exceed_context|max_model_len|n_ctx|prompt is too long|too many tokens",
    re.IGNORECASE,
)
FILTERED = re.compile(r"moderation|flagged|content[ _-]?(filter|policy)", re.IGNORECASE)
"""In an answer 403: not the key is refused but the text (OpenRouter)."""
SHOWN = 300
"""Characters of the endpoint's own words that an error repeats."""


class EndpointError(UserError):
    """The endpoint cannot be used, or not now: it is down, refuses the key, keeps failing.

    `status` is its last answer's, 0 where there was none.
    """

    status = 0


class Refused(EndpointError):
    """A 4xx answer about this request. `too_long`: the prompt does not fit the model's context."""

    def __init__(self, status: int, words: str, *, where: str) -> None:
        self.status, self.words = status, words
        self.too_long = bool(TOO_LONG.search(words))
        super().__init__(f"the endpoint refuses the request ({status}): {words}", where=where)


class BadAnswer(EndpointError):
    """A 200 answer that is not what the protocol says; concerns one request."""


class NoJson(EndpointError):
    """Answers 200 that are no JSON, also after the retries: an error page of a proxy, or no
    endpoint at all. No prompt is to blame."""


class _Passing(Exception):
    """A failure that may pass. `wait` = seconds asked for; after 429 and 503 all wait. `last` is
    what it becomes where it does not pass."""

    def __init__(
        self, why: str, *, status: int = 0, wait: float | None = None,
        last: type[EndpointError] = EndpointError,
    ) -> None:  # fmt: skip
        self.why, self.status, self.wait, self.last = why, status, wait, last
        super().__init__(why)


class Client:
    """Asynchronous; all calls must come from one event loop. `tries` counts requests sent."""

    def __init__(self, settings: HttpSettings, *, key: str) -> None:
        self.settings, self._secret = settings, key
        self.pace = Pace(settings.requests_per_minute, settings.tokens_per_minute)
        self.room = asyncio.Semaphore(settings.concurrency)
        self.tries = self.retried = 0
        kept = settings.concurrency + 1
        self._http = httpx2.AsyncClient(
            headers={"Content-Type": "application/json"}
            | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx2.Timeout(
                settings.read_timeout, connect=settings.connect_timeout, pool=None
            ),
            limits=httpx2.Limits(max_connections=kept, max_keepalive_connections=kept),
            # Reading the certificates takes a while, and redirects are not followed.
            verify=settings.base_url.startswith("https:"),
        )

    async def close(self) -> None:
        await self._http.aclose()

    def words(self, text: str) -> str:
        """The endpoint's own words on one line, short, without the key."""
        line = " ".join(text.split())
        if self._secret:
            line = line.replace(self._secret, "***")
        return line if len(line) <= SHOWN else line[:SHOWN] + "..."

    async def ask(
        self,
        url: str,
        body: dict[str, Any] | None = None,
        *,
        tokens: int = 0,
        retries: int | None = None,
    ) -> Any:
        """The JSON value that a GET, or a POST of `body`, is answered with.

        `tokens` is what the request counts against the token rate. Raises EndpointError (down,
        key refused, still failing after the retries or the patience of the settings), NoJson among
        them, and Refused.
        """
        async with self.room:
            return await self._patiently(url, body, tokens, retries)

    async def _patiently(
        self, url: str, body: dict[str, Any] | None, tokens: int, retries: int | None
    ) -> Any:
        loop, settings = asyncio.get_running_loop(), self.settings
        most = settings.retries if retries is None else retries
        tried, started = 0, 0.0
        fault: _Passing | None = None
        while True:
            await self.pace.enter(tokens)
            started = started or loop.time()
            tried += 1
            try:
                async with asyncio.timeout(settings.patience - (loop.time() - started)):
                    return await self._once(url, body)
            except TimeoutError:
                fault = fault or _Passing("it has not answered in time")
            except _Passing as passing:
                fault = passing
            wait = back_off(tried, fault.wait)
            spent = loop.time() - started
            if tried > most or spent + wait > settings.patience:
                self._give_up(url, fault, tried, spent)
            self.retried += 1
            if fault.status in (429, 503):
                self.pace.hold(wait)
            await asyncio.sleep(wait)

    def _give_up(self, url: str, fault: _Passing, tried: int, spent: float) -> None:
        asked = f"; it asks to wait {fault.wait:.0f} s" if fault.wait else ""
        tries = "1 try" if tried == 1 else f"{tried} tries"
        error = fault.last(
            f"{fault.why}{asked}; given up after {tries} and {spent:.0f} s", where=url
        )
        error.status = fault.status
        raise error

    async def _once(self, url: str, body: dict[str, Any] | None) -> Any:
        self.tries += 1
        try:
            if body is None:
                response = await self._http.get(url)
            else:
                response = await self._http.post(url, content=_json(body))
        except httpx2.HTTPError as error:
            raise _Passing(self._transport(error)) from None
        except httpx2.InvalidURL as error:
            raise EndpointError(f"no address ({error})", where=url) from None
        return self._read(url, response.status_code, response.headers, response.text)

    def _transport(self, error: httpx2.HTTPError) -> str:
        settings = self.settings
        if isinstance(error, httpx2.ConnectTimeout):
            return f"no connection within {settings.connect_timeout:g} s (connect_timeout)"
        if isinstance(error, httpx2.TimeoutException):
            return f"no answer within {settings.read_timeout:g} s (read_timeout)"
        if isinstance(error, httpx2.ConnectError):
            return f"cannot connect: is the endpoint running? ({self.words(str(error))})"
        return f"the connection broke off ({self.words(str(error)) or type(error).__name__})"

    def _read(self, url: str, status: int, headers: Any, text: str) -> Any:
        """The value of an answer; raises what its status asks for, or that of the error in it."""
        if status < 300:
            value = self._value(text)
            if not (isinstance(value, dict) and value.get("error") and "choices" not in value):
                return value
            status = _code(value["error"])
        if status == 401 or (status == 403 and not FILTERED.search(text)):
            raise EndpointError(
                f"the endpoint refuses the key ({status}): {self.words(_message(text))}",
                where=url,
                allowed="api_key_env = the name of the environment variable that holds the key",
            )
        if status in AGAIN and "insufficient_quota" not in text:
            raise _Passing(
                f"the endpoint answers {status}: {self.words(_message(text))}",
                status=status,
                wait=retry_after(headers.get("retry-after")),
            )
        raise Refused(status, self.words(_message(text)), where=url)

    def _value(self, text: str) -> Any:
        try:
            return json.loads(text, strict=False)  # some write control characters as they are
        except ValueError:
            if text.lstrip()[:1] == "<":
                what = (
                    "the answer is HTML, not JSON: is the address right (it often ends in /v1), or "
                    "does a proxy answer?"
                )
            else:
                what = f"the answer is not JSON: {self.words(text[:80])!r}"
            raise _Passing(what, last=NoJson) from None

    async def stream(
        self, url: str, body: dict[str, Any], *, tokens: int = 0
    ) -> AsyncIterator[dict[str, Any]]:
        """The events of a streamed answer. Asked once: what was shown cannot be taken back.

        Raises like `ask`, and EndpointError when the stream ends before its last event.
        """
        async with self.room:
            await self.pace.enter(tokens)
            self.tries += 1
            try:
                async with self._http.stream("POST", url, content=_json(body)) as response:
                    if response.status_code != 200:
                        text = (await response.aread()).decode("utf-8", "replace")
                        self._read(url, response.status_code, response.headers, text)
                    async for event in self._events(url, response):
                        yield event
            except httpx2.HTTPError as error:
                raise EndpointError(self._transport(error), where=url) from None
            except _Passing as passing:
                raise EndpointError(passing.why, where=url) from None

    async def _events(self, url: str, response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
        ended = False
        async for line in response.aiter_lines():
            name, _, data = line.partition(":")
            if name != "data":
                continue
            if data.strip() == "[DONE]":
                return
            try:
                event = json.loads(data)
            except ValueError:
                raise BadAnswer(
                    f"a streamed event is not JSON: {self.words(data[:80])!r}", where=url
                ) from None
            if not isinstance(event, dict) or event.get("error"):
                raise EndpointError(
                    f"the stream reports an error: {self.words(_message(data))}", where=url
                )
            choices = event.get("choices") or []
            if not isinstance(choices, list) or not all(isinstance(c, dict) for c in choices):
                raise BadAnswer(f"a streamed event has no choices: {self.words(data)!r}", where=url)
            ended = ended or any(c.get("finish_reason") for c in choices)
            yield event
        if not ended:
            raise EndpointError("the stream ended before the text was complete", where=url)


def _json(body: dict[str, Any]) -> bytes:
    """ASCII, so that any text a prompt may hold can be sent."""
    return json.dumps(body).encode("ascii")


def _message(text: str) -> str:
    """What an error answer says: OpenAI's, FastAPI's and plain forms."""
    try:
        value = json.loads(text)
    except ValueError:
        return "an HTML page" if text.lstrip()[:1] == "<" else text or "(no words)"
    if isinstance(value, dict):
        error = value.get("error", value)
        if isinstance(error, dict):
            parts = [error.get(name) for name in ("message", "detail", "code", "type")]
            said = [part if isinstance(part, str) else json.dumps(part) for part in parts if part]
            return " · ".join(said) or text
        return str(error)
    return text


def _code(error: Any) -> int:
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and not isinstance(code, bool) else 400
