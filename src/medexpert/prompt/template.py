r"""The only renderer: what is trained on, evaluated and served is the same text.

A template is a file `templates/<name>.<en|zh|any>.txt`: header lines (`version:`, `labels:`,
`note:`), a line `---`, then Jinja text. `[[learn]]` separates what is given from what is learned;
`[[cue]]` or `[[reply]]` separates a request from the line that opens the reply.
`[[part.NAME]]` stands for the text of the file `part.NAME` in the same language.

Names beginning with `chat.` are put into the model's chat format (`chat.py`): the part before
`[[learn]]` is the user's message, the part behind it the assistant's, learned together with the
end-of-turn mark. Every assistant turn of `chat.conversation` is learned.

All other names are plain text; the learned part ends with `ChatFormat.eos`. No BOS is written: who
encodes plain text puts the tokenizer's own start tokens before it, in training as in scoring. Of
those with a mark the request becomes a user message where the model has a chat template (chat
models continue plain text by repeating it): a `[[cue]]` is then left out, since the turn itself
opens the reply; what follows `[[reply]]` opens the assistant's turn and what is scored or learned
stands behind it. Elsewhere both are plain text.

Fields: chat.qa question, answer · chat.reasoning question, rationale, answer · chat.mcq_label
question, options {letter: text}, answer_idx · chat.mcq_reason the same and explanation ·
chat.conversation messages [{role, content}] · pubmedqa.lm_eval question, contexts, answer ·
pubmedqa.question_only question, answer · pubmedqa.reasoning_free question, long_answer, answer ·
direct.choices question, options {label: text}, evidence ("" = none), answer (a label) · voc.*
question, evidence, options and: hypothesise choice (a label), rationale · verify rationales
[[label, text]], answer · check the same and check (the text before the verdict) · ptrue choice,
rationale, answer (true or false) · contradict choice, rationale. `shots`, in those with options, is
text shown before all else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import jinja2.sandbox

from medexpert.prompt.chat import (
    PLAIN_CHAT,
    ChatFormat,
    Segment,
    chat_texts,
    prefilled,
    render_chat,
)
from medexpert.records import UserError, unknown_name

__all__ = [
    "CUE", "LANGUAGES", "PLAIN_CHAT", "ChatFormat", "Segment", "Template", "lookup", "names",
    "render", "render_all", "render_chat", "render_choices", "render_prompt", "render_request",
    "template_id",
]  # fmt: skip

LEARN = "[[learn]]"
MESSAGES = "[[messages]]"
CUE = "[[cue]]"
REPLY = "[[reply]]"
PART = re.compile(r"\[\[(part\.\w+)\]\]")
LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Template:
    """One template file, parsed. `labels` maps a choice to the word this language uses for it."""

    name: str
    lang: str
    version: int
    labels: Mapping[str, str]
    given: str
    learned: str
    sha8: str

    @property
    def id(self) -> str:
        return f"{self.name}@{self.sha8}"

    @property
    def is_chat(self) -> bool:
        return self.name.startswith("chat.")

    def label(self, choice: str) -> str:
        return self.labels.get(choice, choice)


# -- public ------------------------------------------------------------------------------------


def render(
    template: str, fields: Mapping[str, Any], *, chat: ChatFormat, lang: str = "en"
) -> list[Segment]:
    """The training text of an example, in pieces; joined, they are the whole text.

    Raises UserError: unknown template or language, a field that is missing or null, a chat
    template that fails, or one that needs several texts (:func:`render_all`).
    """
    texts = render_all(template, fields, chat=chat, lang=lang)
    if len(texts) > 1:
        raise UserError(
            "the model's chat template changes earlier text when an assistant turn is added, so "
            "this conversation is not one text"
        )
    return texts[0]


def render_all(
    template: str, fields: Mapping[str, Any], *, chat: ChatFormat, lang: str = "en"
) -> list[list[Segment]]:
    """The training texts of an example, each in pieces; mostly there is one.

    A conversation becomes one text a turn, each with the turns before it as given, where the chat
    template writes earlier turns in another way than the last (Qwen 3 drops their thinking): every
    turn is then learned behind the very prompt it is asked with. Raises as :func:`render`.
    """
    found = lookup(template, lang)
    if found.given == MESSAGES:
        return chat_texts(_messages(template, fields), chat)
    values = _labelled(found, fields)
    asked = _asked(found, values)
    learned = _fill(found, found.learned, values)
    if not asked.as_chat(chat):
        return [[Segment(asked.request + asked.opening, False), Segment(learned + chat.eos, True)]]
    reply = asked.kept + learned if asked.kept else learned.strip()
    turns = [*asked.messages, {"role": "assistant", "content": reply}]
    return [_opened(text, asked.kept) for text in chat_texts(turns, chat)]


def render_prompt(
    template: str, fields: Mapping[str, Any], *, chat: ChatFormat, lang: str = "en"
) -> str:
    """The text a model is asked with: exactly what stands before the first learned segment.

    For `chat.conversation` it is all messages and the opening of the next assistant turn. Raises
    UserError as :func:`render`.
    """
    found = lookup(template, lang)
    if found.given == MESSAGES:
        return render_chat(_messages(template, fields), chat, reply=True)
    asked = _asked(found, _labelled(found, fields))
    if not asked.as_chat(chat):
        return asked.request + asked.opening
    if asked.kept:
        return prefilled(asked.messages, asked.kept, chat)
    return render_chat(asked.messages, chat, reply=True)


render_request = render_prompt
"""The same, where what is asked for is free text."""


def render_choices(template: str, choices: Sequence[str], *, lang: str = "en") -> list[str]:
    """What is scored behind the prompt for each choice: the learned part of a plain template."""
    found = lookup(template, lang)
    return [_fill(found, found.learned, _labelled(found, {"answer": c})) for c in choices]


def template_id(name: str, lang: str = "en") -> str:
    """`name@sha8`, the first 8 hex digits of the file's SHA-256."""
    return lookup(name, lang).id


def names() -> list[str]:
    """Names of all templates, sorted."""
    return sorted({name for name, _ in _files() if not name.startswith("part.")})


@lru_cache(maxsize=256)
def lookup(name: str, lang: str = "en") -> Template:
    """The template in this language, or its language-free form. Raises UserError if unknown."""
    files = _files()
    if name not in names():
        raise unknown_name("template", name, names())
    text = files.get((name, lang), files.get((name, "any")))
    if text is None:
        known_langs = ", ".join(sorted(at for known, at in files if known == name))
        raise UserError(f"template {name!r} has no {lang!r} version", allowed=known_langs)
    text = PART.sub(lambda part: _body(files[part.group(1), lang]), text)
    header, _, body = text.partition("\n---\n")
    entries = dict(line.split(":", 1) for line in header.splitlines())
    pairs = [p.split("=") for p in entries.get("labels", "").split(",") if p.strip()]
    given, _, learned = body.removesuffix("\n").partition(LEARN)
    return Template(
        name=name,
        lang=lang,
        version=int(entries["version"]),
        labels={key.strip(): value.strip() for key, value in pairs},
        given=given,
        learned=learned,
        sha8=hashlib.sha256(text.encode()).hexdigest()[:8],
    )


def _body(text: str) -> str:
    """What follows a file's header."""
    return text.partition("\n---\n")[2].removesuffix("\n")


@lru_cache(maxsize=1)
def _files() -> dict[tuple[str, str], str]:
    """(name, language) -> text of every template file shipped with the package."""
    found = {}
    for entry in resources.files(__package__).joinpath("templates").iterdir():
        if entry.name.endswith(".txt"):
            name, lang = entry.name.removesuffix(".txt").rsplit(".", 1)
            found[name, lang] = entry.read_text(encoding="utf-8")
    return found


# -- filling -----------------------------------------------------------------------------------


class _Asked(NamedTuple):
    """A filled request, the line that opens the reply, and which mark stood between ("" = none)."""

    request: str
    opening: str
    mark: str
    is_chat: bool

    @property
    def kept(self) -> str:
        """What an assistant turn opens with."""
        return self.opening.lstrip("\n") if self.mark == REPLY else ""

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.request}]

    def as_chat(self, chat: ChatFormat) -> bool:
        return self.is_chat or bool(self.mark and chat.template)


def _asked(template: Template, values: Mapping[str, Any]) -> _Asked:
    mark = next((mark for mark in (CUE, REPLY) if mark in template.given), "")
    request, _, opening = template.given.partition(mark) if mark else (template.given, "", "")
    return _Asked(
        _fill(template, request, values), _fill(template, opening, values), mark, template.is_chat
    )


def _opened(segments: list[Segment], opening: str) -> list[Segment]:
    """The segments of a one-turn chat, with the turn's opening given and not learned."""
    if not opening:
        return segments
    given, learned, *rest = segments
    end = learned.text.index(opening) + len(opening)
    return [
        Segment(given.text + learned.text[:end], False), Segment(learned.text[end:], True), *rest,
    ]  # fmt: skip


def _labelled(template: Template, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with the answer in the words of the template's language."""
    values = dict(fields)
    if isinstance(values.get("contexts"), str):
        raise UserError(f"template {template.name!r}: 'contexts' is a text, not a list of texts")
    if isinstance(values.get("answer"), str):
        values["answer"] = template.label(values["answer"])
    return values


def _no_null(value: Any) -> Any:
    if value is None:
        raise UserError("a field is null")
    return value


_TEXT = jinja2.sandbox.ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined,
    finalize=_no_null,
    keep_trailing_newline=True,
    autoescape=False,
)


@lru_cache(maxsize=256)
def _compiled(source: str) -> jinja2.Template:
    return _TEXT.from_string(source)


def _fill(template: Template, source: str, fields: Mapping[str, Any]) -> str:
    try:
        return _compiled(source).render(fields)
    except jinja2.UndefinedError as error:
        raise UserError(f"template {template.name!r}: {error.message}") from None
    except (UserError, TypeError, AttributeError) as error:
        raise UserError(f"template {template.name!r}: {error}") from None


def _messages(template: str, fields: Mapping[str, Any]) -> list[dict[str, str]]:
    messages = fields.get("messages")
    if not isinstance(messages, list | tuple) or not messages:
        raise UserError(f"template {template!r}: 'messages' is not a list with a message in it")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise UserError(f"template {template!r}: message {number} is not an object")
        if message.get("role") not in ("user", "assistant", "system"):
            raise UserError(
                f"template {template!r}: message {number} has role {message.get('role')!r}",
                allowed="user, assistant, system",
            )
        if not isinstance(message.get("content"), str):
            raise UserError(f"template {template!r}: message {number} has no text as 'content'")
    return [{"role": m["role"], "content": m["content"]} for m in messages]
