"""The parts of a structured abstract by their role: what is context, what is the conclusion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

Role = Literal["context", "results", "objective", "conclusion", "closing", "registration", "mixed"]

_REGISTRATION = re.compile(
    r"registra|registry|registered|clinicaltrials|isrctn|trial number|funding|funder|sponsor|"
    r"support(?:ed)? by|acknowledg|electronic supplementary|supplement(?:ary|al) (?:material|info)|"
    r"disclosure|conflict|competing|ethic|dissemination|key ?words|level of evidence|"
    r"classification of evidence|abbreviation|copyright|correspond|grant|tr[ai]+l regist"
)
_CONCLUSION = re.compile(
    r"conclusions?|interpretation|conclusion\(s\)|concluding|authors' conclusion"
)
_CLOSING = re.compile(
    r"implication|clinical (?:significance|importance|relevance)|significance|relevance|summary|"
    r"key points?|key messages?|limitation|perspective|what this|take[- ]home|future|recommendation"
)
_RESULTS = re.compile(r"result|finding|outcome measure.*result|observation")
_OBJECTIVE = re.compile(r"objective|aims?\b|purpose|goals?\b|hypothes|question")


class Parts(NamedTuple):
    """An abstract cut up: `contexts` in order (without the conclusion), `conclusion` as one text.

    `removed` names the role of each part that was left out ("registration", "closing"); `mixed` is
    true when results and conclusion share one section, so that neither can be had alone.
    """

    contexts: tuple[str, ...]
    conclusion: str
    objective: str
    has_results: bool
    removed: tuple[str, ...]
    mixed: bool


def role_of(label: str) -> Role:
    """The role that a section heading names; nested headings ("A > B") by their last name first."""
    for name in reversed(label.lower().split(" > ")):
        name = name.strip(" .:[]()*•–-")
        if _REGISTRATION.search(name):
            return "registration"
        if _CONCLUSION.search(name):
            return "mixed" if _RESULTS.search(name) else "conclusion"
        if _RESULTS.search(name):
            return "results"
        if _CLOSING.search(name):
            return "closing"
        if _OBJECTIVE.search(name):
            return "objective"
    return "context"


def cut(sections: Sequence[tuple[str, str]]) -> Parts:
    """Sections (label, text) by role. Empty sections do not count."""
    contexts: list[str] = []
    conclusion: list[str] = []
    objective: list[str] = []
    removed: list[str] = []
    has_results = mixed = False
    for label, raw in sections:
        text = " ".join(raw.split())
        if not text:
            continue
        role = role_of(label)
        if role in {"registration", "closing"}:
            removed.append(role)
            continue
        if role == "conclusion":
            conclusion.append(text)
            continue
        mixed |= role == "mixed"
        has_results |= role == "results"
        if role == "objective":
            objective.append(text)
        contexts.append(text)
    return Parts(
        tuple(contexts),
        " ".join(conclusion),
        " ".join(objective),
        has_results,
        tuple(removed),
        mixed,
    )
