"""Few-shot Voc: whole worked items before the question, in the very form it is asked in.

A worked item is a solved example with an explanation of every choice (written by the same model)
and its gold answer. Gold answers take turns, so that no label is favoured. The items stand before
all prompts of a question; with `pick` "fixed" they are the same for every question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medexpert.prompt import template
from medexpert.prompt.shots import Shots, too_few
from medexpert.prompt.template import ChatFormat
from medexpert.prompt.voc.case import Case, Desk
from medexpert.prompt.voc.rationales import hypothesise
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

    def show(
        self, desk: Desk, cases: Sequence[Case], *, shots: int, pick: str, max_tokens: int
    ) -> None:
        """Fill `shots` and `examples`. Raises UserError when there are too few examples."""
        chosen = [self._chosen(case, shots, pick) for case in cases]
        new = {q.id: q for row in chosen for q in row if q.id not in self._texts}
        opened = [self._open(question) for question in new.values()]
        if opened:
            hypothesise(desk, opened, k=1, max_tokens=max_tokens)
        self._texts |= {case.question.id: _text(case) for case in opened}
        for case, row in zip(cases, chosen, strict=True):
            case.shots = "".join(self._texts[q.id] for q in row)
            case.examples = tuple(q.id for q in row)

    def _chosen(self, case: Case, shots: int, pick: str) -> list[Question]:
        """Of the examples with the question's labels, gold answers in turn."""
        ranked = self._shots.ranked(case.question, pick, balanced=True)
        fitting = [q for q in ranked if self._open(q).named.labels == case.named.labels]
        if len(fitting) < shots:
            raise too_few(case.question, shots, len(fitting))
        found = fitting[:shots]
        return found[::-1] if pick == "nearest" else found


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
