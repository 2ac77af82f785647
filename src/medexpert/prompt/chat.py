"""Messages -> the text of a model's chat format, and which of it is learned.

Learned is what each assistant turn adds to the text that asks for it, with the end-of-turn mark but
not the newline behind that. Where a format closes no turn (GLM-4), the token that opens the next
user turn is what makes the model stop, so that is learned; where there is no such token either, a
turn ends with eos. Templates with a thinking switch are asked without thinking (Qwen 3: the empty
think block is given, not learned), save for an assistant message that brings its own `</think>`. A
model without a chat template (`ChatFormat.template == ""`) gets the plain format `PLAIN_CHAT`, that
is "### Question", newline, text, blank line, "### Answer", newline, text, eos.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from medexpert.records import UserError

THOUGHT = "</think>"
"""Ends the part of an assistant message that thinking models keep out of the conversation."""
ROLE_MARK = re.compile(r"\s*<[^<>\s]+>")
"""A special token that opens a turn, such as GLM-4's `<|user|>`."""
PLAIN_CHAT = (
    "{% for message in messages %}"
    "{{ {'user': '### Question', 'assistant': '### Answer', 'system': '### Instruction'}"
    "[message['role']] + '\n' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}{{ '\n\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Answer\n' }}{% endif %}"
)


class ChatFormat(NamedTuple):
    """A tokenizer's chat template (Jinja text, "" = none) and its start and end tokens as text."""

    template: str
    bos: str = ""
    eos: str = ""


class Segment(NamedTuple):
    """A piece of text; `learn` marks what carries loss."""

    text: str
    learn: bool


def render_chat(
    messages: Sequence[Mapping[str, str]], chat: ChatFormat, *, reply: bool, thinking: bool = False
) -> str:
    """The messages as the model's chat template writes them; `reply` opens an assistant turn.

    `thinking` is for templates that know the switch `enable_thinking`. Raises UserError with the
    template's own words when it refuses the messages.
    """
    try:
        return _chat_template(chat.template or PLAIN_CHAT).render(
            messages=list(messages),
            add_generation_prompt=reply,
            enable_thinking=thinking,
            tools=None,
            documents=None,
            bos_token=chat.bos,
            eos_token=chat.eos,
        )
    except jinja2.TemplateError as error:
        raise UserError(f"the model's chat template fails: {error.message or error}") from None


def prefilled(messages: Sequence[Mapping[str, str]], opening: str, chat: ChatFormat) -> str:
    """The text that asks for an assistant turn which begins with `opening`.

    Raises UserError when the template rewrites earlier text as the turn is added, or the opening.
    """
    before = render_chat(messages, chat, reply=True)
    turn = {"role": "assistant", "content": opening}
    after = render_chat([*messages, turn], chat, reply=False)
    at = after.find(opening, len(before))
    if not after.startswith(before) or at < 0:
        raise UserError("the model's chat template cannot open an assistant turn with given text")
    return after[: at + len(opening)]


class _Turn(NamedTuple):
    """An assistant turn: the text that asks for it, what is learned, and what closes it."""

    before: str
    learned: str
    after: str


def chat_texts(messages: Sequence[Mapping[str, str]], chat: ChatFormat) -> list[list[Segment]]:
    """The conversation's training texts, each in pieces.

    One text where every turn begins with the text up to the turn before it, else one a turn:
    where the template rewrites earlier turns, each is learned behind the prompt it is asked with.
    """
    at = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not at:
        raise UserError("a conversation without an assistant turn has nothing to learn")
    if at[0] == 0:
        raise UserError("a conversation opens with an assistant turn", allowed="user or system")
    turns = [_turn(messages, i, chat) for i in at]
    whole = render_chat(messages, chat, reply=False, thinking=_thinks(messages[at[-1]]))
    segments: list[Segment] = []
    done = ""
    for turn in turns:
        if not turn.before.startswith(done):
            break
        segments.append(Segment(turn.before[len(done) :], False))
        segments.append(Segment(turn.learned, True))
        done = turn.before + turn.learned
    else:
        if whole.startswith(done):
            return [_joined([*segments, Segment(whole[len(done) :], False)])]
        if at[-1] == len(messages) - 1 and done.startswith(whole):  # its end is not in the text
            return [_joined(segments)]
    return [
        _joined([Segment(before, False), Segment(learned, True), Segment(after, False)])
        for before, learned, after in turns
    ]


def _turn(messages: Sequence[Mapping[str, str]], i: int, chat: ChatFormat) -> _Turn:
    """Learned = what assistant message `i` adds to the text that opens its turn, with its end.

    Raises UserError when the text up to the turn is not how the text with the turn begins.
    """
    thinking = _thinks(messages[i])
    before = render_chat(messages[:i], chat, reply=True, thinking=thinking)
    after = render_chat(messages[: i + 1], chat, reply=False, thinking=thinking)
    answer = messages[i]["content"].rpartition(THOUGHT)[2].strip()
    added = after[len(before) :]
    at = added.find(answer, added.rfind(THOUGHT) + 1)
    if not after.startswith(before) or at < 0:
        raise UserError(
            f"the model's chat template changes earlier text when assistant turn {i + 1} is"
            " added, so what is to be learned cannot be told from what is given"
        )
    # What follows the answer is the end-of-turn mark, then white space nobody has to learn.
    if added[at + len(answer) :].strip():
        learned = added.rstrip()
        return _Turn(before, learned, added[len(learned) :])
    following = [*messages[: i + 1], {"role": "user", "content": "?"}]
    opened = render_chat(following, chat, reply=False, thinking=thinking)
    mark = ROLE_MARK.match(opened, len(after)) if opened.startswith(after) else None
    return _Turn(before, added + (mark.group() if mark else chat.eos), "")


def _thinks(message: Mapping[str, str]) -> bool:
    return THOUGHT in message["content"]


def _joined(segments: Sequence[Segment]) -> list[Segment]:
    """Neighbours of one kind merged, empty ones gone: a token never straddles two given pieces."""
    out: list[Segment] = []
    for segment in segments:
        if out and out[-1].learn == segment.learn:
            out[-1] = Segment(out[-1].text + segment.text, segment.learn)
        elif segment.text:
            out.append(segment)
    return out


class _Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}` marks assistant text in some chat templates; here
    the block is its body."""

    tags = {"generation"}  # noqa: RUF012 (the base class declares it so)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


@lru_cache(maxsize=32)
def _chat_template(source: str) -> jinja2.Template:
    """Compiled with the settings chat templates are written for: blocks eat their own newline."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(source)
