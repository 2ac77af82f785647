"""Few-shot Voc: whole worked items before the question, in the very form it is asked in.

A worked item is a solved example with an explanation of every choice (written by the same model)
and its gold answer. Gold answers take turns, so that no label is favoured. The items stand before
all prompts of a question; with `pick` "fixed" they are the same for every question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medexpert.prompt import template
from medexpert.prompt.shots import Shots, all_refused, check_refused, too_few
from medexpert.prompt.template import ChatFormat
from medexpert.prompt.voc.case import Case, Desk
from medexpert.prompt.voc.rationales import explained
from medexpert.records import Question

VERIFY = "voc.verify"
_PLAIN = ChatFormat("")


class Worked:
    """The worked items of one run; each example is explained once."""

    def __init__(
        self, examples: Sequence[Question], *, seed: int, open_case: Callable[[Question], Case]
    ) -> None:
        self._shots = Shots(examples, seed=seed)
        self._open = open_case
        self._texts: dict[str, str] = {}
        self._refused: dict[str, str] = {}

    def show(
        self, desk: Desk, cases: Sequence[Case], *, shots: int, pick: str, max_tokens: int
    ) -> None:
        """Fill `shots`, `examples` and `refused_examples`.

        An example that the engine refuses is passed over for the next in order; where none is left
        fewer are shown. Raises UserError when there are too few examples, or all are refused.
        """
        ranked = [self._ranked(case, shots, pick) for case in cases]
        while new := self._unknown(ranked, shots):
            opened = [self._open(question) for question in new]
            refused = explained(desk, opened, k=1, max_tokens=max_tokens)
            self._refused |= refused
            done = [case for case in opened if case.question.id not in refused]
            self._texts |= {case.question.id: _text(case) for case in done}
            check_refused(self._refused, answered=len(self._texts), pool=len(self._shots.pool))
        for case, row in zip(cases, ranked, strict=True):
            found, case.refused_examples = self._chosen(row, shots)
            if not found:
                raise all_refused(case.refused_examples)
            found = found[::-1] if pick == "nearest" else found
            case.shots = "".join(self._texts[q.id] for q in found)
            case.examples = tuple(q.id for q in found)

    def _ranked(self, case: Case, shots: int, pick: str) -> list[Question]:
        """The examples with the question's labels, gold answers in turn."""
        ranked = self._shots.ranked(case.question, pick, balanced=True)
        fitting = [q for q in ranked if self._open(q).named.labels == case.named.labels]
        if len(fitting) < shots:
            raise too_few(case.question, shots, len(fitting))
        return fitting

    def _unknown(self, ranked: Sequence[Sequence[Question]], shots: int) -> list[Question]:
        """Those to be shown that were not explained yet."""
        chosen = {q.id: q for row in ranked for q in self._chosen(row, shots)[0]}
        return [question for name, question in chosen.items() if name not in self._texts]

    def _chosen(
        self, ranked: Sequence[Question], shots: int
    ) -> tuple[list[Question], dict[str, str]]:
        """The first `shots` that are not refused, and why those before them are."""
        found: list[Question] = []
        passed: dict[str, str] = {}
        for question in ranked:
            if len(found) == shots:
                break
            if question.id in self._refused:
                passed[question.id] = self._refused[question.id]
            else:
                found.append(question)
        return found, passed


def _text(case: Case) -> str:
    """The verify prompt of a solved example with its gold answer, and a blank line."""
    label = case.named.label
    fields = {
        "question": case.question.question,
        "evidence": case.evidence,
        "options": case.named.options,
        "rationales": [(label(choice), text) for choice, text in case.shown[0].items()],
    }
    lang = case.question.lang
    (answer,) = template.render_choices(VERIFY, [label(case.question.answer)], lang=lang)
    return template.render_prompt(VERIFY, fields, chat=_PLAIN, lang=lang) + answer + "\n\n"
