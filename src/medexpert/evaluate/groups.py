"""Tasks that are reported together: macro and micro accuracy of a group, with what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from medexpert.evaluate import statistics
from medexpert.evaluate.tasks import GROUPS
from medexpert.prompt import strategies
from medexpert.records import UserError, unknown_name

MUST_AGREE = ("protocol", "strategy", "strategy_version", "seed", "model", "split", "limit")


def group_score(name: str, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Macro (mean over tasks) and micro (over all questions) accuracy of a group's results.

    `missing` names the members without a result; `complete` is false then, and the numbers are not
    the group's. Raises UserError: an unknown group, no result, a result of no member, two of one
    task, or results that differ in one of MUST_AGREE; unlike seeds are no difference for a strategy
    that no seed changes, and `seed` is then None.
    """
    if name not in GROUPS:
        raise unknown_name("group", name, GROUPS)
    must_agree = MUST_AGREE if _seeded(results) else [key for key in MUST_AGREE if key != "seed"]
    found: dict[str, Mapping[str, Any]] = {}
    for result in results:
        task = str(result["task"])
        if task not in GROUPS[name]:
            raise UserError(f"{task} is no member of {name}", allowed=", ".join(GROUPS[name]))
        if task in found:
            raise UserError(f"two results of {task} in one {name}")
        for key in must_agree:
            if result.get(key) != results[0].get(key):
                raise UserError(
                    f"{name}: {key} is {results[0].get(key)!r} in {results[0]['task']} and "
                    f"{result.get(key)!r} in {task}"
                )
        found[task] = result
    if not found:
        raise UserError(f"no result of {name}", allowed=", ".join(GROUPS[name]))
    correct, n = (sum(int(result[key]) for result in found.values()) for key in ("correct", "n"))
    missing = [task for task in GROUPS[name] if task not in found]
    return {
        "group": name,
        **{key: results[0].get(key) for key in MUST_AGREE},
        "seed": results[0].get("seed") if len({r.get("seed") for r in results}) == 1 else None,
        "tasks": {
            task: {key: result[key] for key in ("n", "correct", "accuracy", "unparsed")}
            for task, result in found.items()
        },
        "missing": missing,
        "complete": not missing,
        "n": n,
        "correct": correct,
        "micro_accuracy": correct / n,
        "micro_interval": asdict(statistics.wilson(correct, n)),
        "macro_accuracy": sum(float(r["accuracy"]) for r in found.values()) / len(found),
    }


def _seeded(results: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a seed may change what these strategies answer; of one unknown here, it may."""
    try:
        return any(strategies.get(str(result["strategy"])).seeded for result in results)
    except UserError:
        return True
