"""Solved examples before a question: which ones, in which order, and as what text.

`fixed` shows the same examples before every question (their text is then encoded once), in the
order of a hash of seed and id; `nearest` shows those most like the question by `similar.py`, the
most similar last, next to the question. With `balanced` the gold answers take turns: the first of
each, then the second of each, so that no answer is favoured by being shown more often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medexpert.prompt.similar import Similar
from medexpert.records import Question, UserError, digest, unknown_name

PICKS = ("fixed", "nearest")
MOST_REFUSED = 8
"""Where one example in ten is refused, so many follow each other once in 10**8."""


def check_shots(strategy: str, shots: int, pick: str = "fixed") -> None:
    """Raises UserError for a number or a way to pick that does not exist."""
    if shots < 0:
        raise UserError(f"option shots of {strategy}: {shots}", allowed="0 or more")
    if pick not in PICKS:
        raise unknown_name(f"pick of {strategy}", pick, PICKS)


class Shots:
    """The solved examples a strategy may show, ready to be ranked for any question."""

    def __init__(self, examples: Sequence[Question], *, seed: int) -> None:
        # An order of their own, so that which come first does not depend on how they were read.
        self.pool = sorted(examples, key=lambda q: (digest([seed, q.id]), q.id))
        self._similar: Similar | None = None

    def ranked(self, question: Question, pick: str, *, balanced: bool = False) -> list[Question]:
        """All examples that may be shown to this question, the first choice first.

        Out are those of another language, the question itself and any with the same question text:
        its answer would be given away.
        """
        order: Sequence[int] = range(len(self.pool))
        if pick == "nearest":
            if self._similar is None:
                self._similar = Similar([_text(example) for example in self.pool])
            order = self._similar.ranked(_text(question))
        found = [self.pool[at] for at in order if _may_be_shown(self.pool[at], question)]
        return _taking_turns(found) if balanced else found

    def chosen(
        self, question: Question, shots: int, pick: str, *, balanced: bool = False
    ) -> list[Question]:
        """`shots` examples in the order they are shown. Raises UserError when there are fewer."""
        if not shots:
            return []
        found = self.ranked(question, pick, balanced=balanced)[:shots]
        if len(found) < shots:
            raise too_few(question, shots, len(found))
        return found[::-1] if pick == "nearest" else found


def _text(question: Question) -> str:
    """What is compared: question, choices and contexts."""
    return "\n".join((question.question, *question.choices, *question.contexts))


def too_few(question: Question, wanted: int, found: int) -> UserError:
    """The error for a task without enough solved examples."""
    return UserError(
        f"{wanted} solved examples are to be shown and {found} can be",
        where=f"question {question.id}",
        allowed="fewer shots, or a task with more solved examples of another split",
    )


def check_refused(refused: Mapping[str, str], *, answered: int, pool: int) -> None:
    """Raises UserError where the engine has refused every one of many solved examples, or of all
    `pool` there are: then no example is at fault, but the engine or how it is set up.

    `refused` is {example id: why}; `answered` counts the others that were asked.
    """
    if refused and not answered and len(refused) >= min(MOST_REFUSED, pool):
        raise all_refused(refused)


def all_refused(refused: Mapping[str, str]) -> UserError:
    """The error for solved examples none of which can be shown."""
    name, why = next(iter(refused.items()))
    many = "the only one is" if len(refused) == 1 else f"all {len(refused)} asked are"
    return UserError(
        f"no solved example can be shown: {many} refused (example {name}: {why})",
        allowed="a strategy without worked examples, or an engine that answers them",
    )


def _may_be_shown(example: Question, question: Question) -> bool:
    if example.lang != question.lang or example.id == question.id:
        return False
    return example.question.split() != question.question.split()


def _taking_turns(ranked: Sequence[Question]) -> list[Question]:
    """The ranked examples, gold answers in turn, those of one answer in their order.

    The answer is the word where examples share their choices, else its place among them.
    """
    by_answer: dict[str, list[Question]] = {}
    same = len({example.choices for example in ranked}) == 1
    for example in ranked:
        key = example.answer if same else str(example.choices.index(example.answer))
        by_answer.setdefault(key, []).append(example)
    columns = list(by_answer.values())
    longest = max(map(len, columns), default=0)
    return [column[k] for k in range(longest) for column in columns if k < len(column)]
