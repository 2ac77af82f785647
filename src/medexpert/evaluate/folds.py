"""PubMedQA's ten cross-validation models on the test: mean ± sd, and the ensemble apart.

Ten folders, each the evaluation of the model trained without one fold. Their mean and sample
standard deviation tell what one such model scores; the ensemble averages the ten models'
probabilities question by question and is one more system, never mixed into the mean.
"""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medexpert import manifest
from medexpert.evaluate import metrics, statistics
from medexpert.evaluate.resume import read_predictions, require_alike, require_finished
from medexpert.evaluate.run import RESULT
from medexpert.records import NO_ANSWER, Prediction, UserError

MUST_AGREE = (
    "task", "task_version", "split", "protocol", "strategy", "strategy_version", "split_digest",
)  # fmt: skip
ENSEMBLE = "ensemble"


def fold_models(folders: Sequence[Path], out: Path, *, seed: int = 0) -> dict[str, Any]:
    """Aggregate finished evaluations of fold models; writes result.json and predictions to `out`.

    `predictions-NAME.json` is the official format (id -> label) of each system, unparsed answers
    left out; `official` says which are complete. `ensemble` is None where a model gives no
    probabilities, macro-F1 where questions have choices of their own. Raises UserError: fewer than
    two folders, one that is not finished, unlike task, version, split, protocol, strategy or
    questions, or one model given twice.
    """
    if len(folders) < 2:
        raise UserError(f"{len(folders)} fold models", allowed="two or more evaluation folders")
    results = [_result(folder) for folder in folders]
    for name in MUST_AGREE:
        for folder, result in zip(folders[1:], results[1:], strict=True):
            alike = "fold models evaluated alike"
            require_alike((name,), result, folder, results[0], folders[0], allowed=alike)
    systems = [_by_id(folder, results[0]["n"]) for folder in folders]
    for folder, system in zip(folders[1:], systems[1:], strict=True):
        if {i: p.answer for i, p in system.items()} != {i: p.answer for i, p in systems[0].items()}:
            raise UserError(f"other questions than {folders[0]}", where=str(folder))
    _no_copies(folders, results)
    classes = results[0].get("labels", "choices") == "choices"
    numbers = [_numbers(system, classes=classes) for system in systems]
    named = {f"fold-{k}": system for k, system in enumerate(systems)}
    together = average(systems)
    if together is not None:
        named[ENSEMBLE] = together
    result = {
        **{name: results[0].get(name) for name in MUST_AGREE},
        "folders": [str(folder) for folder in folders],
        "n": len(systems[0]),
        "folds": numbers,
        "accuracy": _mean_and_sd([row["accuracy"] for row in numbers]),
        "macro_f1": _mean_and_sd([row["macro_f1"] for row in numbers]) if classes else None,
        "ensemble": _with_intervals(together, seed, classes=classes) if together else None,
        "official": {
            name: _official(system) if classes else None for name, system in named.items()
        },
    }
    files = [out / "result.json"]
    out.mkdir(parents=True, exist_ok=True)
    for name, system in named.items():
        files.append(out / f"predictions-{name}.json")
        manifest.write_json(files[-1], _labels(system))
    manifest.write_json(files[0], result)
    manifest.write_manifest(out, key=manifest_key(results), files=files, facts={"n": result["n"]})
    return result


def manifest_key(results: Sequence[Mapping[str, Any]]) -> str:
    """What the aggregate follows from: the keys of its parts."""
    from medexpert.records import digest

    return digest([result["key"] for result in results])


def average(systems: Sequence[Mapping[str, Prediction]]) -> dict[str, Prediction] | None:
    """p_c = mean over the systems of p_c, its argmax the answer (the first choice of equals).

    None when a prediction carries no probabilities: an average over some models is another system
    for every question.
    """
    found = {}
    for identity, first in systems[0].items():
        rows = [system[identity].probabilities for system in systems]
        if not all(rows):
            return None
        shares = {c: math.fsum(row[c] for row in rows) / len(rows) for c in rows[0]}
        found[identity] = Prediction(
            identity, max(shares, key=lambda c: shares[c]), first.answer, shares
        )
    return found


def markdown(result: Mapping[str, Any]) -> str:
    """Mean ± sd of the fold models, and the ensemble in a line of its own."""
    title = ", ".join(str(result[key]) for key in ("task", "split", "protocol", "strategy"))
    lines = [
        f"{title}: {len(result['folds'])} fold models, {result['n']} questions",
        "",
        "| system | accuracy | macro-F1 | unparsed | refused |",
        "|---|---:|---:|---:|---:|",
        f"| one fold model, mean ± sd | {_pair(result['accuracy'])} | {_pair(result['macro_f1'])} "
        f"| {sum(fold['unparsed'] for fold in result['folds'])} in all "
        f"| {sum(fold['refused'] for fold in result['folds'])} in all |",
    ]
    ensemble = result["ensemble"]
    if ensemble is None:
        lines += ["", "No ensemble: not every answer carries probabilities."]
    else:
        low, high = (100 * ensemble["accuracy_interval"][key] for key in ("low", "high"))
        macro = ensemble["macro_f1"]
        lines.append(
            f"| ensemble of them (not in the mean) | {100 * ensemble['accuracy']:.1f} "
            f"({low:.1f} to {high:.1f}) | {'–' if macro is None else f'{100 * macro:.1f}'} "
            f"| {ensemble['unparsed']} | {ensemble['refused']} |"
        )
    return "\n".join(lines)


def _pair(value: Mapping[str, float] | None) -> str:
    return "–" if value is None else f"{100 * value['mean']:.1f} ± {100 * value['sd']:.1f}"


def _result(folder: Path) -> Mapping[str, Any]:
    require_finished(folder)
    found: Mapping[str, Any] = manifest.read_json(folder / RESULT)
    return found


def _by_id(folder: Path, n: int) -> dict[str, Prediction]:
    found = {row.id: row for row in read_predictions(folder)}
    if len(found) != n:
        raise UserError(f"{len(found)} answers, not {n}", where=str(folder))
    return found


def _no_copies(folders: Sequence[Path], results: Sequence[Mapping[str, Any]]) -> None:
    """One model given twice, also as a copy, would make the spread smaller than it is."""
    seen: set[object] = set()
    for folder, result in zip(folders, results, strict=True):
        marks: set[object] = {folder.resolve(), (result["key"], result["model"])}
        if marks & seen:
            raise UserError("given twice", where=str(folder), allowed="each fold model once")
        seen |= marks


def _labels(system: Mapping[str, Prediction]) -> dict[str, str]:
    return {i: p.choice for i, p in system.items() if p.choice != NO_ANSWER}


def _numbers(system: Mapping[str, Prediction], *, classes: bool) -> dict[str, Any]:
    truth = [p.answer for p in system.values()]
    given = [p.choice for p in system.values()]
    return {
        "accuracy": metrics.accuracy(truth, given),
        "macro_f1": metrics.macro_f1(truth, given) if classes else None,
        "unparsed": sum(p.unparsed for p in system.values()),
        "refused": sum(bool(p.refused) for p in system.values()),
    }


def _mean_and_sd(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample standard deviation (n - 1) over the models."""
    return {"mean": plain.fmean(values), "sd": plain.stdev(values)}


def _with_intervals(
    system: Mapping[str, Prediction], seed: int, *, classes: bool
) -> dict[str, Any]:
    numbers = _numbers(system, classes=classes)
    correct = sum(p.correct for p in system.values())
    truth = [p.answer for p in system.values()]
    given = [p.choice for p in system.values()]
    return {
        **numbers,
        "accuracy_interval": asdict(statistics.wilson(correct, len(system))),
        "macro_f1_interval": (
            asdict(statistics.bootstrap_macro_f1(truth, given, seed=seed)) if classes else None
        ),
    }


def _official(system: Mapping[str, Prediction]) -> dict[str, float] | None:
    """The official scorer's numbers; None where an answer is missing, which it refuses."""
    labels = _labels(system)
    if len(labels) < len(system):
        return None
    return metrics.official_score(labels, {i: p.answer for i, p in system.items()})
