"""The conclusion rule against people: PQA-L development items, never a test item.

PQA-L questions are question titles, which state no answer, so what is measured is the conclusion
rule: question + LONG_ANSWER -> label. What a title states itself cannot be measured there.
The rules were made while looking at the 450 items outside dev fold 0 ("tuned_on"); the 50 items of
dev fold 0 ("untouched") were not looked at.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from medexpert.data.construct.conclusions import read
from medexpert.data.readers.pubmedqa import CHOICES, fold_questions, official_split
from medexpert.records import Question, UserError

UNTOUCHED_FOLD = 0


@dataclass(frozen=True)
class OfLabel:
    """One label: items people gave it, how many the rule spoke on, how many times it gave it.

    precision = right / given, coverage = spoken / gold, recall = right / gold; NaN-free: a share of
    nothing is None. `low` and `high` bound precision (Wilson, 95 %).
    """

    gold: int
    spoken: int
    given: int
    right: int
    precision: float | None
    low: float | None
    high: float | None
    coverage: float | None
    recall: float | None


@dataclass(frozen=True)
class Agreement:
    """The rule against gold. `confusion` maps "gold>given" to a count, given "none" = no answer.

    `by_why` holds right and given counts for each way in which the rule decides.
    """

    items: int
    spoken: int
    right: int
    coverage: float | None
    accuracy: float | None
    labels: dict[str, OfLabel]
    confusion: dict[str, int]
    by_why: dict[str, dict[str, int]]


def agreement(questions: Iterable[Question]) -> Agreement:
    """Applies the conclusion rule to items with a long answer and compares with their answers.

    Raises UserError for one of the 500 test items, and for an item without its long answer.
    """
    test = frozenset(official_split().test)
    confusion: Counter[tuple[str, str]] = Counter()
    ways: dict[str, Counter[str]] = {}
    for question in questions:
        if question.id in test or test & set(question.ids.values()):
            raise UserError(f"PubMedQA test item {question.id} must not be read for this")
        if not question.long_answer:
            raise UserError(f"item {question.id} has no long answer")
        reading = read(question.question, question.long_answer)
        confusion[question.answer, reading.answer or "none"] += 1
        if reading.answer:
            way = ways.setdefault(f"{reading.answer}: {reading.why}", Counter())
            way["given"] += 1
            way["right"] += reading.answer == question.answer
    items = sum(confusion.values())
    spoken = sum(n for (_, given), n in confusion.items() if given != "none")
    right = sum(confusion[label, label] for label in CHOICES)
    return Agreement(
        items=items,
        spoken=spoken,
        right=right,
        coverage=_share(spoken, items),
        accuracy=_share(right, spoken),
        labels={label: _of_label(label, confusion) for label in CHOICES},
        confusion={f"{gold}>{given}": n for (gold, given), n in sorted(confusion.items())},
        by_why={way: {k: ways[way][k] for k in ("right", "given")} for way in sorted(ways)},
    )


def _of_label(label: str, confusion: Counter[tuple[str, str]]) -> OfLabel:
    gold = sum(n for (of, _), n in confusion.items() if of == label)
    given = sum(n for (_, to), n in confusion.items() if to == label)
    right = confusion[label, label]
    low, high = _wilson(right, given)
    return OfLabel(
        gold=gold,
        spoken=gold - confusion[label, "none"],
        given=given,
        right=right,
        precision=_share(right, given),
        low=low,
        high=high,
        coverage=_share(gold - confusion[label, "none"], gold),
        recall=_share(right, gold),
    )


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _wilson(right: int, n: int) -> tuple[float | None, float | None]:
    """95 % score interval of a proportion (Wilson 1927)."""
    if not n:
        return None, None
    z = 1.959964
    p, scale = right / n, 1 + z * z / n
    middle = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    return round(middle - half, 4), round(middle + half, 4)


def write_agreement(root: Path, file: Path) -> dict[str, Agreement]:
    """Measures both parts on the PQA-L copy under `root` and writes them to `file` as JSON."""
    tuned_on, untouched = fold_questions(root, UNTOUCHED_FOLD)
    found = {"tuned_on": agreement(tuned_on), "untouched": agreement(untouched)}
    value = {
        "what": "conclusion rule (question + LONG_ANSWER -> label) against human labels, PQA-L",
        "tuned_on": f"450 items outside dev fold {UNTOUCHED_FOLD}: rules were made looking at them",
        "untouched": f"50 items of dev fold {UNTOUCHED_FOLD}: not looked at",
        "test_items_read": 0,
        "figures": {name: asdict(part) for name, part in found.items()},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return found
