"""What a strategy needs of a task beside its questions, and whether the task has it.

All of it is known without a model, so that nobody waits for one to be opened only to be told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medexpert.prompt.asking import evidence
from medexpert.prompt.choices import naming
from medexpert.prompt.reasoning import given_rationale
from medexpert.prompt.shots import too_few
from medexpert.records import Question, UserError


@dataclass(frozen=True)
class Needs:
    """`examples`: so many solved ones before every question, with its labels (`alike`), and with
    the reasoning that came with them (`reasoned`). `context`: one that can be left out. `lender`:
    another question with the same labels. `evidence`: the text that the protocol shows."""

    examples: int = 0
    alike: bool = False
    reasoned: bool = False
    context: bool = False
    lender: bool = False
    evidence: bool = True


def check_needs(
    strategy: Any,
    questions: Sequence[Question],
    *,
    protocol: str,
    examples: Sequence[Question] = (),
) -> None:
    """Raises the UserError that `predict` of a strategy would raise at the first of the questions
    for which something is not there. A strategy that declares no `needs` is not checked."""
    needs: Needs | None = getattr(strategy, "needs", None)
    if needs is None:
        return
    for question in questions:
        shown = evidence(question, protocol) if needs.evidence else ""
        if needs.context and not shown:
            raise no_context(strategy.name, question)
    if needs.examples:
        _check_examples(needs, questions, examples)
    if needs.lender:
        pool = _Pool((*examples, *questions), alike=True)
        for question in questions:
            if not pool.number_for(question):
                raise no_lender(question)


def _check_examples(
    needs: Needs, questions: Sequence[Question], examples: Sequence[Question]
) -> None:
    pool = _Pool(examples, alike=needs.alike)
    for question in questions:
        if (found := pool.number_for(question)) < needs.examples:
            raise too_few(question, needs.examples, found)
    if needs.reasoned and examples and not any(e.long_answer.strip() for e in examples):
        given_rationale(examples[0])


def no_context(strategy: str, question: Question) -> UserError:
    """The error for a strategy that leaves the context out where there is none."""
    return UserError(
        f"{strategy} leaves the context out, and there is none",
        where=f"question {question.id}",
        allowed="a task whose questions have a context, under a protocol that shows it",
    )


def no_lender(question: Question) -> UserError:
    """The error for a question without any other that could lend it explanations."""
    return UserError(
        "no other question with the same labels whose explanations could be shown",
        where=f"question {question.id}",
        allowed="a task with solved examples, or more than one question",
    )


class _Pool:
    """How many of some questions may be shown to another: those of its language (`alike`: and
    labels), less itself and any with the same text."""

    def __init__(self, pool: Sequence[Question], *, alike: bool) -> None:
        self._alike = alike
        self._kind = {question.id: self._told(question) for question in pool}
        self._texts = Counter(self._kind.values())
        self._sizes = Counter(kind for kind, _ in self._kind.values())

    def _told(self, question: Question) -> tuple[tuple[Any, ...], str]:
        labels = naming(question).labels if self._alike else ()
        return (question.lang, labels), " ".join(question.question.split())

    def number_for(self, question: Question) -> int:
        """How many may be shown to this question."""
        own = self._told(question)
        itself = self._kind.get(question.id)
        other_text = itself is not None and itself != own and itself[0] == own[0]
        return self._sizes[own[0]] - self._texts[own] - other_text
