"""A title -> a yes/no question, or the reason why not. English only, precision first.

Statement titles ("X reduces Y", "X is not associated with Y", "X did not improve Y", "No effect of
X on Y") become questions by putting the auxiliary first; what the title states is the label. Titles
that already ask a yes/no question stay as they are and state nothing. All other titles, and every
title whose main verb cannot be told with certainty, give a reason.

The construction is that of PubMedQA's artificial part (Jin et al. 2019, arXiv 1909.06146, section
2.2: NP-VBP/VBZ titles, copula or auxiliary fronted, negated verb = "no"), with closed lists in
place of a part-of-speech tagger and with past tense and subtitles handled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from medexpert.data.construct.finite import Finite, find_finite
from medexpert.data.construct.morphology import (
    CONJUNCTIONS,
    DETERMINERS,
    PREPOSITIONS,
    number_of,
    verb_of,
    word_set,
)

ASKING = word_set(
    "is are was were does do did can could should will would may might has have had must"
)
_OPEN = word_set("how what why which when where who whom whose whether")
_REGISTRATION = re.compile(
    r"\s*[\[(](?:ISRCTN|NCT|ACTRN|UMIN|EudraCT|Clinical ?Trials?|trial registration)[^\])]*[\])]?"
    r"\s*$|\s*[☆★†‡*]+\s*$|\s*[.,;:]+\s*$",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^[A-Z]{0,2}\d{1,4}\.\s+")  # abstracts of a congress: "S50. ..."
_PROTOCOL = re.compile(
    r"\b(?:protocol|rationale and design|design and rationale|statistical analysis plan|erratum|"
    r"corrigendum|correction|retract(?:ed|ion)|reply|comment|editorial)\b",
    re.IGNORECASE,
)
_PARTS = re.compile(r"\s*[:;]\s+|\s+[–—-]+\s+|—|-\s+(?=an?\s)|(?<=[a-z)\]])\.\s+(?=[A-Z])")
_STUDY = re.compile(
    r"(?:\b(?:study|trial|project|survey|group|cohort|programme|program|registry|part [0-9i]+)"
    r"|^[A-Z0-9-]{3,})$",
    re.IGNORECASE,
)
_CHOICE = re.compile(r"\bor\b.*\?|\b(?:better|best|more|worse|versus|vs\.?)\b.*,\s*\w+ or\b")
_NO_NOUN = re.compile(
    r"^(?P<no>No|Lack of(?: an?)?)\s+(?P<rest>(?:[\w-]+\s+){0,3}?"
    r"(?P<noun>effects?|impact|influence|benefits?|advantages?|associations?|relationships?|"
    r"differences?|evidence|interactions?|correlations?|improvements?|increase|decrease|"
    r"reductions?|change|role)\s+(?:of|between|in|with|for|from|on|to|after|by|that)\b.*)$",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+")
_NAME = re.compile(r"(?<=[a-z,(] )[A-Z][a-z]+\b")
_POSSESSIVE = re.compile(r"['’][Ss]\b|\s+(?:[Dd]isease|[Ss]yndrome|[Tt]est|[Ss]cale)\b")
_BEFORE_NAME = re.compile(r"-[A-Z]")  # Smith-Jones; says nothing IN A TITLE IN CAPITALS
_FUNCTION = PREPOSITIONS | DETERMINERS | CONJUNCTIONS
MAX_TITLE_CHARS = 600
_COMMON = word_set(
    "early late low high acute chronic intensive moderate daily weekly short long single combined "
    "home oral topical intravenous maternal paternal preoperative postoperative treatment therapy"
)
_MIN_WORDS = 4


@dataclass(frozen=True)
class Asked:
    """A question made from a title. `label` is what the title states, "" when it only asks.

    `hedged` is true when the title itself says "may", "might" or "could". `kind` tells how the
    question was made: title_question, statement or no_noun.
    """

    question: str
    label: Literal["yes", "no", ""]
    hedged: bool
    kind: Literal["title_question", "statement", "no_noun", "objective"]


def ask(title: str, body: str = "") -> Asked | str:
    """The question a title gives, or the reason why it gives none.

    `body` is the abstract's text; words written small there are written small in the question.
    """
    title = _cleaned(title)
    if not title:
        return "no_title"
    if len(title) > MAX_TITLE_CHARS:
        return "long_title"
    if _PROTOCOL.search(title):
        return "protocol"
    if "?" in title:
        return _question_title(title, body)
    if not title.isascii() and sum(map(str.isascii, title)) < 0.8 * len(title):
        return "not_english"
    parts = [part for part in _PARTS.split(title) if part and part.strip()]
    found: list[tuple[int, Asked]] = []
    reason = "noun_phrase"
    for place, part in enumerate(parts):
        made = _statement(part.strip(" .,;:"), body)
        if isinstance(made, Asked):
            found.append((place, made))
        elif made != "noun_phrase":
            reason = made
    if not found or reason != "noun_phrase":
        return reason
    if len(found) > 1:
        return "two_statements"
    place, made = found[0]
    if place > 0 and not all(_STUDY.search(part.strip()) for part in parts[:place]):
        return "statement_in_subtitle"
    return made


def _cleaned(title: str) -> str:
    title = " ".join(title.split())
    if title.startswith("[") and title.rstrip(".").endswith("]"):
        title = title.rstrip(".")[1:-1]
    title = _NUMBERED.sub("", title)
    before = None
    while before != title:
        before, title = title, _REGISTRATION.sub("", title)
    return title


def _question_title(title: str, body: str) -> Asked | str:
    """A title with a question mark: kept up to the mark when its last clause asks yes or no.

    Only A TITLE IN CAPITALS is written anew.
    """
    asking, _, rest = title.partition("?")
    if asking.isupper():
        asking = truecase(asking, body)
        asking = asking[:1].upper() + asking[1:]
    if "?" in rest:
        return "two_questions"
    clause = _PARTS.split(asking)[-1].strip(" '\"“‘([")
    words = [word.lower() for word in _WORD.findall(clause)]
    if not words or words[0] not in ASKING:
        return "open_question" if words and words[0] in _OPEN else "no_yes_no_question"
    if "or" in words and {"better", "best", "more", "less", "which", "versus", "vs"} & set(words):
        return "choice_question"
    if "how" in words[1:] or "why" in words[1:]:
        return "open_question"
    if len(words) < _MIN_WORDS - 1:
        return "too_short"
    return Asked(asking.strip(" '\"“‘") + "?", "", False, "title_question")


def ask_clause(clause: str, body: str = "") -> Asked | str:
    """The question that a statement with one finite verb answers, or why there is none."""
    words = clause.split()
    if len(words) < _MIN_WORDS:
        return "noun_phrase"
    finite = find_finite(words)
    if isinstance(finite, str):
        return finite
    made = _fronted(words, finite)
    if isinstance(made, str):
        return made
    auxiliary, rest, label, hedged = made
    return Asked(f"{auxiliary} {truecase(rest, body)}?", label, hedged, "statement")


def _statement(part: str, body: str) -> Asked | str:
    none = _NO_NOUN.match(part)
    return _no_noun(none, part, body) if none else ask_clause(part, body)


def _no_noun(match: re.Match[str], part: str, body: str) -> Asked | str:
    """ "No effect of X on Y" -> "Is there an effect of X on Y?", which needs no agreement."""
    words = [word.lower() for word in _WORD.findall(part)]
    if {"but", "although", "despite", "whereas", "except"} & set(words):
        return "mixed_title"
    if any(word in ASKING for word in words):
        return "noun_phrase" if match["no"].lower() == "lack of" else "two_verbs"
    rest = truecase(match["rest"], body)
    if rest.split()[0].lower() in DETERMINERS:
        rest = " ".join(rest.split()[1:])
    first = rest.split()[0].lower()
    noun = match["noun"].lower()
    if noun == "evidence" or (noun.endswith("s") and noun != "evidence"):
        there = f"Is there {rest}" if noun == "evidence" else f"Are there {rest}"
    else:
        there = f"Is there {'an' if first[0] in 'aeiou' else 'a'} {rest}"
    return Asked(there + "?", "no", False, "no_noun")


class _Fronted(NamedTuple):
    auxiliary: str
    rest: str
    label: Literal["yes", "no"]
    hedged: bool


def _fronted(words: list[str], finite: Finite) -> _Fronted | str:
    """The auxiliary, the rest of the question and what the statement says, or a reason."""
    subject, rest = words[: finite.at], words[finite.at + 1 :]
    if not rest:
        return "nothing_behind_the_verb"
    if finite.kind in {"third", "base", "past"}:
        made = _with_do(subject, rest, finite)
    else:
        made = _with_auxiliary(subject, rest, words[finite.at].lower())
    if isinstance(made, str):
        return made
    for place, base in finite.coordinated:
        tail = made.rest.split()
        tail[place - len(words)] = base
        made = made._replace(rest=" ".join(tail))
    behind = made.rest.split()[len(subject) :]
    if not behind or _negated(behind):
        return "negation_unclear"
    return made


def _with_auxiliary(subject: list[str], rest: list[str], auxiliary: str) -> _Fronted | str:
    """ "X is not safe" -> Is / X safe; "X may help" -> Does / X help, hedged."""
    label: Literal["yes", "no"] = "yes"
    if auxiliary == "cannot":
        auxiliary, label = "can", "no"
    if rest[0].lower() == "not":
        rest, label = rest[1:], "no"
    hedged = auxiliary in {"may", "might", "could"}
    if hedged or auxiliary in {"would", "will"}:
        number = number_of([plain(word) for word in subject])
        if number is None:
            return "number_unclear"
        auxiliary = "does" if number == "singular" else "do"
        if rest[:1] and rest[0].lower() == "be":
            auxiliary, rest = "is" if number == "singular" else "are", rest[1:]
        elif rest[:1] and rest[0].lower() in {"have", "also", "not"}:
            return "hedged_perfect"
    return _Fronted(auxiliary.capitalize(), " ".join([*subject, *rest]), label, hedged)


def _with_do(subject: list[str], rest: list[str], finite: Finite) -> _Fronted | str:
    """ "X reduced Y" -> Did / X reduce Y; "X fails to Y", "X has no effect" are denials."""
    auxiliary = {"third": "Does", "base": "Do", "past": "Did"}[finite.kind]
    label: Literal["yes", "no"] = "yes"
    behind = [finite.base, *rest]
    if finite.base == "fail" and len(rest) > 1 and rest[0].lower() == "to":
        behind, label = rest[1:], "no"
    elif finite.base == "have" and rest[0].lower() == "no":
        changed = _have_no(behind)
        if changed is None:
            return "negation_unclear"
        behind, label = changed, "no"
    return _Fronted(auxiliary, " ".join([*subject, *behind]), label, False)


def _have_no(rest: list[str]) -> list[str] | None:
    """have no (significant) effect ... -> have a (significant) effect ..."""
    nouns = {"effect", "impact", "influence", "benefit", "advantage", "role", "association"}
    for word in rest[2:5]:
        if word.lower() in nouns:
            article = "an" if rest[2][0].lower() in "aeiou" else "a"
            return ["have", article, *rest[2:]]
    return None


def _negated(rest: list[str]) -> bool:
    lowered = {plain(word) for word in rest}
    return bool(lowered & {"not", "no", "nor", "neither", "never", "cannot", "hardly", "rarely"})


def plain(word: str) -> str:
    """A word in lower case without the punctuation around it."""
    return word.strip(".,;:()[]'\"“”‘’").lower()


def _article_follows(before: str) -> bool:
    """Whether an A behind these words is an article: behind "is", "of", "can", not "vitamin"."""
    words = _WORD.findall(before)
    return bool(words) and words[-1].lower() in _FUNCTION | ASKING


def truecase(text: str, body: str) -> str:
    """Words that only a headline writes with a capital are written small; names stay as they are.

    `body` (the abstract) decides: a word it writes small is no name, one with a capital in
    mid-sentence is. Where it is silent, a word of a headline In Capitals is written small, and the
    first word of any other title stays.
    """
    small = {word for word in _WORD.findall(body) if word.islower()}
    names = set(_NAME.findall(body))
    capitals = text.isupper()
    long = [word for word in _WORD.findall(text) if len(word) > 3]
    headline = 2 * sum(not word.islower() for word in long[1:]) > len(long[1:])

    def lowered(match: re.Match[str]) -> str:
        word, start, end = match.group(), match.start(), match.end()
        low, beside = word.lower(), text[max(0, start - 1) : start] + text[end : end + 1]
        if word.islower() or not (word.istitle() or capitals):
            return word
        if word == "S" and capitals and beside[:1] in ("'", "’"):
            return low
        if len(word) == 1 and (word != "A" or "-" in beside):
            return word
        if word == "A" and start > 0 and not _article_follows(text[:start]):
            return word  # vitamin A
        if low in _FUNCTION or low in small:
            return low
        if capitals and (_POSSESSIVE.match(text, end) or word.capitalize() in names):
            return low if text[start - 1 : start] == "-" else word.capitalize()
        if word in names or _POSSESSIVE.match(text, end):
            return word
        if not capitals and _BEFORE_NAME.match(text, end):
            return word
        starts_sentences = start == 0 and (word in body or low in _COMMON)
        return low if headline or starts_sentences or verb_of(low) else word

    return _WORD.sub(lowered, text)
