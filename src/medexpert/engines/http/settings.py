"""How an endpoint is asked: the settings of the HTTP engine, from text, checked at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlsplit

from medexpert.records import UserError, unknown_name

APIS = ("auto", "completions", "chat")
LABELS = ("auto", "echo", "prompt_logprobs", "forced", "top", "choice", "none")
"""Where the log-probability of a choice comes from.

echo             the endpoint repeats prompt and choice with the log-probability of each token
prompt_logprobs  the same as a field of its own (vLLM)
forced           token by token the endpoint is allowed the choice's token only, and tells the
                 log-probability that the model gave it (vLLM); prompts stay in its prefix cache
top              the most likely first tokens: the probability of a choice is that of the tokens
                 that are it, or begin it and no other choice; a choice not listed gets -inf
choice           the endpoint answers one of the choices: a decision, no probabilities (0 and -inf)
none             nothing: NoLogprobs
auto             the first of forced, echo, prompt_logprobs, top that a probe finds
"""
PREFIX = "openai"


@dataclass(frozen=True)
class HttpSettings:
    """Where the endpoint is and how it may be used; times in seconds, prices per million tokens.

    `api_key_env` names the environment variable that holds the key; the key itself is stored
    nowhere. `patience` bounds one request with all its retries. `context` is the model's window
    where the endpoint does not tell it. 0 = no limit for rates, unknown for prices and context.
    """

    base_url: str
    model: str = ""
    api_key_env: str = ""
    api: str = "auto"
    labels: str = "auto"
    tokenizer: str = ""
    context: int = 0
    concurrency: int = 8
    connect_timeout: float = 10.0
    read_timeout: float = 300.0
    patience: float = 900.0
    retries: int = 8
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    top_logprobs: int = 20
    price_in: float = 0.0
    price_cached: float = -1.0
    """Price of prompt tokens the endpoint had cached; -1 = that of all others."""
    price_out: float = 0.0
    cache: str = ""
    cut_check: str = "on"
    """off: believe the endpoint when it reads fewer tokens than the prompt holds."""
    model_check: str = "on"
    """off: ask for a model that the endpoint does not list."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("api", APIS),
            ("labels", LABELS),
            ("cut_check", ("on", "off")),
            ("model_check", ("on", "off")),
        ):
            if getattr(self, name) not in allowed:
                raise unknown_name(name, getattr(self, name), allowed, where="engine options")
        least: dict[str, float] = {
            "context": 0, "concurrency": 1, "retries": 0, "requests_per_minute": 0,
            "tokens_per_minute": 0, "top_logprobs": 1, "price_in": 0, "price_out": 0,
            "price_cached": -1,
        }  # fmt: skip
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise _bad(name, getattr(self, name), f"{low:g} or more")
        for name in ("connect_timeout", "read_timeout", "patience"):
            if not 0 < getattr(self, name) < float("inf"):
                raise _bad(name, getattr(self, name), "seconds, more than 0")
        if self.api == "chat" and self.labels in ("forced", "echo", "prompt_logprobs"):
            raise UserError(
                f"labels = {self.labels!r} needs api = 'completions'", where="engine options"
            )

    def key(self) -> str:
        """The API key, "" where none is named. Raises UserError when the variable is not set."""
        if not self.api_key_env:
            return ""
        value = os.environ.get(self.api_key_env, "").strip()
        if not value:
            raise UserError(
                f"the environment variable {self.api_key_env} is not set",
                where="api_key_env",
                allowed="the name of a variable that holds the key",
            )
        return value

    def cost(self, prompt: int, cached: int, generated: int) -> float:
        """Price of so many tokens; `cached` are those of `prompt` that were not encoded again."""
        again = self.price_in if self.price_cached < 0 else self.price_cached
        total = (prompt - cached) * self.price_in + cached * again + generated * self.price_out
        return total / 1e6


def _bad(name: str, value: Any, allowed: str) -> UserError:
    return UserError(f"{name} = {value}", where="engine options", allowed=allowed)


def checked_url(text: str) -> str:
    """The base address, without a slash at its end.

    Raises UserError: no http(s) address, or one that carries a password or a query (which would
    end up in results and logs).
    """
    try:
        parts = urlsplit(text.strip())
        parts.port  # noqa: B018 - reading it checks it
    except ValueError as error:
        raise UserError(f"{text!r} is no address ({error})", where="base_url") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            f"{text!r} is no address of an endpoint",
            where="base_url",
            allowed="such as http://localhost:8000/v1",
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            "the address holds a user, a query or a fragment",
            where="base_url",
            allowed="the plain address; the key comes from the variable named by api_key_env",
        )
    return text.strip().rstrip("/")


def settings_from(
    model: str, *, base_url: str = "", options: Mapping[str, str] | None = None
) -> HttpSettings:
    """Settings from `http://host:port/v1#MODEL`, or from MODEL and `base_url`, and options as text.

    The part behind # may be missing: then the endpoint must serve one model only.
    Raises UserError: no address or two, an unknown option, a value of the wrong kind.
    """
    given = dict(options or {})
    if base_url:
        given["base_url"] = base_url
    if model.startswith(("http://", "https://")):
        address, _, model = model.partition("#")
        if given.get("base_url"):
            raise UserError("the address is given twice", where="base_url")
        given["base_url"] = address
    if not given.get("base_url"):
        raise UserError(
            f"the address of the endpoint of {model!r} is missing",
            where="base_url",
            allowed=f"--base-url http://localhost:8000/v1 beside --model {PREFIX}:MODEL",
        )
    kinds = {f.name: f.type for f in fields(HttpSettings)}
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in kinds or name == "model":
            raise unknown_name("engine option", name, set(kinds) - {"model"})
        values[name] = _value(name, str(kinds[name]), text)
    made = HttpSettings(**values)
    return replace(made, base_url=checked_url(made.base_url), model=model)


def _value(name: str, kind: str, text: str) -> Any:
    try:
        return {"int": int, "float": float, "str": str}[kind](text)
    except ValueError:
        noun = {"int": "a whole number", "float": "a number"}[kind]
        raise _bad(name, repr(text), noun) from None
