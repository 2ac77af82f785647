"""Clean questions against flagged ones: does a score rest on questions the model may have seen?

The flags come from `medexpert data audit --json` of the training files. A higher accuracy on the
flagged questions is what contamination looks like; the flagged may also simply be easier, so this
is evidence, not proof.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medexpert import manifest
from medexpert.evaluate.resume import read_predictions, require_finished
from medexpert.evaluate.run import RESULT
from medexpert.evaluate.statistics import RESAMPLES, Interval, wilson
from medexpert.evaluate.tasks import TASKS
from medexpert.records import Prediction, UserError


def flagged_items(hits: Path, benchmark: str) -> set[str]:
    """Ids of this benchmark's items that an audit's JSON names.

    Raises UserError when it is no audit, or the benchmark was not checked in it: without a check,
    no hit means nothing.
    """
    value = manifest.read_json(hits)
    if not isinstance(value, dict) or not isinstance(value.get("hits"), list):
        raise UserError("not the JSON of an audit: no list 'hits'", where=str(hits),
                        allowed="the output of `medexpert data audit ... --json`")  # fmt: skip
    against = value.get("against")
    told = against.items() if isinstance(against, dict) else ()
    checked = [k for k, v in told if isinstance(v, dict) and v.get("checked")]
    if benchmark not in checked:
        raise UserError(
            f"this audit did not check {benchmark}", where=str(hits),
            allowed=", ".join(checked) or "an audit with checked benchmarks",
        )  # fmt: skip
    return {str(hit["item"]) for hit in value["hits"] if hit.get("benchmark") == benchmark}


def flagged_against_clean(
    folder: Path, hits: Path, *, benchmark: str = "", seed: int = 0
) -> dict[str, Any]:
    """Accuracy on flagged and on clean questions of a finished evaluation, and their difference.

    `benchmark` is its name in the audit, by default the one that the task's items are kept out of
    training data under. Raises UserError as
    :func:`flagged_items`, and when the folder is not finished.
    """
    require_finished(folder)
    result: Mapping[str, Any] = manifest.read_json(folder / RESULT)
    task = TASKS.get(str(result["task"]))
    name = benchmark or (task.kept_out_as if task else str(result["task"]))
    items = flagged_items(hits, name)
    rows = read_predictions(folder)
    asked = {item_of(row.id, items): row.id for row in rows}
    flagged = {identity for item, identity in asked.items() if item in items}
    return {
        "folder": str(folder),
        "audit": str(hits),
        "benchmark": name,
        "flagged_not_asked": len(items - set(asked)),
        **contrast(rows, flagged, seed=seed),
    }


def item_of(question: str, items: Collection[str]) -> str:
    """The benchmark's own id of a question: readers put the collection's name before most of them
    ("bioasq-" and BioASQ's id), the quarantine keeps the ids bare."""
    bare = question.partition("-")[2]
    return bare if bare in items and question not in items else question


def contrast(rows: Sequence[Prediction], flagged: set[str], *, seed: int) -> dict[str, Any]:
    """{flagged, clean, difference, interval, fisher_p}; the last three None when one is empty.

    The difference is flagged - clean. Its interval resamples each part on its own (percentile); the
    test is Fisher's exact one, two-sided, on the table of right and wrong.
    """
    parts = {
        "flagged": [row.correct for row in rows if row.id in flagged],
        "clean": [row.correct for row in rows if row.id not in flagged],
    }
    told: dict[str, Any] = {name: _part(values) for name, values in parts.items()}
    if not parts["flagged"] or not parts["clean"]:
        return {**told, "difference": None, "interval": None, "fisher_p": None}
    from scipy.stats import fisher_exact

    counts = [[sum(part), len(part) - sum(part)] for part in parts.values()]
    generator = np.random.default_rng(seed)
    drawn = [
        generator.binomial(right + wrong, right / (right + wrong), size=RESAMPLES) / (right + wrong)
        for right, wrong in counts
    ]
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    interval = Interval(float(low), float(high), f"bootstrap percentile, {RESAMPLES} resamples")
    return {
        **told,
        "difference": told["flagged"]["accuracy"] - told["clean"]["accuracy"],
        "interval": asdict(interval),
        "fisher_p": float(fisher_exact(np.array(counts))[1]),
    }


def _part(values: Sequence[bool]) -> dict[str, Any]:
    if not values:
        return {"n": 0, "correct": 0, "accuracy": None, "interval": None}
    right = sum(values)
    return {
        "n": len(values),
        "correct": right,
        "accuracy": right / len(values),
        "interval": asdict(wilson(right, len(values))),
    }
