"""A question that the engine refuses is an outcome of its own, and the run goes on.

An endpoint may refuse one prompt for good (a content filter), and a prompt may be longer than the
context, which is never cut. Such a question is asked once more, by itself; refused again, it is
recorded without a choice, with the reason in its trace (`Prediction.refused`), and its batch is
asked without it. Where many in a row are refused, or all there are, no question is at fault but the
engine or how it is set up: the run stops, and none of these is recorded, so that the same command
asks them again.

A solved example that is refused is no question: strategies pass it over, and its name and the
reason stand in the traces of the answers that had to do without it. So it is with a question whose
explanations another one was to borrow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from medexpert.prompt.asking import QuestionRefused
from medexpert.records import NO_ANSWER, Prediction, Question, UserError

IN_A_ROW = 8
"""Where one question in ten is refused, so many follow each other once in 10**8."""
Ask = Callable[[Sequence[Question]], Iterator[Prediction]]
PASSED_OVER = {
    "refused_examples": "solved example",
    "refused_donors": "question to borrow from",
}
"""Key of a trace that holds {id: why} -> what these ids are of."""


def answers(
    ask: Ask, questions: Sequence[Question], *, answered: bool = False
) -> Iterator[Prediction]:
    """One prediction a question, in order: what `ask` yields for it, or its refusal.

    `answered`: some other question of the run was. Raises UserError where IN_A_ROW questions that
    follow each other are refused, or all, and QuestionRefused where it names none of the questions.
    """
    left = deque(questions)
    alone: dict[str, Prediction] = {}  # of questions asked by themselves
    asking = True
    while asking:
        try:
            for answer in ask([question for question in left if question.id not in alone]):
                while left and left[0].id in alone:
                    yield alone[left.popleft().id]
                if left:
                    left.popleft()
                answered = True
                yield answer
            asking = False
        except QuestionRefused as error:
            found = [one for one in left if one.id == error.question and one.id not in alone]
            if not found:
                raise
            alone[error.question] = _once_more(ask, found[0])
            _check_row(left, alone)
    rest = [alone[question.id] for question in left if question.id in alone]
    if rest and not answered and all(one.refused for one in rest):
        raise _too_many(rest)
    yield from rest


def _once_more(ask: Ask, question: Question) -> Prediction:
    """What the question gets by itself: a broken answer of the endpoint is not taken for its last
    word."""
    try:
        (answer,) = ask([question])
    except QuestionRefused as error:
        if error.question != question.id:
            raise
        return Prediction(question.id, NO_ANSWER, question.answer, {}, {"refused": error.why})
    return answer


def _check_row(left: Sequence[Question], alone: Mapping[str, Prediction]) -> None:
    row: list[Prediction] = []
    for question in left:
        one = alone.get(question.id)
        row = [*row, one] if one is not None and one.refused else []
        if len(row) == IN_A_ROW:
            raise _too_many(row)


def _too_many(row: Sequence[Prediction]) -> UserError:
    many = "the only question is" if len(row) == 1 else f"{len(row)} questions in a row are"
    return UserError(
        f"{many} refused, so the model or its settings are at fault, not a question; none of these "
        f"is recorded, and the same command asks them again (question {row[0].id}: "
        f"{row[0].refused})"
    )


def lines(answer: Prediction, known: set[str]) -> Iterator[str]:
    """What is told of an answer: its refusal, and what it had to do without, each once (`known`
    grows by it)."""
    if answer.refused:
        yield f"question {answer.id} is refused: {answer.refused}"
    for key, what in PASSED_OVER.items():
        for name, why in answer.trace.get(key, {}).items():
            line = f"{what} {name} is refused and passed over: {why}"
            if line not in known:
                known.add(line)
                yield line


def passed_over(predictions: Sequence[Prediction]) -> dict[str, int]:
    """How many different ones each key of PASSED_OVER holds; without those that hold none."""
    found = {}
    for key in PASSED_OVER:
        if names := {name for p in predictions for name in p.trace.get(key, ())}:
            found[key] = len(names)
    return found


def told(refused: int) -> str:
    """That so many were refused, and how to ask them again; "" where none was."""
    return f" ({refused} refused: another --out asks again)" if refused else ""
