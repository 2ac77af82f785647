"""One prediction set scored by the rules of several harnesses, side by side, with the spread.

The answers are the same in every row; only how they are read and averaged differs. What each
harness would have asked is another matter: rows say nothing about its prompts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medexpert import manifest
from medexpert.evaluate import harness_rules as rules
from medexpert.evaluate import metrics
from medexpert.evaluate.harness_rules import Read
from medexpert.evaluate.resume import read_predictions, require_finished
from medexpert.prompt.options import LETTERS, printed
from medexpert.records import NO_ANSWER, Prediction, Question, UserError

MUST_AGREE = ("task", "task_version", "protocol", "strategy", "strategy_version", "model")
HELM_ROWS = 1000
"""HELM tags every PQA-L row as test, so half of its items are those others train on."""
_UNREAD = Read("", "unread")


@dataclass(frozen=True)
class Answered:
    """What a model said to one question. `logprobs` [K] of the choices, empty = none were scored.

    `text` is None where the model wrote none; "" is an answer that says nothing. `test` = one of
    the official test items. `parsed` is our own reading, a choice or NO_ANSWER. `refused`: the
    engine gave no answer at all, so that no rule has anything to read: wrong by each of them.
    """

    id: str
    choices: tuple[str, ...]
    answer: str
    parsed: str
    text: str | None = None
    logprobs: tuple[float, ...] = ()
    test: bool = True
    refused: bool = False

    @property
    def said(self) -> str:
        """The text to read."""
        return self.text or ""

    @property
    def options(self) -> dict[str, str]:
        """Letter -> text."""
        return dict(zip(LETTERS, printed(self.choices), strict=False))

    @property
    def gold(self) -> str:
        """The letter of the right choice."""
        return LETTERS[self.choices.index(self.answer)]

    @property
    def worded(self) -> bool:
        """Whether the choices are verdict words rather than lettered texts."""
        return set(self.choices) <= {"yes", "no", "maybe"}


@dataclass(frozen=True)
class Row:
    """One harness. `read` counts answers its rule found, `made_up` those it put in their place.

    `f1` is the F1 that harness reports (`f1_kind`), None where it reports none. `accuracy` is None
    where the rule needs what the predictions do not hold; `note` says what.
    """

    harness: str
    n: int
    read: int
    made_up: int
    accuracy: float | None
    f1: float | None = None
    f1_kind: str = ""
    note: str = ""


def table(items: Sequence[Answered]) -> list[Row]:
    """A row for each harness. `items` may hold non-test rows, which only HELM's rule counts.

    Raises UserError for an empty set, or one without a test item.
    """
    test = [item for item in items if item.test]
    if not test:
        raise UserError("no test item among the predictions")
    rows = [_ours(test), _lm_eval(test)]
    if all(item.text is None for item in test):
        names = ("HELM", "Meditron", "Meditron, reasoned", "HuatuoGPT-o1", "MIRAGE")
        note = "needs the text of an answer, and these predictions hold none"
        return [*rows, *(Row(name, len(test), 0, 0, None, note=note) for name in names)]
    return [
        *rows,
        _helm(items),
        _meditron(test, reasoned=False),
        _meditron(test, reasoned=True),
        _huatuo(test),
        _mirage(test),
    ]


def spread(rows: Sequence[Row]) -> float:
    """Largest less smallest accuracy of the rows that have one."""
    found = [row.accuracy for row in rows if row.accuracy is not None]
    return max(found) - min(found)


def _ours(items: Sequence[Answered]) -> Row:
    truth, given = [i.answer for i in items], [i.parsed for i in items]
    read = sum(choice != NO_ANSWER for choice in given)
    f1 = metrics.macro_f1(truth, given) if items[0].worded else None
    kind = "macro" if f1 is not None else ""
    note = "unparsed is counted and wrong"
    return Row("medexpert", len(items), read, 0, metrics.accuracy(truth, given), f1, kind, note)


def _lm_eval(items: Sequence[Answered]) -> Row:
    scored = [item for item in items if item.logprobs]
    if not scored or not all(item.logprobs or item.refused for item in items):
        return Row("lm-eval", len(items), len(scored), 0, None, note="needs label log-probs")
    right = sum(
        item.choices[rules.lm_eval(item.logprobs)] == item.answer for item in scored
    )  # by text: equal texts were told apart when the question was read
    note = "argmax of the labels' log-probs, no text read"
    return Row("lm-eval", len(items), len(scored), 0, right / len(items), note=note)


def _read(items: Sequence[Answered], rule: Callable[[Answered], Read]) -> list[Read]:
    """What a rule makes of every answer: nothing of a question that was refused, not even a guess
    or a default."""
    return [_UNREAD if item.refused else rule(item) for item in items]


def _helm(items: Sequence[Answered]) -> Row:
    found = _read(items, lambda item: rules.helm(item.said, len(item.choices)))
    note = "exact match of the letter"
    if items[0].worded:
        note += f"; of PubMedQA it counts all {HELM_ROWS:,} rows, here {len(items)} items"
    return _row("HELM", items, found, note=note)


def _meditron(items: Sequence[Answered], *, reasoned: bool) -> Row:
    found = _read(
        items, lambda one: rules.meditron(one.said, letters=not one.worded, reasoned=reasoned)
    )
    truth = [(item.answer if item.worded else item.gold).lower() for item in items]
    given = [read.label for read in found]
    name = "Meditron, reasoned" if reasoned else "Meditron"
    note = 'accepts a to e, yes, no: "maybe" is never right' if items[0].worded else "first letter"
    return Row(
        name, len(items), sum(read.how == "read" for read in found), 0,
        metrics.accuracy(truth, given), weighted_f1(truth, given), "weighted by predictions", note,
    )  # fmt: skip


def weighted_f1(truth: Sequence[str], given: Sequence[str]) -> float:
    """F1 averaged with the counts of the *predictions* as weights, as Meditron computes it.

    scikit-learn's weighted F1 takes the gold counts; that harness passes its arguments in the other
    order.
    """
    weights = Counter(given)
    scores = metrics.per_class(truth, given)
    return sum(weights[label] * scores[label]["f1"] for label in weights) / len(given)


def _huatuo(items: Sequence[Answered]) -> Row:
    pairs = [
        (_UNREAD, _UNREAD) if item.refused else rules.huatuo(item.said, item.options)
        for item in items
    ]
    rows = [
        _row("HuatuoGPT-o1", items, [pair[side] for pair in pairs], note=note)
        for side, note in ((0, "the first match scored better"), (1, "the last match scored best"))
    ]
    # Its score is the better of the two, taken on the test itself; of equals the last.
    first, last = (row.accuracy or 0.0 for row in rows)
    return rows[0] if first > last else rows[1]


def _mirage(items: Sequence[Answered]) -> Row:
    found = _read(items, lambda item: rules.mirage(item.said))
    return _row("MIRAGE", items, found, note='"A" where nothing is read')


def _row(name: str, items: Sequence[Answered], found: Sequence[Read], *, note: str) -> Row:
    right = sum(read.label == item.gold for read, item in zip(found, items, strict=True))
    return Row(
        name, len(items),
        read=sum(read.how == "read" for read in found),
        made_up=sum(read.how in ("guessed", "default") for read in found),
        accuracy=right / len(items), note=note,
    )  # fmt: skip


def markdown(rows: Sequence[Row], title: str) -> str:
    """The table as Markdown, the spread below it."""
    lines = [
        f"Rules of several harnesses on one prediction set: {title}",
        "",
        "| harness | items | read | made up | accuracy | F1 | rule |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        accuracy = "–" if row.accuracy is None else f"{100 * row.accuracy:.1f}"
        f1 = "–" if row.f1 is None else f"{100 * row.f1:.1f} ({row.f1_kind})"
        lines.append(
            f"| {row.harness} | {row.n} | {row.read} | {row.made_up} | {accuracy} | {f1} "
            f"| {row.note} |"
        )
    return "\n".join([*lines, "", f"Spread of accuracy: {100 * spread(rows):.1f} points."])


# -- from evaluation folders -------------------------------------------------------------------


def harnesses(
    folder: Path, *, load: Callable[[str, str], Sequence[Question]], more: Sequence[Path] = ()
) -> dict[str, Any]:
    """{"title", "rows", "spread"} of a finished evaluation.

    `load(task, split)` gives the questions behind the predictions (for their choices); `more` are
    folders of other splits of the same task, which only HELM's rule counts. Raises UserError when a
    folder is not finished or belongs to another task.
    """
    result = _result(folder)
    items = _answered(folder, result, load, test=True)
    for other in more:
        found = _result(other)
        unlike = [name for name in MUST_AGREE if found[name] != result[name]]
        if unlike or found["split"] == result["split"]:
            name = unlike[0] if unlike else "split"
            raise UserError(
                f"{name} is {found[name]!r}, beside {result[name]!r}", where=str(other),
                allowed="another split of the same task, answered alike",
            )  # fmt: skip
        items += _answered(other, found, load, test=False)
    if twice := [name for name, n in Counter(item.id for item in items).items() if n > 1]:
        raise UserError(f"question {twice[0]} is there twice", allowed="splits that share none")
    rows = table(items)
    title = ", ".join(str(result[key]) for key in ("task", "protocol", "strategy", "model"))
    return {"title": title, "rows": [asdict(row) for row in rows], "spread": spread(rows)}


def _result(folder: Path) -> Mapping[str, Any]:
    require_finished(folder)
    found: Mapping[str, Any] = manifest.read_json(folder / "result.json")
    return found


def _answered(
    folder: Path,
    result: Mapping[str, Any],
    load: Callable[[str, str], Sequence[Question]],
    *,
    test: bool,
) -> list[Answered]:
    asked = {question.id: question for question in load(result["task"], result["split"])}
    items = []
    for prediction in read_predictions(folder):
        question = asked.get(prediction.id)
        if question is None or question.answer != prediction.answer:
            raise UserError(
                f"question {prediction.id} is not the task's own", where=str(folder),
                allowed="the data these predictions were made on",
            )  # fmt: skip
        items.append(
            Answered(
                prediction.id, question.choices, question.answer, prediction.choice,
                said(prediction), label_logprobs(prediction, question.choices), test,
                bool(prediction.refused),
            )
        )  # fmt: skip
    return items


def said(prediction: Prediction) -> str | None:
    """The text the model generated as its answer: the first sample's, or the first written check's
    (`voc:verdict=generated`); None where it only scored."""
    samples = prediction.trace.get("samples")
    verdict = prediction.trace.get("verdict")
    if samples is None and isinstance(verdict, Mapping):
        samples = verdict.get("checks")
    if isinstance(samples, Sequence) and samples and isinstance(samples[0], Mapping):
        return str(samples[0].get("text", ""))
    text = prediction.trace.get("text")
    return text if isinstance(text, str) else None


def label_logprobs(prediction: Prediction, choices: Sequence[str]) -> tuple[float, ...]:
    """ln p of the choices: as scored, else of the probabilities; () where there are neither."""
    held = prediction.trace.get("logprobs")
    if isinstance(held, Mapping) and set(held) == set(choices):
        return tuple(float(held[choice]) for choice in choices)
    if not prediction.probabilities:
        return ()
    shares = [prediction.probabilities[choice] for choice in choices]
    return tuple(math.log(share) if share > 0 else -math.inf for share in shares)
