"""English verbs of medical titles: finite or not, their base form, their subject's number.

Closed lists and a few spelling rules instead of a tagger. Everything here prefers "cannot tell" to
a guess: a title that is not understood costs one example, a wrong question teaches nonsense.
All functions take lower-case words without punctuation.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple


def word_set(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


# Words that are verbs in a title, hardly ever nouns.
_VERBS_ONLY = """
    accelerate achieve activate affect aggravate allow alleviate alter ameliorate attenuate augment
    contribute confer decelerate delineate demonstrate depend deplete deteriorate determine differ
    diminish discriminate disrupt downregulate elevate elicit eliminate enable encourage enhance
    ensure exacerbate exceed exert exhibit extend facilitate fail hasten identify impair improve
    induce inhibit interact interfere lengthen maintain mediate minimise minimize mitigate modify
    modulate normalise normalize occur outperform outweigh persist possess potentiate predict
    prevent preserve prolong promote protect provide raise reduce regulate relieve remain remodel
    require resemble restore reveal shorten simplify stabilise stabilize stimulate strengthen
    suppress sustain suffice undergo underlie upregulate vary weaken widen worsen avoid produce
    explain generate govern contain involve optimise optimize decline deliver emerge become
    accompany abolish abrogate reinforce replicate retain tend tolerate
"""
# Words that are as often nouns: verbs only where the words around them allow nothing else.
_VERBS_OR_NOUNS = """
    aid benefit block boost cause change control correlate decrease delay drop favor favour have
    help impact increase influence lack lead limit lower mask need offer prime rescue result reverse
    reflect rise save show signal slow support target trigger yield
"""
_IRREGULAR_PAST = {
    "became": "become",
    "led": "lead",
    "showed": "show",
    "underwent": "undergo",
    "rose": "rise",
    "had": "have",
}
# Past forms that are never participles in front of what follows (the others also stand in "reduced
# dose"): they need a determiner behind them to count as finite.
_FINITE_PAST = frozenset({"became", "showed", "underwent", "rose", "had"})
_NEEDS = {  # verb -> words one of which must follow
    "lead": ("to",),
    "result": ("in",),
    "contribute": ("to",),
    "correlate": ("with",),
    "depend": ("on", "upon"),
    "interact": ("with",),
    "interfere": ("with",),
    "remain": (),
    "differ": (),
}
PREPOSITIONS = word_set(
    "of in on at by for from with without to into onto after before during among amongst between "
    "through throughout under over via per within across against following versus vs about "
    "regarding concerning upon toward towards since until using than as despite beyond near "
    "according including"
)
DETERMINERS = word_set(
    "the a an this these those their its his her our both all any some each every no either"
)
CONJUNCTIONS = word_set("and or but nor plus &")
_PLURALS = word_set(
    "patients children women men people persons data bacteria mice teeth feet media criteria "
    "phenomena mothers fathers"
)
_SINGULAR_IN_S = word_set("diabetes rabies species series pancreas caries herpes ascites")
_UNKNOWN_NUMBER = ("ics", "species", "series", "versus")

Form = Literal["third", "base", "past"]


class Verb(NamedTuple):
    """A possible finite verb: its base form, its form, and whether it may as well be a noun."""

    base: str
    form: Form
    doubtful: bool


def third_person(verb: str) -> str:
    """reduce -> reduces, modify -> modifies, have -> has."""
    if verb == "have":
        return "has"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "z", "o")) else "s")


def past(verb: str) -> str:
    """reduce -> reduced, modify -> modified, lead -> led."""
    for form, base in _IRREGULAR_PAST.items():
        if base == verb:
            return form
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    if verb in {"occur", "prefer", "drop", "confer", "control"}:
        return verb + verb[-1] + "ed"
    return verb + "ed"


@cache
def _table() -> dict[str, Verb]:
    found: dict[str, Verb] = {}
    for words, doubtful in ((_VERBS_OR_NOUNS, True), (_VERBS_ONLY, False)):
        for verb in words.split():
            found[past(verb)] = Verb(verb, "past", past(verb) not in _FINITE_PAST)
            found[verb] = Verb(verb, "base", doubtful)
            found[third_person(verb)] = Verb(verb, "third", doubtful)
    return found


def verb_of(word: str) -> Verb | None:
    """The listed verb this word is a form of, or None."""
    return _table().get(word)


def complement_fits(verb: str, following: str) -> bool:
    """Whether the word behind the verb can follow it (`leads` + `to`, not `leads` + `in`)."""
    needed = _NEEDS.get(verb)
    return True if not needed else following in needed


def number_of(subject: list[str]) -> Literal["singular", "plural"] | None:
    """Whether a noun phrase is singular or plural, judged by its head; None when unsure.

    The head is the last word before the first preposition or participle phrase. A phrase joined by
    "and" before its first preposition is plural; "or" leaves it undecided.
    """
    head: list[str] = []
    for word in subject:
        if word in PREPOSITIONS or (head and word in {"treated", "given", "receiving", "based"}):
            break
        head.append(word)
    if not head or "or" in head:
        return None
    if head[0].endswith("ing") and len(head[0]) > 4 and "and" not in head:
        return "singular"
    if "and" in head or "plus" in head:
        return "plural" if "and" in head else "singular"
    return _word_number(head[-1])


def _word_number(word: str) -> Literal["singular", "plural"] | None:
    if word in _PLURALS:
        return "plural"
    if word.endswith(_UNKNOWN_NUMBER) or not word[-1:].isalpha():
        return None
    if word in _SINGULAR_IN_S or word.endswith(("ss", "us", "is")):
        return "singular"
    return "plural" if word.endswith("s") else "singular"
