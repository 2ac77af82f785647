"""PQA-A: structured abstracts -> yes/no questions in PubMedQA's shape, the conclusion withheld.

The question comes from the title (`titles.py`) or, where there is none, from the objective
(`objectives.py`). The label comes from what the title states and from the conclusion
(`conclusions.py`); where both speak they must agree. `ids["label_from"]` tells how it was found:

- title+conclusion: both say it. - title: the conclusion does not decide. - conclusion: the title
only asks. - weak: a conclusion that says "may" or "suggests" (people call that a yes).
- doubt, conflict: a "maybe" candidate, see `conclusions.read`.
- hedge: a "maybe" candidate, because the title says "may" and the conclusion no more than that.

Fields: question, contexts (the other sections in order), answer, long_answer (the conclusion, which
`pubmedqa.lm_eval` does not show). Identifiers of the abstract are kept; the quarantine runs later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from medexpert.data.construct.conclusions import Answer, read, sentences
from medexpert.data.construct.objectives import ask_objective
from medexpert.data.construct.sections import Parts, cut
from medexpert.data.construct.titles import Asked, ask
from medexpert.data.readers.abstracts import Abstract
from medexpert.data.readers.rows import Change, Drop, Fault
from medexpert.records import Example

TEMPLATE = "pubmedqa.lm_eval"
MIN_CONCLUSION_WORDS = 5
MIN_CONTEXT_WORDS = 20
MIN_TOLD_WORDS = 5
"""Words of a sentence of the conclusion that may not stand in the contexts too."""
# A conclusion inside another section: in a discussion, or run on behind the results.
_CONCLUDES = re.compile(
    r"\b(?:in conclusion|to conclude|we conclude|conclusions?\s?:)", re.IGNORECASE
)

Objectives = Literal["no_title", "no_question"]
"""When the objective is asked: if the source has no title, or whenever the title asks nothing."""


class _Label(NamedTuple):
    answer: Answer
    found: str


def build(
    abstracts: Iterable[Abstract | Drop | Change | Fault],
    *,
    objectives: Objectives = "no_title",
    maybe: bool = True,
) -> Iterator[Example | Drop | Change | Fault]:
    """Examples of the abstracts, in order; each abstract gives one Example or one Drop.

    Changes (sections left out of the contexts) come before their Example. Drops, Changes and Faults
    of the reader pass through. `maybe` false drops the candidates for "maybe" (maybe_candidate).
    """
    for item in abstracts:
        if isinstance(item, Abstract):
            yield from build_one(item, objectives=objectives, maybe=maybe)
        else:
            yield item


def build_one(
    abstract: Abstract, *, objectives: Objectives = "no_title", maybe: bool = True
) -> Iterator[Example | Drop | Change]:
    """The example of one abstract (behind its Changes), or one Drop with the reason."""
    if abstract.lang not in {"", "en"}:
        yield Drop(abstract.id, "not_english")
        return
    parts = cut(abstract.sections)
    reason = _unusable(parts)
    if reason:
        yield Drop(abstract.id, reason)
        return
    asked = _question(abstract, parts, objectives)
    if isinstance(asked, str):
        yield Drop(abstract.id, asked)
        return
    label = _label(asked, parts.conclusion)
    if isinstance(label, str):
        yield Drop(abstract.id, label)
        return
    if label.answer == "maybe" and not maybe:
        yield Drop(abstract.id, "maybe_candidate")
        return
    for role in parts.removed:
        yield Change(abstract.id, f"{role}_section_left_out")
    yield Example(
        id=f"pqaa-{abstract.id}",
        source=abstract.source or "pqa-a",
        kind="task",
        template=TEMPLATE,
        fields={
            "question": asked.question,
            "contexts": list(parts.contexts),
            "answer": label.answer,
            "long_answer": parts.conclusion,
        },
        lang="en",
        licence=abstract.licence,
        ids={**abstract.ids, "question_from": asked.kind, "label_from": label.found},
    )


def _unusable(parts: Parts) -> str:
    """Why an abstract cannot be an item, or ""."""
    if parts.mixed:
        return "results_and_conclusion_in_one_section"
    if not parts.conclusion:
        return "no_conclusion_section"
    if not parts.contexts:
        return "no_context"
    if not parts.has_results:
        return "no_results_section"
    if len(parts.conclusion.split()) < MIN_CONCLUSION_WORDS:
        return "conclusion_too_short"
    body = " ".join(parts.contexts)
    if len(body.split()) < MIN_CONTEXT_WORDS:
        return "context_too_short"
    told = any(
        sentence in body
        for sentence in sentences(parts.conclusion)
        if len(sentence.split()) >= MIN_TOLD_WORDS
    )
    return "conclusion_in_context" if told or _CONCLUDES.search(body) else ""


def _question(abstract: Abstract, parts: Parts, objectives: Objectives) -> Asked | str:
    body = " ".join((*parts.contexts, parts.conclusion))
    titled = bool(abstract.title.strip())
    asked = ask(abstract.title, body)
    wanted = not titled or (objectives == "no_question" and asked == "noun_phrase")
    if isinstance(asked, Asked) or not wanted:
        return asked if isinstance(asked, Asked) else f"title_{asked}"
    made = ask_objective(parts.objective or parts.contexts[0])
    return made if isinstance(made, Asked) else f"objective_{made}"


def _label(asked: Asked, conclusion: str) -> _Label | str:
    """The answer and where it comes from, or the reason why there is none."""
    reading = read(asked.question, conclusion)
    if not asked.label:
        if reading.answer is None:
            return "conclusion_off_topic"
        found = "conclusion" if reading.why == "plain" else reading.why
        return _Label(reading.answer, found)
    if reading.answer == "maybe":
        return _Label("maybe", reading.why)
    if asked.hedged and (reading.answer is None or reading.why == "weak"):
        return _Label("maybe", "hedge")
    if reading.answer is None:
        return _Label(asked.label, "title")
    if reading.answer != asked.label:
        return "title_and_conclusion_disagree"
    return _Label(asked.label, "title+conclusion")
