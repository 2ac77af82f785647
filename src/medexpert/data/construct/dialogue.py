"""Conversations without greetings, sign-offs, advertising and platform boilerplate.

What can go is one sentence at a time, and only a sentence that `courtesy.py` matches as a whole;
the salutation that opens a turn ("Hi doctor, ...") counts as one. A text in which nothing matches
comes back as it is, byte for byte.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from medexpert.data.construct.courtesy import ACKNOWLEDGED, EDGES, HEADING, SALUTATION, WHOLE

# Behind a full stop that ends a sentence; "Dr. Smith" and "J. Smith" are no ends.
_ENDS = re.compile(
    r"(?:(?<=[!?])|(?<=[^\W\d_]{2}\.)|(?<=[\d)>\]]\.))(?<!\bDr\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bMrs\.)"
    r"(?<!\bProf\.)(?<!\bdr\.)\s+|(?<=[。！？!?\n])|(?<=-->\s<link>)"
)

MAX_CHARS = 250
"""A courtesy is no longer than this; longer sentences are content and are not matched."""

_Span = tuple[int, int]


def tidy(messages: Sequence[Mapping[str, str]]) -> tuple[list[dict[str, str]], Counter[str]]:
    """The conversation without its courtesies, and how many sentences and turns of which kind went.

    A turn of which nothing is left goes as a whole ("turn:courtesy_only"); turns of one role that
    thereby stand side by side become one ("turn:joined"). A conversation that opened with the user
    still does: the user's first turn stays if an assistant's would open otherwise. Keys other than
    `content` are kept. Nothing is left of a conversation of courtesies only: the list is empty.
    """
    counts: Counter[str] = Counter()
    kept: list[dict[str, str]] = []
    before = -1
    for place, message in enumerate(messages):
        content, found = tidy_text(message["content"])
        if not content:
            opens = not kept and _next_speaks_otherwise(messages, place)
            if opens:
                kept.append(dict(message))
                before = place
                continue
            counts += found
            counts["turn:courtesy_only"] += 1
            continue
        counts += found
        same = bool(kept) and kept[-1]["role"] == message["role"] and before != place - 1
        if same:
            kept[-1]["content"] += "\n" + content
            counts["turn:joined"] += 1
        else:
            kept.append({**message, "content": content})
        before = place
    return kept, counts


def _next_speaks_otherwise(messages: Sequence[Mapping[str, str]], place: int) -> bool:
    """Whether without this opening turn another role would open a conversation of the user's."""
    if messages[0]["role"] != "user" or messages[place]["role"] != "user":
        return False
    later = (m["role"] for m in messages[place + 1 :] if tidy_text(m["content"])[0])
    return next(later, "user") != "user"


def tidy_text(text: str) -> tuple[str, Counter[str]]:
    """One turn without its courtesies ("" when nothing else is in it), and what went, by kind."""
    counts: Counter[str] = Counter()
    opened = _without_salutation(text, counts)
    kept: list[_Span] = []
    signing = False
    for span in _sentences(opened):
        kind = _kind(opened[span[0] : span[1]])
        # A bare name is a sign-off behind a courtesy; elsewhere it can answer a question.
        if kind and (kind != "signature" or signing):
            counts[kind] += 1
            signing = True
        else:
            signing = False
            kept.append(span)
    if not counts:
        return text, counts
    content = [bare for start, end in kept if (bare := opened[start:end].strip(EDGES))]
    if all(map(ACKNOWLEDGED.fullmatch, content)):
        counts["acknowledgement"] += len(content)
        return "", +counts
    return _joined(opened, kept), counts


def _without_salutation(text: str, counts: Counter[str]) -> str:
    heading = HEADING.match(text)
    at = heading.end() if heading else 0
    start = at
    while (found := SALUTATION.match(text, at)) is not None and found.end() > at:
        counts["greeting"] += 1
        at = found.end()
    return text[:start] + text[at:] if at > start else text


def _kind(sentence: str) -> str:
    """The kind of courtesy that a whole sentence is, or ""."""
    bare = sentence.strip(EDGES + "()")
    if not bare or len(bare) > MAX_CHARS:
        return ""
    return next((kind for kind, pattern in WHOLE if pattern.fullmatch(bare)), "")


def _sentences(text: str) -> Iterator[_Span]:
    """Start and end of each sentence; the blanks between two belong to neither."""
    start = 0
    for end in _ENDS.finditer(text):
        if end.start() > start:
            yield start, end.start()
        start = end.end()
    if start < len(text):
        yield start, len(text)


def _joined(text: str, kept: Sequence[_Span]) -> str:
    """The kept sentences, each behind the blanks that stood before it in `text`."""
    out: list[str] = []
    for start, end in kept:
        at = start
        while out and at > 0 and text[at - 1].isspace() and not out[-1].endswith(text[at - 1]):
            at -= 1
        out.append(text[at:end])
    return "".join(out).strip()
