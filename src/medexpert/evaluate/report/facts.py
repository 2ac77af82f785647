"""Read what a run folder holds. A part that is not there yet is named as missing, not an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medexpert import manifest
from medexpert.evaluate.folders import folder_of, name_of
from medexpert.evaluate.resume import read_predictions
from medexpert.evaluate.run import EXAMPLES, RESULT
from medexpert.records import Prediction, UserError, digest

POINTS = ("base", "knowledge", "instruct", "adapt")
STAGES = POINTS[1:]
LINEAGE = ("recipe", "parent_digest", "data_sha256", "steps", "tokens", "seed")
"""Facts that a stage writes both into its manifest and into its model's lineage."""
STRATEGY_ORDER = ("direct", "voc-likelihood", "voc")


@dataclass(frozen=True)
class Result:
    """One finished evaluation: its place, and the content of result.json."""

    point: str
    strategy: str
    folder: Path
    data: Mapping[str, Any]


@dataclass(frozen=True)
class RunFacts:
    """All that a report is made of. `missing` are sentences, in the order a run makes things."""

    folder: Path
    recipe: Mapping[str, Any]
    recipe_hash: str
    data: Mapping[str, Any] | None
    stages: Mapping[str, Mapping[str, Any]]
    logs: Mapping[str, list[Mapping[str, Any]]]
    results: tuple[Result, ...]
    heldout: Mapping[str, Mapping[str, Mapping[str, Any]]]
    missing: tuple[str, ...] = field(default=())

    @property
    def points(self) -> list[str]:
        """Points with a result, in the order of the stages."""
        return sorted({r.point for r in self.results}, key=point_order)

    @property
    def strategies(self) -> list[str]:
        return sorted({r.strategy for r in self.results}, key=strategy_order)

    def result(self, point: str, strategy: str) -> Result | None:
        return next((r for r in self.results if (r.point, r.strategy) == (point, strategy)), None)


def point_order(name: str) -> tuple[int, str]:
    """Sort key: the run's own order, unknown points behind by name."""
    return (POINTS.index(name) if name in POINTS else len(POINTS), name)


def strategy_order(name: str) -> tuple[int, str]:
    """Sort key: `direct` first, unknown strategies behind by name."""
    known = name in STRATEGY_ORDER
    return (STRATEGY_ORDER.index(name) if known else len(STRATEGY_ORDER), name)


def read_run(folder: Path) -> RunFacts:
    """Everything of `folder`. Raises UserError when it is no run folder or holds nothing at all."""
    if not folder.is_dir():
        raise UserError("no such run folder", where=str(folder))
    missing: list[str] = []
    recipe, recipe_hash = _recipe(folder, missing)
    data = _manifest(folder / "data", "data", missing)
    stages: dict[str, Mapping[str, Any]] = {}
    logs: dict[str, list[Mapping[str, Any]]] = {}
    for stage in STAGES:
        if recipe.get(stage, {}).get("enabled", True):
            found = _stage_manifest(folder / stage, stage, missing)
            if found is not None:
                stages[stage] = found
            steps = _log(folder / stage / "log.jsonl")
            if steps:
                logs[stage] = steps
    results = _results(folder, recipe, stages, missing)
    heldout = _heldout(folder)
    if not (recipe or data or stages or logs or results or heldout):
        raise UserError(
            "nothing to report: no recipe.json, data, stage or evaluation here", where=str(folder)
        )
    return RunFacts(
        folder, recipe, recipe_hash, data, stages, logs, tuple(results), heldout, tuple(missing)
    )


def examples(result: Result) -> list[tuple[Mapping[str, Any], Prediction]]:
    """(question text, prediction) of the pool kept by the evaluation, in its fixed order."""
    path = result.folder / EXAMPLES
    if not path.is_file():
        return []
    answers = {p.id: p for p in read_predictions(result.folder)}
    return [
        (item, answers[item["id"]]) for item in manifest.read_json(path) if item["id"] in answers
    ]


def _recipe(folder: Path, missing: list[str]) -> tuple[Mapping[str, Any], str]:
    path = folder / "recipe.json"
    if not path.is_file():
        missing.append("recipe.json: the settings of this run are not known")
        return {}, ""
    value = manifest.read_json(path)
    recipe = value.get("recipe", value) if isinstance(value, dict) else {}
    return recipe, str(value.get("hash") or digest(recipe))


def _manifest(folder: Path, name: str, missing: list[str]) -> Mapping[str, Any] | None:
    try:
        return manifest.read_manifest(folder)
    except UserError as error:
        missing.append(f"{name}: {error.what}")
        return None


def _stage_manifest(folder: Path, stage: str, missing: list[str]) -> Mapping[str, Any] | None:
    """The manifest beside the stage's model, or inside its model folder."""
    for place in (folder, folder / "model"):
        if (place / manifest.MANIFEST).is_file():
            return _manifest(place, stage, missing)
    missing.append(f"{stage}: this stage has not finished")
    return None


def _log(path: Path) -> list[Mapping[str, Any]]:
    """Step events in step order. After a resume the later record of a step counts."""
    steps: dict[int, Mapping[str, Any]] = {}
    if not path.is_file():
        return []
    for line in path.read_bytes().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            # Only a line torn by a stop can be broken; the step is logged again after the resume.
            continue
        if isinstance(event, dict) and event.get("event") == "step":
            steps[int(event["step"])] = event
    return [steps[number] for number in sorted(steps)]


def _results(
    folder: Path,
    recipe: Mapping[str, Any],
    stages: Mapping[str, Mapping[str, Any]],
    missing: list[str],
) -> list[Result]:
    wanted = recipe.get("evaluate", {})
    points = [p for p in wanted.get("points", ()) if recipe.get(p, {}).get("enabled", True)]
    expected = [(point, strategy) for point in points for strategy in wanted.get("strategies", ())]
    present = [
        (path.parent.name, name_of(path.name))
        for path in (folder / "evaluate").glob("*/*")
        if path.is_dir()
    ]
    order = sorted(
        {*expected, *present}, key=lambda pair: (point_order(pair[0]), strategy_order(pair[1]))
    )
    found = []
    for point, strategy in order:
        place = folder / "evaluate" / point / folder_of(strategy)
        try:
            manifest.verify(place)
            data = manifest.read_json(place / RESULT)
        except UserError as error:
            missing.append(f"evaluation of {point} with {strategy}: {error.what}")
            continue
        if _is_stale(data, stages.get(point, {})):
            missing.append(
                f"evaluation of {point} with {strategy}: it measured an earlier model of this stage"
            )
        else:
            found.append(Result(point, strategy, place, data))
    return found


def _is_stale(result: Mapping[str, Any], stage: Mapping[str, Any]) -> bool:
    """Whether the evaluated model's lineage tells of another training than the stage's manifest."""
    lineage = result.get("engine", {}).get("lineage") or {}
    return any(
        name in lineage and name in stage and lineage[name] != stage[name] for name in LINEAGE
    )


def _heldout(folder: Path) -> dict[str, Mapping[str, Mapping[str, Any]]]:
    paths = (folder / "evaluate").glob("*/heldout.json")
    found = {path.parent.name: manifest.read_json(path) for path in paths}
    # An empty file says that the recipe held nothing out.
    return {point: found[point] for point in sorted(found, key=point_order) if found[point]}
