"""Evidence Inference -> PubMedQA's shape: does an intervention raise or lower an outcome?

The question: "Does INTERVENTION, compared with COMPARATOR, significantly increase|reduce OUTCOME?"

| annotated                  | asked "increase" | asked "reduce" |
|----------------------------|------------------|----------------|
| significantly increased    | yes              | no             |
| significantly decreased    | no               | yes            |
| no significant difference  | no               | no             |

"Significantly" stands in the question because annotators judged significance, so that "no" is right
where a difference exists that was not significant. Where a majority of annotators is contradicted
the item is a "maybe" candidate (`label_from` = disagreement); the reader drops a tie. A change is
asked for in its own direction in MATCHING of the cases, chosen by a seeded hash of the row's id; a
null result in either direction at even odds. With the published shares (28 % up, 24 % down, 48 %
none) that gives about 43 % "yes".

The contexts are the abstract without its conclusion; an abstract that has no section of that name
is dropped, since it holds the conclusion somewhere. The evidence may be in the full text only: a
row whose outcome (half its content words) and numbers do not occur in the contexts is dropped.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterable, Iterator

from medexpert.data.construct.conclusions import content_words
from medexpert.data.construct.morphology import (
    CONJUNCTIONS,
    DETERMINERS,
    PREPOSITIONS,
    number_of,
    verb_of,
    word_set,
)
from medexpert.data.construct.pqa import TEMPLATE
from medexpert.data.construct.sections import Parts, cut
from medexpert.data.construct.titles import plain
from medexpert.data.readers.evidence_rows import EvidenceRow
from medexpert.data.readers.rows import Change, Drop, Fault
from medexpert.records import Example

MATCHING = 7 / 8
"""Share of the significant changes that are asked for in their own direction."""
MAX_PHRASE_WORDS = 30
MIN_OUTCOME_SHARE = 0.5

_WORDS = {"significantly increased": "increase", "significantly decreased": "reduce"}
_NULL = "no significant difference"
_EDGES = " \t\n.,;:-–"
_NOT_A_NOUN = word_set("received receive maintain increase reduce took take undergo underwent")
_CLAUSE = re.compile(
    r"\b(?:I|we|you|my|our|your|is|are|was|were|had|have|has|received|underwent|took|who|that|which|"
    r"estimate|if|when|to eat)\b"
)
_CODE = re.compile(r"^(?:group |arm )?[A-Z]\d?\s*[-:=]\s+", re.IGNORECASE)


def build(
    rows: Iterable[EvidenceRow | Drop | Change | Fault],
    *,
    seed: int,
    maybe: bool = True,
    splits: tuple[str, ...] = (),
) -> Iterator[Example | Drop | Change | Fault]:
    """Examples of the rows, in order; what the reader dropped or refused passes through.

    `splits` keeps the rows of the splits named (empty = all); `maybe` false drops the rows whose
    annotators contradict each other.
    """
    for row in rows:
        if not isinstance(row, EvidenceRow):
            yield row
        elif splits and row.split and row.split not in splits:
            yield Drop(row.id, "other_split")
        else:
            yield from build_one(row, seed=seed, maybe=maybe)


def build_one(
    row: EvidenceRow, *, seed: int, maybe: bool = True
) -> Iterator[Example | Drop | Change]:
    """The example of one row (behind its Changes), or one Drop with the reason."""
    parts = cut(row.abstract)
    reason = _unusable(row, parts)
    if not row.agree and not maybe:
        reason = reason or "maybe_candidate"
    if reason:
        yield Drop(row.id, reason)
        return
    direction, answer = _asked(row, seed)
    if not row.agree:
        answer = "maybe"
    for role in parts.removed:
        yield Change(row.id, f"{role}_section_left_out")
    yield Example(
        id=f"evidence-{row.id}",
        source="evidence-inference",
        kind="task",
        template=TEMPLATE,
        fields={
            "question": question(
                row.intervention, row.comparator, row.outcome, direction, " ".join(parts.contexts)
            ),
            "contexts": list(parts.contexts),
            "answer": answer,
            "long_answer": parts.conclusion,
        },
        lang="en",
        licence=row.licence,
        ids={
            **row.ids,
            "question_from": "evidence",
            "label_from": "annotation" if row.agree else "disagreement",
        },
    )


def question(
    intervention: str, comparator: str, outcome: str, direction: str, body: str = ""
) -> str:
    """The question's wording; `direction` is "increase" or "reduce", `body` the abstract's text."""
    subject = _phrase(intervention, body)
    words = [plain(word) for word in subject.split()]
    auxiliary = "Do" if number_of(words) == "plural" else "Does"
    return (
        f"{auxiliary} {subject}, compared with {_phrase(comparator, body)}, "
        f"significantly {direction} {_phrase(outcome, body)}?"
    )


def _asked(row: EvidenceRow, seed: int) -> tuple[str, str]:
    """(direction asked, answer)."""
    raw = hashlib.blake2b(f"{seed}\0{row.id}".encode("utf-8", "surrogatepass"), digest_size=8)
    draw = int.from_bytes(raw.digest(), "little") / 2**64
    if row.label == _NULL:
        return ("increase" if draw < 0.5 else "reduce"), "no"
    own = _WORDS[row.label]
    other = "reduce" if own == "increase" else "increase"
    return (own, "yes") if draw < MATCHING else (other, "no")


def _unusable(row: EvidenceRow, parts: Parts) -> str:
    """Why a row cannot be an item, or ""."""
    if row.label != _NULL and row.label not in _WORDS:
        return "no_label"
    if not parts.contexts:
        return "no_abstract"
    if parts.mixed:
        return "results_and_conclusion_in_one_section"
    if not parts.conclusion:
        # An abstract without headings, or without this one, tells the conclusion somewhere.
        return "no_conclusion_section"
    for text in (row.intervention, row.comparator, row.outcome):
        words = _phrase(text).split()
        if not words:
            return "empty_prompt"
        if len(words) > MAX_PHRASE_WORDS:
            return "long_prompt"
        if not _noun_phrase(words):
            return "no_noun_phrase"
    return "" if _answerable(row, " ".join(parts.contexts)) else "answer_not_in_abstract"


def _noun_phrase(words: list[str]) -> bool:
    """Whether a prompt may stand as subject or object: no clause, no preposition or verb first."""
    first = words[0].lower()
    if first in _NOT_A_NOUN | PREPOSITIONS | CONJUNCTIONS or _CLAUSE.search(" ".join(words)):
        return False
    verb = verb_of(first)
    return verb is None or verb.form != "third" or verb.doubtful


def _answerable(row: EvidenceRow, body: str) -> bool:
    """Whether a quotation stands in the contexts, or else half of the outcome's content words."""
    flat = " ".join(body.split())
    quoted = (" ".join(text.split()) for text in row.evidence)
    if any(len(text) > 20 and text in flat for text in quoted):
        return True
    wanted = content_words(row.outcome)
    if not wanted or row.evidence:
        return False
    return len(wanted & content_words(body)) >= MIN_OUTCOME_SHARE * len(wanted)


def _phrase(text: str, body: str = "") -> str:
    """A prompt fit for mid-sentence: entities read, edges trimmed, its first word written small
    where the abstract writes it small."""
    before = ""
    while before != text:
        before, text = text, html.unescape(text)
    text = _CODE.sub("", " ".join(text.split())).strip(_EDGES)
    first, blank, rest = text.partition(" ")
    if first.lower() in DETERMINERS or (first.istitle() and _written_small(first, body)):
        return f"{first.lower()}{blank}{rest}"
    return text


def _written_small(word: str, body: str) -> bool:
    return re.search(rf"\b{re.escape(word.lower())}\b", body) is not None
