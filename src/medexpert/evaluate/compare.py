"""Two results on the same questions: exact McNemar and paired bootstrap, or a refusal with its why.

Unlike task, version, split, protocol or item set never give a number: a difference between two
different sets of questions is not a difference between two systems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medexpert import manifest
from medexpert.evaluate import metrics, statistics
from medexpert.evaluate.resume import read_predictions, require_finished
from medexpert.evaluate.run import RESULT
from medexpert.evaluate.statistics import Interval, McNemar
from medexpert.evaluate.tables import plain_table
from medexpert.records import Prediction, UserError

MUST_AGREE = ("task", "task_version", "split", "protocol")


@dataclass(frozen=True)
class Comparison:
    """Second against first. Differences are second - first, as shares.

    `minimum_net_gain` is the smallest net number of items that exact McNemar would call p < .05 at
    this many discordant items; None when no split of them could be significant. The macro-F1
    fields are None where questions have choices of their own, so that there are no classes.
    """

    first: str
    second: str
    n: int
    accuracy_first: float
    accuracy_second: float
    accuracy_difference: float
    accuracy_interval: Interval
    macro_f1_difference: float | None
    macro_f1_interval: Interval | None
    mcnemar: McNemar
    minimum_net_gain: int | None

    @property
    def minimum_detectable_difference(self) -> float | None:
        """The same as a share of the items."""
        return None if self.minimum_net_gain is None else self.minimum_net_gain / self.n

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with what is computed from the fields."""
        return {
            **asdict(self),
            "discordant": self.mcnemar.discordant,
            "p": self.mcnemar.p,
            "minimum_detectable_difference": self.minimum_detectable_difference,
        }


def told(found: Comparison) -> str:
    """A comparison in lines for the terminal."""
    gap, test = found.accuracy_interval, found.mcnemar
    lines = [
        f"second minus first, on the same {found.n} questions",
        plain_table(
            ("", "folder", ">accuracy"),
            [
                ["first", found.first, f"{100 * found.accuracy_first:.1f} %"],
                ["second", found.second, f"{100 * found.accuracy_second:.1f} %"],
            ],
        ),
        f"difference: {100 * found.accuracy_difference:+.1f} points "
        f"({100 * gap.low:+.1f} to {100 * gap.high:+.1f}, {gap.method} 95 %)",
        f"exact McNemar: {test.gained} gained, {test.lost} lost, p = {test.p:.2g}",
    ]
    if found.macro_f1_difference is not None and found.macro_f1_interval is not None:
        gap = found.macro_f1_interval
        lines.append(
            f"macro-F1 difference: {100 * found.macro_f1_difference:+.1f} points "
            f"({100 * gap.low:+.1f} to {100 * gap.high:+.1f}, {gap.method} 95 %)"
        )
    return "\n".join([*lines, _detectable(found)])


def _detectable(found: Comparison) -> str:
    start, changed = "smallest detectable difference:", found.mcnemar.discordant
    if found.minimum_net_gain is None:
        return (
            f"{start} none; {changed} questions are right in one and wrong in the other, and so "
            "few cannot reach p < .05, all gained or all lost"
        )
    return (
        f"{start} {100 * found.minimum_net_gain / found.n:.1f} points ({found.minimum_net_gain} "
        f"questions net, for p < .05 at {changed} that are right in one and wrong in the other)"
    )


def compare(first: Path, second: Path, *, seed: int = 0) -> dict[str, Any]:
    """:func:`comparison` as a dict that can be printed as JSON."""
    return comparison(first, second, seed=seed).to_dict()


def comparison(first: Path, second: Path, *, seed: int = 0) -> Comparison:
    """Compare two finished evaluation folders.

    Raises UserError when one is not finished or altered, or when task, version, split, protocol,
    the set of questions, a gold answer or a question's text differ.
    """
    results = [_result(first), _result(second)]
    for name in MUST_AGREE:
        _agree(name, results, first, second)
    rows = [_by_id(read_predictions(first)), _by_id(read_predictions(second))]
    _check_items(rows[0], rows[1], first, second)
    # Equal ids and answers may still hide another text (a changed data file).
    _agree("split_digest", results, first, second)
    ids = list(rows[0])
    classes = results[0].get("labels", "choices") == "choices"
    before, after = ([row[i] for i in ids] for row in rows)
    return _compare(before, after, first, second, seed, classes=classes)


def _compare(
    before: Sequence[Prediction],
    after: Sequence[Prediction],
    first: Path,
    second: Path,
    seed: int,
    *,
    classes: bool,
) -> Comparison:
    truth = [row.answer for row in before]
    old, new = [row.choice for row in before], [row.choice for row in after]
    if not classes:  # thousands of texts: only right and wrong are alike between questions
        truth = ["right"] * len(before)
        old, new = (
            ["right" if row.correct else "wrong" for row in rows] for rows in (before, after)
        )
    test = statistics.mcnemar_of([r.correct for r in before], [r.correct for r in after])
    intervals = statistics.paired_bootstrap(truth, old, new, seed=seed)
    return Comparison(
        first=str(first),
        second=str(second),
        n=len(truth),
        accuracy_first=metrics.accuracy(truth, old),
        accuracy_second=metrics.accuracy(truth, new),
        # Whole items before the division, so that no change is exactly zero.
        accuracy_difference=(test.gained - test.lost) / len(truth),
        accuracy_interval=intervals.accuracy,
        macro_f1_difference=(
            metrics.macro_f1(truth, new) - metrics.macro_f1(truth, old) if classes else None
        ),
        macro_f1_interval=intervals.macro_f1 if classes else None,
        mcnemar=test,
        minimum_net_gain=statistics.minimum_detectable_items(test.discordant),
    )


def _result(folder: Path) -> Mapping[str, Any]:
    require_finished(folder)
    result = manifest.read_json(folder / RESULT)
    if not isinstance(result, dict):
        raise UserError("a JSON object is expected", where=str(folder / RESULT))
    return result


def _by_id(rows: Sequence[Prediction]) -> dict[str, Prediction]:
    return {row.id: row for row in rows}


def _agree(name: str, results: Sequence[Mapping[str, Any]], first: Path, second: Path) -> None:
    one, other = (result.get(name) for result in results)
    if one != other:
        raise UserError(
            f"cannot compare: {name} is {one!r} in {first} and {other!r} in {second}",
            allowed="results of one task, version, split and protocol",
        )


def _check_items(
    one: Mapping[str, Prediction], other: Mapping[str, Prediction], first: Path, second: Path
) -> None:
    unmatched = sorted(set(one) ^ set(other))
    if unmatched:
        raise UserError(
            f"cannot compare: {len(one)} questions in {first}, {len(other)} in {second}, "
            f"{len(unmatched)} of them only in one (first: {unmatched[0]})",
            allowed="results on the same questions",
        )
    for item, row in one.items():
        if row.answer != other[item].answer:
            raise UserError(
                f"cannot compare: the gold answer of {item} is {row.answer!r} in {first} and "
                f"{other[item].answer!r} in {second}"
            )
