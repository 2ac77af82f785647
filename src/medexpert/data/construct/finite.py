"""The finite verb of a title, found with certainty or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medexpert.data.construct.morphology import (
    CONJUNCTIONS,
    DETERMINERS,
    PREPOSITIONS,
    Verb,
    complement_fits,
    number_of,
    verb_of,
    word_set,
)

Kind = Literal["be", "modal", "do", "perfect", "third", "base", "past"]

_BE = word_set("is are was were")
_MODALS = word_set("can could would may might will should must cannot")
_DO = word_set("does do did")
_SUBORDINATE = word_set(
    "who which that whose whom when whether if how what why where while because although though "
    "whereas unless so"
)
_QUALIFIED = word_set("only neither nor hardly rarely seldom but except rather depending")
_BAD_START = word_set(
    "to toward towards when while although after before during in on for from with without beyond "
    "why how what which where who whether if there it they as at by under not let do using "
    "and or but versus vs i we you he she they"
)
_STUDIES = word_set("trial trials study studies analysis analyses survey review")
_PERFECT_WORDS = word_set("been become led shown not")


@dataclass(frozen=True)
class Finite:
    """Place and kind of the main verb, its base form, and (place, base) of verbs joined to it."""

    at: int
    kind: Kind
    base: str
    coordinated: tuple[tuple[int, str], ...] = ()


def find_finite(words: list[str]) -> Finite | str:
    """The one finite verb of these words, or a reason why there is none that is certain."""
    low = [word.strip(".,;:()[]'\"“”‘’").lower() for word in words]
    inside = _in_brackets(words)
    found = [
        finite
        for at in range(1, len(words))
        if not inside[at] and (finite := _finite_at(words, low, at)) is not None
    ]
    if not found:
        return "noun_phrase"
    main, others = found[0], found[1:]
    if any(low[at] in _QUALIFIED for at in range(len(low)) if not inside[at]):
        return "mixed_title"
    subject = low[: main.at]
    if any(word in _SUBORDINATE for word in subject):
        return "clause_in_subject"
    if "not" in subject or "no" in subject:
        return "mixed_title"
    if _STUDIES & set(_head_part(subject)):
        return "study_as_subject"
    reason = _bad_subject(words, subject)
    if reason:
        return reason
    joined = _joined(words, low, main, others)
    if isinstance(joined, str):
        return joined
    return Finite(main.at, main.kind, main.base, joined)


def _head_part(subject: list[str]) -> list[str]:
    """The words before the first preposition."""
    ends = [at for at, word in enumerate(subject) if word in PREPOSITIONS]
    return subject[: ends[0]] if ends else subject


def _in_brackets(words: list[str]) -> list[bool]:
    depth, inside = 0, []
    for word in words:
        opened = word.count("(") + word.count("[")
        inside.append(depth > 0 or word.startswith(("(", "[")))
        depth = max(0, depth + opened - word.count(")") - word.count("]"))
    return inside


def _bad_subject(words: list[str], subject: list[str]) -> str:
    if not subject or subject[0] in _BAD_START:
        return "no_subject"
    if subject[-1] in PREPOSITIONS | DETERMINERS | CONJUNCTIONS | {"to", "not", "be"}:
        return "no_subject"
    if sum(word.endswith(",") for word in words[: len(subject)]) % 2 and "and" not in subject:
        return "comma_in_subject"
    return ""


def _finite_at(words: list[str], low: list[str], at: int) -> Finite | None:
    word, before = low[at], low[at - 1]
    following = low[at + 1] if at + 1 < len(low) else ""
    if "-" in words[at].strip("-") or words[at].endswith((")", "]")):
        return None
    if word in _BE:
        return Finite(at, "be", "be")
    if word in _MODALS and (word != "may" or following.isalpha()):
        return Finite(at, "modal", word)
    if word in _DO and following == "not":
        return Finite(at, "do", "do")
    if word in {"has", "have", "had"}:
        return _have(word, before, following, low[:at])
    verb = verb_of(word)
    if verb is None or not following or words[at].endswith((",", ";", ":")):
        return None
    return _lexical(verb, words, low, at)


def _have(word: str, before: str, following: str, subject: list[str]) -> Finite | None:
    if word == "have" and (before in {"to", *_MODALS} or number_of(subject) != "plural"):
        return None
    if following in _PERFECT_WORDS or following.endswith("ed"):
        return Finite(len(subject), "perfect", "have")
    kind: Kind = {"has": "third", "have": "base", "had": "past"}[word]  # type: ignore[assignment]
    return Finite(len(subject), kind, "have")


def _lexical(verb: Verb, words: list[str], low: list[str], at: int) -> Finite | None:
    before, following = low[at - 1], low[at + 1]
    if before in PREPOSITIONS | DETERMINERS | {"to", "not", "help", "helps", *_MODALS}:
        return None
    if not complement_fits(verb.base, following):
        return None
    objects = following not in PREPOSITIONS | CONJUNCTIONS or following in {"to", "with", "against"}
    objects = objects and not following[:1].isdigit()
    needs = verb.base in {"lead", "result", "contribute", "correlate", "depend", "interact"}
    if verb.form == "third":
        # "increases", "causes": a verb only where a singular subject stands before an object.
        if verb.doubtful and not needs and (not objects or following in {"to", "with"}):
            return None
        if verb.doubtful and number_of(low[:at]) != "singular" and not _conjoined(words, at):
            return None
        return Finite(at, "third", verb.base)
    if verb.form == "base":
        if verb.doubtful and not needs and not objects:
            return None
        if verb.doubtful and (words[at - 1][:1].isupper() and before.isupper()):
            return None
        if number_of(low[:at]) != "plural" or (before in CONJUNCTIONS and "to" in low[:at]):
            return None
        if verb.doubtful and not before.endswith("s"):
            return None
        return Finite(at, "base", verb.base)
    return _past(verb, low, at)


def _past(verb: Verb, low: list[str], at: int) -> Finite | None:
    """A past form counts when nothing but an object can follow: "reduced the", "led to"."""
    before, following = low[at - 1], low[at + 1]
    if not verb.doubtful:
        return Finite(at, "past", verb.base)
    if verb.base in {"lead", "result", "fail"} and following in {"to", "in"}:
        return Finite(at, "past", verb.base)
    adverb = before.endswith("ly") and at > 1 and low[at - 2] not in PREPOSITIONS | CONJUNCTIONS
    if following in DETERMINERS or (adverb and following not in PREPOSITIONS | CONJUNCTIONS):
        return Finite(at, "past", verb.base)
    return None


def _conjoined(words: list[str], at: int) -> bool:
    return words[at - 1].lower() in {"and", "or"} or words[at - 1].endswith(",")


def _joined(
    words: list[str], low: list[str], main: Finite, others: list[Finite]
) -> tuple[tuple[int, str], ...] | str:
    """Verbs joined to the main one by "and", in the same form; another finite verb is a reason."""
    joined = []
    for other in others:
        between = low[main.at + 1 : other.at]
        subordinate = any(word in _SUBORDINATE for word in between)
        verb = verb_of(low[other.at])
        if subordinate:
            continue
        if main.kind in {"modal", "do"} and other.kind == "base":
            continue
        if (
            other.kind != main.kind
            or main.kind not in {"third", "past", "base"}
            or not _conjoined(words, other.at)
        ):
            if verb is not None and verb.doubtful and not _conjoined(words, other.at):
                continue
            return "two_verbs"
        joined.append((other.at, other.base))
    return tuple(joined)
