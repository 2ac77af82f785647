"""A judge: another model grades a free answer against reference answers, 1 to 4.

The grades are those of TREC LiveQA 2017: incorrect, related but incorrect, correct but incomplete,
correct and complete. A reply without exactly one grade is counted as unparsed, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medexpert.prompt import template
from medexpert.prompt.asking import versioned
from medexpert.prompt.ledger import Asked

if TYPE_CHECKING:
    from medexpert.prompt.template import ChatFormat

TEMPLATE = "judge.answer"
GRADES = (1, 2, 3, 4)
MAX_TOKENS = 16
_STATED = re.compile(
    r"(?:grade|score|评分)\s*[:：]?\s*[(（]?\s*(\d++(?:\.\d+)?+)"
    r"(?!\s*(?:[,，、~–—-]\s*\d|/\s*\d+\s*/|(?:[,，、]\s*)?(?:or|to)\b|[,，、]?\s*[或至到]))",
    re.IGNORECASE,
)
_BARE = re.compile(r"\W*([1-4])\W*")


def version() -> str:
    """Changes with the code's own version and with the template's text."""
    return versioned(2, [TEMPLATE])


def asked(
    identity: str,
    question: str,
    references: Sequence[str],
    answer: str,
    *,
    chat: ChatFormat,
    lang: str,
) -> Asked:
    """The prompt that asks for a grade."""
    fields = {"question": question, "references": list(references), "answer_given": answer}
    text = template.render_request(TEMPLATE, fields, chat=chat, lang=lang)
    return Asked(identity, text, template.template_id(TEMPLATE, lang))


def parse_grade(reply: str) -> int | None:
    """The grade a reply states; None where it states none, several, or one off the scale.

    A base model continues the line "Grade:", so a first line that is nothing but a grade counts.
    """
    stated = set(_STATED.findall(reply))
    if not stated:
        first = next((line for line in reply.splitlines() if line.strip()), "")
        bare = _BARE.fullmatch(first)
        stated = {bare[1]} if bare else set()
    if len(stated) != 1:
        return None
    (grade,) = stated
    return int(grade) if grade in tuple(map(str, GRADES)) else None
