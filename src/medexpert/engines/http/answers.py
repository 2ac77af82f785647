"""Log-probabilities out of an endpoint's answers: the forms in use, checked number by number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medexpert.engines.http.client import BadAnswer

PIECE = {"completions": "text", "chat": "content"}
"""Where a streamed event holds its piece of the text."""
SLACK = 1e-3
"""How far above 0 rounding may bring a log-probability."""


@dataclass(frozen=True)
class Token:
    """A token as the endpoint writes it; `logprob` None where it has none (the first of a text)."""

    text: str
    logprob: float | None


def first_choice(answer: Any, url: str) -> dict[str, Any]:
    """The first of the answer's choices. Raises BadAnswer when there is none."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise BadAnswer("the answer has no choices; one was asked for", where=url)
    return choices[0]


def tokens_of(choice: Mapping[str, Any]) -> list[Token]:
    """The tokens a choice tells of, echoed ones included; [] where it tells none.

    Reads the form of /completions (parallel lists) and that of chat (a list of objects).
    """
    found = choice.get("logprobs")
    if not isinstance(found, dict):
        return []
    if isinstance(found.get("content"), list):
        rows = [row for row in found["content"] if isinstance(row, dict)]
        return [Token(str(row.get("token", "")), _number(row.get("logprob"))) for row in rows]
    texts, values = found.get("tokens"), found.get("token_logprobs")
    if not isinstance(texts, list) or not isinstance(values, list) or len(texts) != len(values):
        return []
    return [Token(str(t), _number(v)) for t, v in zip(texts, values, strict=True)]


def prompt_tokens_of(choice: Mapping[str, Any]) -> list[Token]:
    """The prompt's tokens by vLLM's `prompt_logprobs` (null, then {id: {...}} a token)."""
    rows = choice.get("prompt_logprobs")
    if not isinstance(rows, list) or not rows:
        return []
    found = [Token("", None)]
    for row in rows[1:]:
        # With prompt_logprobs = 0 a row holds the prompt's own token alone; it always comes first.
        own = next(iter(row.values()), None) if isinstance(row, dict) else None
        if not isinstance(own, dict):
            return []
        found.append(Token(str(own.get("decoded_token", "")), _number(own.get("logprob"))))
    return found


def first_top(choice: Mapping[str, Any]) -> dict[str, float]:
    """{token: ln p} of the most likely first tokens; {} where the answer tells none."""
    found = choice.get("logprobs")
    if not isinstance(found, dict):
        return {}
    content = found.get("content")
    if isinstance(content, list):
        rows = content[0].get("top_logprobs") if content and isinstance(content[0], dict) else []
        rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        pairs = [(row.get("token"), row.get("logprob")) for row in rows]
    else:
        tops = found.get("top_logprobs")
        first = tops[0] if isinstance(tops, list) and tops else None
        pairs = list(first.items()) if isinstance(first, dict) else []
    return {str(t): v for t, value in pairs if (v := _number(value)) is not None}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def checked(token: Token, url: str) -> float:
    """The token's log-probability. Raises BadAnswer when it is missing, NaN or above 0."""
    value = token.logprob
    if value is None or math.isnan(value) or value > SLACK:
        told = "missing" if value is None else repr(value)
        raise BadAnswer(f"the log-probability of token {token.text!r} is {told}", where=url)
    return min(value, 0.0)


def total(tokens: Sequence[Token], url: str) -> float:
    """Sum of ln p over the tokens, each checked."""
    return math.fsum(checked(token, url) for token in tokens)


def behind(tokens: Sequence[Token], prompt: str, choice: str) -> list[Token] | None:
    """The echoed tokens that are `choice`, found by their text; None where the text of the tokens
    is not that of prompt + choice (characters cut by tokens), so that they must be counted.

    [] when no token border lies between prompt and choice.
    """
    rows = list(tokens)
    # A start token the endpoint put before the text and shows.
    if rows and rows[0].logprob is None and not (prompt + choice).startswith(rows[0].text):
        rows = rows[1:]
    at, begun, ends = 0, -1, len(prompt) + len(choice)
    for number, token in enumerate(rows):
        if at == len(prompt) and begun < 0:
            begun = number
        if at >= ends:
            return rows[begun:number] if begun >= 0 else []
        if not (prompt + choice).startswith(token.text, at):
            return None
        at += len(token.text)
    if at != ends:
        return None
    return rows[begun:] if begun >= 0 else []


def by_first_token(top: Mapping[str, float], choices: Sequence[str]) -> list[float]:
    """ln of the probability that an answer's first token is, or begins, each choice.

    White space around a token is passed over, and case too unless a choice is a single letter
    ("a" is a word of its own) or differs from another only in case. A token that begins two
    choices counts for neither. -inf for a choice not listed.
    """
    plain = [choice.strip() for choice in choices]
    folded = [choice.casefold() for choice in plain]
    fold = len(set(folded)) == len(folded) and min(map(len, plain), default=0) > 1
    wanted = folded if fold else plain
    sums = [0.0] * len(choices)
    for text, value in top.items():
        token = text.strip().casefold() if fold else text.strip()
        if not token or math.isnan(value):
            continue
        exact = [k for k, choice in enumerate(wanted) if choice == token]
        begun = exact or [k for k, choice in enumerate(wanted) if choice.startswith(token)]
        if len(begun) == 1:
            sums[begun[0]] += math.exp(min(value, 0.0))
    return [math.log(share) if share > 0 else -math.inf for share in sums]


def text_of(choice: Mapping[str, Any], api: str, url: str) -> str:
    """The generated text; null over chat is no text. Raises BadAnswer: the field is missing."""
    if api == "completions":
        text = choice.get("text")
    else:
        message = choice.get("message")
        text = (message.get("content") or "") if isinstance(message, dict) else None
    if not isinstance(text, str):
        raise BadAnswer("the answer's choice has no text", where=url)
    return text


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text up to the first stop string in it."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def usage_of(answer: Any) -> tuple[int, int, int]:
    """(prompt, of it cached, generated) tokens; -1 where the answer does not tell."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(usage, dict):
        return -1, 0, -1
    details = usage.get("prompt_tokens_details")
    cached = _whole(details.get("cached_tokens")) if isinstance(details, dict) else 0
    prompt, generated = _whole(usage.get("prompt_tokens")), _whole(usage.get("completion_tokens"))
    return prompt, max(0, min(cached, prompt)), generated


def counted(answer: Any) -> int | None:
    """The number of tokens in an answer to a request that counts; None where it has none."""
    if not isinstance(answer, dict):
        return None
    count, tokens = answer.get("count"), answer.get("tokens")
    if isinstance(count, int):
        return count
    return len(tokens) if isinstance(tokens, list) else None


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def shown(
    events: Iterator[dict[str, Any]], api: str, stops: Sequence[str], last: dict[str, Any]
) -> Iterator[str]:
    """The text of streamed events in pieces, up to a stop string; `last` gets the usage told.

    What may be the beginning of a stop string is held back until it is seen not to be one.
    """
    hold = max((len(stop) for stop in stops), default=1) - 1
    text, told = "", 0
    for event in events:
        if isinstance(event.get("usage"), dict):
            last["usage"] = event["usage"]
        for choice in (event.get("choices") or [])[:1]:
            told_by = choice if api == "completions" else choice.get("delta")
            piece = told_by.get(PIECE[api]) if isinstance(told_by, dict) else None
            text += piece if isinstance(piece, str) else ""
        cut = cut_at(text, stops)
        end = len(cut) if len(cut) < len(text) else max(told, len(text) - hold)
        if end > told:
            yield text[told:end]
            told = end
        if len(cut) < len(text):
            return
    if len(text) > told:
        yield text[told:]
