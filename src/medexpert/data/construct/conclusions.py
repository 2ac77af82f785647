"""What a conclusion answers to a yes/no question, by rules; None where the rules do not apply.

The sentence of the conclusion that shares most content words with the question decides. Negation in
it (or "similar" where the question asks for an effect) speaks for "no", none for "yes"; a clause
of the other polarity beside it, or open doubt ("inconclusive", "only in some patients"), is
conflict or doubt and makes a "maybe" candidate. "May" and "suggests" alone do not: human readers
call such conclusions "yes" (figures: `agreement.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from medexpert.data.construct.morphology import verb_of, word_set

Answer = Literal["yes", "no", "maybe"]

MIN_SHARED = 2
"""Content words that the deciding sentence has to share with the question."""
MIN_SHARE = 0.25
"""Share of the question's content words that the deciding sentence has to hold."""

_LONG_CLAUSE = 3
_ENDINGS = (
    *(
        "ations",
        "ation",
        "ingly",
        "ities",
        "ity",
        "ings",
        "ing",
        "ies",
        "ness",
        "ment",
        "ions",
        "ion",
    ),
    *("ive", "ed", "es", "ly", "al", "s", "e", "y"),
)
_STOP = word_set(
    "a an the of in on at by for from with without to into after before during among between "
    "and or but nor as than that this these those their its his her our is are was were be been "
    "being do does did have has had can could may might will would should must not no it they "
    "we he she there which who whom whose what when where how why if whether study studies "
    "patients patient results result conclusion conclusions data find findings show shows "
    "showed shown suggest suggests suggested demonstrate demonstrated use used using "
    "significant significantly associated association effect effects any more less most also "
    "however both either only really all group groups compared treatment within such other each "
    "years year "
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9•(\[])")
_WORD = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.IGNORECASE)
_NEGATION = re.compile(
    r"\b(?:not(?! only)|no(?! longer)|nor|neither|none|never|cannot|fail(?:s|ed|ure)? to|unable to|"
    r"lack(?:s|ed|ing)?|lack of|little (?:evidence|effect|impact|influence|value|benefit)|"
    r"unlikely|unaffected|ineffective|unnecessary|unchanged|insufficient|absence of|"
    r"should be (?:avoided|abandoned|omitted)|limited value|independent of|regardless of|"
    r"irrespective of|cast doubt|less (?:effective|accurate|reliable)|inferior|questionable|"
    r"inadequate\w*|low yield|not living up|needs revisiting|minor importance|limited effect|"
    r"minority|deficits?|impossible|little (?:awareness|need|benefit)|inappropriate|inaccurate|"
    r"rarely|seldom|hardly|unrelated|undisturbed|overestimate[sd]?)\b|\w+n['’]t\b",
    re.IGNORECASE,
)
# Negations that say nothing against what is asked.
_HARMLESS = re.compile(
    r"\b(?:not only|"
    r"no (?:serious|severe|major|significant|relevant|additional|increase in|other)?\s*"
    r"(?:adverse|side|complication|toxicit|safety|mortalit|deaths?)\w*|non[- ]?inferior\w*|"
    r"not inferior|no longer|no matter|although not|"
    r"whether or not|not been|not ?withstanding|without (?=first)|should not be a barrier|"
    r"(?:who|that|which)\s+(?:had|have|has|did|do|does|were|was|are|is) not)\b",
    re.IGNORECASE,
)
_SAME = re.compile(
    r"\b(?:similar(?:ly)?|comparable|equivalent(?:ly)?|equally|identical(?:ly)?|"
    r"the same|(?:no|not|without)\b[^.;]{0,40}\bdiffer\w*|"
    r"as (?:effective|safe|good|accurate) as)\b",
    re.IGNORECASE,
)
_ASKS_SAME = re.compile(
    r"\b(?:same|similar|equal(?:ly)?|equivalen\w+|comparable|non-?inferior|as \w+ as|safe|feasible|"
    r"alternative|sufficient|adequate|reliable|accurate|valid|accepta\w+|possible|justified)\b",
    re.IGNORECASE,
)
_ASKS_DIFFERENCE = re.compile(
    r"\b(?:differ\w*|affect\w*|influenc\w*|impact\w*|improv\w*|reduc\w*|increas\w*|decreas\w*|"
    r"predict\w*|better|worse|more|less|superior|alter\w*|chang\w*|associat\w*|related|risk|effect|"
    r"benefi\w*|prevent\w*|prolong\w*|compromis\w*|contraindicat\w*|depend\w*|advantag\w*|higher|"
    r"lower|enhance\w*|impair\w*|modif\w*|necessary|need\w*)\b",
    re.IGNORECASE,
)
_CONTRAST = re.compile(
    r"(?:;|,?\s*\b(?:but|whereas|however|except|except for|yet|on the other hand|in contrast|"
    r"while|nevertheless|nonetheless)\b)",
    re.IGNORECASE,
)
_CONCESSION = re.compile(
    r"^(?:although|though|while|despite|even though|in spite of)\b[^,]*,\s*", re.IGNORECASE
)
_HOWEVER = re.compile(
    r"(?:however|but|nevertheless|nonetheless|on the other hand)\b", re.IGNORECASE
)
_ASKS_SAMENESS = re.compile(
    r"\b(?:same|similar|equal(?:ly)?|equivalen\w+|comparable|non-?inferior|as \w+ as)\b",
    re.IGNORECASE,
)
_DIFFERS = re.compile(
    r"\b(?:differ\w*|variab\w+|more|less|longer|shorter|higher|lower|greater|heavier|worse|better|"
    r"superior|inferior)\b",
    re.IGNORECASE,
)
_ASKS_NEED = re.compile(
    r"\b(?:necessary|need(?:ed)?|require[ds]?|mandatory|indicated|essential|indispensable)\b",
    re.IGNORECASE,
)
_DISPENSABLE = re.compile(
    r"\b(?:sufficien\w+|omit(?:ted)?|avoid\w*|selective\w*|instead|alone|removal|unnecessary|"
    r"limited value|safely)\b",
    re.IGNORECASE,
)
# Doubt about the whole answer.
_OPEN = re.compile(
    r"\b(?:inconclusive|unclear|undetermined|equivocal|controversial|conflicting|"
    r"insufficient (?:evidence|data)|(?:cannot|could not|can not) (?:be )?(?:conclude|determine|"
    r"confirm|exclude|rule)\w*|remains? (?:to be|unknown|debatable|an open|uncertain))\b",
    re.IGNORECASE,
)
# The answer holds for a part only.
_PARTLY = re.compile(
    r"\b(?:depend(?:s|ing)? (?:up)?on|selected (?:patients|cases|group)|"
    r"some (?:patients|cases|extent|aspects)|partial(?:ly)?|only (?:in|for|when|if|among)|"
    r"with caution)\b",
    re.IGNORECASE,
)
_MODAL = re.compile(
    r"\b(?:may|might|could|possible|possibly|potential(?:ly)?|probabl[ey]|seems?|appears?|likely|"
    r"suggest(?:s|ed|ive)?|tend(?:s|ed|ency)?|trend)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Reading:
    """What a conclusion says to a question.

    `answer` is None where the rule does not apply (`why` is off_topic). Otherwise `why` is plain
    (one clear sentence), weak (clear but for "may", "appears", "suggests": people still call that
    a yes), doubt or conflict.
    """

    answer: Answer | None
    why: str


def sentences(text: str) -> list[str]:
    """The sentences of a text; "Dr. A" is split too, which does no harm here."""
    return [part.strip() for part in _SENTENCE.split(text) if part.strip()]


def read(question: str, conclusion: str) -> Reading:
    """The answer of a conclusion to a question, or None with the reason."""
    parts = sentences(conclusion)
    asked = _asked(question)
    at = _deciding(asked, parts)
    if at is None:
        return Reading(None, "off_topic")
    main = _CONCESSION.sub("", parts[at])
    clauses = _clauses(main, asked)
    signs = {_negative(clause, question) for clause in clauses}
    open_ = _OPEN.search(main) and "mechanism" not in main
    if open_ or (signs == {False} and _partly(main, question)):
        return Reading("maybe", "doubt")
    if len(signs) > 1 or _taken_back(asked, parts[at + 1 :], True in signs, question):
        return Reading("maybe", "conflict")
    if True in signs:
        return Reading("no", "plain")
    return Reading("yes", "weak" if _MODAL.search(main) else "plain")


def _partly(sentence: str, question: str) -> bool:
    """Whether the answer holds for a part only, by a word that the question does not use itself."""
    asked = question.lower()
    return any(cue.group().lower()[:6] not in asked for cue in _PARTLY.finditer(sentence))


def _asked(question: str) -> frozenset[str]:
    """Content words of the clause that asks; of the whole question where that clause is short."""
    clause = content_words(question.rpartition(": ")[2])
    return clause if len(clause) >= _LONG_CLAUSE else content_words(question)


def _clauses(sentence: str, asked: frozenset[str]) -> list[str]:
    """The clauses that speak about what is asked: those sharing half as much as the best one."""
    clauses = [clause for clause in _CONTRAST.split(sentence) if clause.strip()]
    shared = [len(asked & content_words(clause)) for clause in clauses]
    most = max(shared)
    return [clause for clause, count in zip(clauses, shared, strict=True) if 2 * count >= most]


def _taken_back(asked: frozenset[str], later: list[str], negative: bool, question: str) -> bool:
    """Whether the next sentence opens with "However" and says the opposite of what is asked."""
    if not later or not _HOWEVER.match(later[0]) or len(asked & content_words(later[0])) < 2:
        return False
    return _negative(later[0], question) is not negative


def _negative(clause: str, question: str) -> bool:
    """Whether a clause denies what is asked."""
    if _ASKS_SAMENESS.search(question) and not _SAME.search(clause) and _DIFFERS.search(clause):
        return True
    if _SAME.search(clause):
        asks_same = _ASKS_SAME.search(question) and not _ASKS_DIFFERENCE.search(question)
        if asks_same or _ASKS_SAMENESS.search(question):
            return False
        if _ASKS_DIFFERENCE.search(question):
            return True
    if _ASKS_NEED.search(question) and _DISPENSABLE.search(clause):
        return True
    asked = question.lower()
    cues = _NEGATION.finditer(_HARMLESS.sub(" ", clause))
    return any(cue.group().lower() not in asked for cue in cues)


def _deciding(asked: frozenset[str], parts: list[str]) -> int | None:
    """Place of the sentence sharing most content words with the question; the first of equals."""
    shared = [len(asked & content_words(part)) for part in parts]
    most = max(shared, default=0)
    needed = 1 if len(parts) == 1 else MIN_SHARED
    if most < needed or most < MIN_SHARE * len(asked):
        return None
    return shared.index(most)


@lru_cache(maxsize=4096)
def content_words(text: str) -> frozenset[str]:
    """Stems of the content words of a text."""
    words = [word.lower() for word in _WORD.findall(text)]
    return frozenset(_stem(word) for word in words if word not in _STOP and len(word) > 1)


def _stem(word: str) -> str:
    verb = verb_of(word)
    word = verb.base if verb else word
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word
