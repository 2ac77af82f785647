"""Votes of several answers to one question. Nothing is settled silently.

Most votes win. Texts that name no choice are counted apart and have no vote; if none does, the
result is NO_ANSWER. A tie goes to the tied choice with the largest summed probability, scored
behind each of the samples, where the engine tells probabilities; otherwise to the first in the
question's declared order. The trace says which.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medexpert.engines.base import NoLogprobs
from medexpert.prompt.asking import log_softmax
from medexpert.prompt.ledger import Asked, Ledger
from medexpert.prompt.reasoning import Said, behind
from medexpert.records import NO_ANSWER, Prediction, Question

PROBABILITY, ORDER = "probability", "order"


@dataclass(frozen=True)
class Vote:
    """`choice` won with `counts`; `tied` names the choices that had equally many, () if none had.

    `broken_by` is "" without a tie, else "probability" or "order".
    """

    choice: str
    counts: Mapping[str, int]
    unparsed: int
    tied: tuple[str, ...] = ()
    broken_by: str = ""

    @property
    def shares(self) -> dict[str, float]:
        """Votes of each choice as a share of those given; {} when there is none."""
        total = sum(self.counts.values())
        return {name: count / total for name, count in self.counts.items()} if total else {}


def majority(
    choices: Sequence[str], votes: Sequence[str], sums: Mapping[str, float] | None = None
) -> Vote:
    """The vote of `votes` (choices, or NO_ANSWER). `sums` are the probabilities that break a tie;
    equal sums, or none, leave it to the order of `choices`."""
    counts = {choice: votes.count(choice) for choice in choices}
    unparsed = len(votes) - sum(counts.values())
    most = max(counts.values(), default=0)
    if not most:
        return Vote(NO_ANSWER, counts, unparsed)
    first = [choice for choice in choices if counts[choice] == most]
    if len(first) == 1:
        return Vote(first[0], counts, unparsed)
    if sums is not None:
        top = max(sums[choice] for choice in first)
        best = [choice for choice in first if sums[choice] == top]
        if len(best) == 1:
            return Vote(best[0], counts, unparsed, tuple(first), PROBABILITY)
        return Vote(best[0], counts, unparsed, tuple(first), ORDER)
    return Vote(first[0], counts, unparsed, tuple(first), ORDER)


@dataclass(frozen=True)
class Sample:
    """One text that votes: what was asked, of which form of the question, and what came back.

    `question` may show the choices in another order than the question voted on.
    """

    question: Question
    asked: Asked
    said: Said


def vote(question: Question, samples: Sequence[Sample], ledger: Ledger) -> Vote:
    """The samples' vote; probabilities are asked for only when they are needed to break a tie."""
    given = [sample.said.choice for sample in samples]
    found = majority(question.choices, given)
    if not found.tied:
        return found
    scored = [behind(s.question, s.asked, s.said.text) for s in samples]
    try:
        rows = ledger.score(scored)
    except NoLogprobs:
        return found
    terms: dict[str, list[float]] = {choice: [] for choice in question.choices}
    for sample, row in zip(samples, rows, strict=True):
        for choice, value in zip(sample.question.choices, log_softmax(row), strict=True):
            terms[choice].append(math.exp(value))
    sums = {choice: math.fsum(values) for choice, values in terms.items()}
    return majority(question.choices, given, sums)


def elected(
    question: Question,
    found: Vote,
    samples: Sequence[Sample],
    ledger: Ledger,
    trace: Mapping[str, Any],
) -> Prediction:
    """The prediction of a vote. Its probabilities are the shares of the votes."""
    return Prediction(
        id=question.id,
        choice=found.choice,
        answer=question.answer,
        probabilities=found.shares,
        trace={
            **trace,
            "samples": [sample.said.row() for sample in samples],
            "parse": [sample.said.parse for sample in samples],
            "vote": asdict(found),
            **ledger.trace(question.id),
        },
    )
