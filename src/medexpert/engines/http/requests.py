"""What is sent to an endpoint: prompts in the form it takes, and the fields of each request."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medexpert.engines.tokenizer import Tokenizer
from medexpert.prompt.template import ChatFormat
from medexpert.records import UserError

MARK = "\u0002messages:"
CHAT = ChatFormat(MARK + "{{ messages | tojson }}")
"""The chat format of an endpoint that renders messages itself: they are kept as JSON, so that what
is sent are the messages that were meant."""
NEUTRAL: Mapping[str, Mapping[str, Any]] = {
    "vllm": {"repetition_penalty": 1.0, "top_k": 0, "min_p": 0.0},
    "llama.cpp": {"repeat_penalty": 1.0, "top_k": 0, "min_p": 0.0},
    "llama-cpp-python": {"repeat_penalty": 1.0, "top_k": 0, "min_p": 0.0},
}
"""By kind of server: fields that switch off what it would add to the distribution by itself
(vLLM takes such settings from the model's generation_config.json)."""
TEXTS = {"completions": "/completions", "chat": "/chat/completions"}
Body = dict[str, Any]


@dataclass(frozen=True)
class Offer:
    """What a probe found. `limit` names the field that bounds new tokens; `counter` is a row of
    COUNTERS, -1 = none; `adds_start`: the server puts the start tokens before a text. `tried` says
    for each probe what came of it. `echo` is the way to a prompt's log-probabilities, "" = none."""

    kind: str
    model: str
    context: int = 0
    api: str = "completions"
    labels: str = "none"
    echo: str = ""
    ids: bool = False
    adds_start: bool = False
    limit: str = "max_tokens"
    counter: int = -1
    tried: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Given:
    """A prompt as text, as it is sent (text, token ids or messages), its tokens (`size`, perhaps an
    estimate) and how many the endpoint must read at `least`."""

    text: str
    prompt: str | list[int] | list[dict[str, str]]
    size: int
    least: int


@dataclass(frozen=True)
class Decoding:
    """How to decode; see `engines.base.Engine.complete`."""

    max_tokens: int
    stop: tuple[str, ...]
    temperature: float
    top_p: float

    @classmethod
    def checked(
        cls, max_tokens: int, stop: Sequence[str], temperature: float, top_p: float
    ) -> Decoding:
        """Raises UserError for values out of range."""
        if max_tokens < 1:
            raise UserError(f"max_tokens = {max_tokens}", allowed="1 or more")
        if not 0 <= temperature < math.inf or not 0 < top_p <= 1:
            raise UserError(
                f"temperature = {temperature}, top_p = {top_p}",
                allowed="temperature >= 0 and 0 < top_p <= 1",
            )
        return cls(max_tokens, tuple(s for s in stop if s), temperature, top_p)


def messages_of(prompt: str) -> list[dict[str, str]]:
    """The messages a prompt was rendered from; plain text is one message of the user."""
    if prompt.startswith(MARK):
        found: list[dict[str, str]] = json.loads(prompt[len(MARK) :])
        return found
    return [{"role": "user", "content": prompt}]


def spoken(prompt: str) -> str:
    """The text of a prompt that may be messages."""
    if not prompt.startswith(MARK):
        return prompt
    return "\n".join(message["content"] for message in messages_of(prompt))


def estimate(text: str) -> int:
    """About how many tokens a text has: 4 ASCII characters, or one other character, each."""
    wide = sum(character > "\x7f" for character in text)
    return math.ceil((len(text) - wide) / 4) + wide


def given(prompt: str, offer: Offer, tokenizer: Tokenizer | None) -> Given:
    """The prompt in the form the endpoint takes: ids where it can, so that they are our own."""
    if offer.api == "chat":
        text = spoken(prompt)
        size = len(tokenizer.more(text)) if tokenizer else estimate(text)
        return Given(prompt, messages_of(prompt), size, size if tokenizer else 0)
    if tokenizer is None:
        return Given(prompt, prompt, estimate(prompt), 0)
    ids = tokenizer.start(prompt)
    if offer.ids:
        return Given(prompt, ids, len(ids), len(ids))
    # The server writes the start token itself; a chat template may have written it too.
    bos = tokenizer.bos_token
    sent = prompt.removeprefix(bos) if offer.adds_start and bos else prompt
    return Given(sent, sent, len(ids), len(tokenizer.more(sent)))


def seeds(prompts: Sequence[str], seed: int) -> list[int]:
    """One seed a prompt (31 bits), from the call's seed, the text and its earlier occurrences."""
    seen: Counter[str] = Counter()
    made = []
    for prompt in prompts:
        text = f"{seed}\n{seen[prompt]}\n{prompt}".encode("utf-8", "surrogatepass")
        made.append(int.from_bytes(hashlib.sha256(text).digest()[:4], "big") >> 1)
        seen[prompt] += 1
    return made


def _base(prompt: Any, offer: Offer) -> Body:
    name = "messages" if offer.api == "chat" else "prompt"
    return {"model": offer.model, name: prompt, **NEUTRAL.get(offer.kind.split(" ")[0], {})}


def generation(prompt: Given, how: Decoding, seed: int, offer: Offer) -> tuple[str, Body]:
    """(path, body) that asks for text. A greedy request has no seed: all its repeats are one."""
    body = {
        **_base(prompt.prompt, offer),
        offer.limit: how.max_tokens,
        "temperature": how.temperature,
        "top_p": how.top_p,
    }
    if how.stop:
        body["stop"] = list(how.stop)
    if how.temperature > 0:
        body["seed"] = seed
    return TEXTS[offer.api], body


def echo(prompt: Given, offer: Offer) -> tuple[str, Body]:
    """(path, body) that asks for the prompt's own log-probabilities. One token is asked for too:
    not every server takes 0."""
    told = {"echo": True, "logprobs": 1} if offer.echo == "echo" else {"prompt_logprobs": 0}
    return TEXTS[offer.api], {
        **_base(prompt.prompt, offer), "max_tokens": 1, "temperature": 0.0, **told,
    }  # fmt: skip


def forced(ids: list[int], token: int, offer: Offer) -> tuple[str, Body]:
    """(path, body) that allows one token behind token ids and asks for its log-probability."""
    return TEXTS[offer.api], {**_base(ids, offer), **forced_fields(token)}


def chosen(prompt: Given, choices: Sequence[str], offer: Offer) -> tuple[str, Body]:
    """(path, body) that makes the answer one of the choices."""
    room = max(len(choice.encode()) for choice in choices) + 4
    return TEXTS[offer.api], {
        **_base(prompt.prompt, offer), offer.limit: room, **chosen_fields(choices),
    }  # fmt: skip


def top(prompt: Given, count: int, offer: Offer) -> tuple[str, Body]:
    """(path, body) that asks for the most likely first tokens."""
    return TEXTS[offer.api], {
        **_base(prompt.prompt, offer), offer.limit: 1, **top_fields(offer.api, count),
    }  # fmt: skip


def forced_fields(token: int) -> Body:
    """Fields that allow one token and ask for its log-probability (vLLM)."""
    return {"allowed_token_ids": [token], "max_tokens": 1, "temperature": 0.0, "logprobs": 1}


def chosen_fields(choices: Sequence[str]) -> Body:
    """Fields that make the answer one of the choices (vLLM)."""
    return {"structured_outputs": {"choice": list(choices)}, "temperature": 0.0}


def top_fields(api: str, count: int) -> Body:
    """Fields for the most likely first tokens."""
    if api == "chat":
        return {"logprobs": True, "top_logprobs": count}
    return {"logprobs": count}


COUNTERS = ("vllm", "llama.cpp", "llama-cpp-python")


def counter(number: int, model: str, text: str) -> tuple[str, Body]:
    """(path beside /v1, body) of a request that counts a text's tokens, by row of COUNTERS."""
    if number == 0:
        return "/tokenize", {"model": model, "prompt": text, "add_special_tokens": False}
    if number == 1:
        return "/tokenize", {"content": text, "add_special": False}
    return "/extras/tokenize/count", {"input": text}
