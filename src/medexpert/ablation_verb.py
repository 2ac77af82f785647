"""`medexpert ablate`: the variants of a recipe, run where missing, shared where equal, one table.

Every variant and seed is a run folder of its own, RUN/ablation/VARIANT/seed-N. Before a step is
done, the other folders are asked for a finished one with the same key, which is taken over: so a
stage, a build or an evaluation that variants have in common is made once. All of a step's safety is
the pipeline's: keys, manifests last, resumption after a kill.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexpert import manifest
from medexpert.pipeline import Pipeline, Step
from medexpert.recipe import STAGES, Run, load
from medexpert.records import UserError, digest

if TYPE_CHECKING:
    from medexpert.evaluate.ablation import Trial

Say = Callable[[str], None]
Hours = Callable[[Sequence[Run]], Sequence[Mapping[str, float]]]
"""Recipes -> of each one the hours of its stages; a stage that cannot be told is missing."""
PARTIAL = ".adopting"
FOLDER = "ablation"


@dataclass(frozen=True)
class Variant:
    """A recipe of the ablation and where it runs."""

    name: str
    seed: int
    recipe: Run

    @property
    def title(self) -> str:
        return f"{self.name} seed {self.seed}"

    @property
    def root(self) -> Path:
        return self.recipe.folder()


@dataclass(frozen=True)
class Ablated:
    """What to print, and the variants that failed."""

    text: str
    failed: tuple[str, ...] = ()


def ablate(path: Path, overrides: Sequence[str], *, dry_run: bool, say: Say) -> Ablated:
    """Run what is missing and return the table; with `dry_run` what would be run.

    A variant that fails is told, with the traceback in its error.txt, its lines are "missing", and
    the others go on. Raises UserError for a recipe without axes, or whose variants evaluate
    nothing.
    """
    from medexpert.check import require_evaluation, training_hours
    from medexpert.evaluate.grid import ERROR, failure

    recipe = load(path, overrides)
    variants = expand(recipe)
    if not variants:
        raise UserError(
            "no [ablation.axes] in this recipe",
            where=str(path),
            allowed="[ablation.axes.NAME] with values as in docs/evaluate.md",
        )
    for variant in variants:
        require_evaluation(variant.recipe)
        if not variant.recipe.evaluate.points:
            raise UserError(f"{variant.title} evaluates at no point", where="evaluate.points")
    if dry_run:
        return Ablated(planned(variants, lambda recipes: training_hours(recipes, say)))
    donors = [recipe.folder(), *(variant.root for variant in variants)]
    failed: dict[str, str] = {}
    for number, variant in enumerate(variants, 1):
        say(f"variant {number} of {len(variants)}: {variant.title}")
        try:
            run(variant, donors, say)
        except Exception as error:  # whatever went wrong with one, the others are worth having
            failed[variant.title] = failure(error, variant.root, variant.title, say)
        else:
            (variant.root / ERROR).unlink(missing_ok=True)
    return Ablated(_written(recipe, variants, failed, say), tuple(failed))


def expand(recipe: Run) -> list[Variant]:
    """Every variant with every seed, the reference first."""
    found = []
    for name, overrides in recipe.ablation.variants().items():
        for seed in recipe.ablation.seeds or (recipe.seed,):
            root = recipe.folder() / FOLDER / name / f"seed-{seed}"
            own = {"name": f"{recipe.name}.{name.replace('+', '.')}", "seed": seed,
                   "output": str(root)}  # fmt: skip
            found.append(Variant(name, seed, recipe.changed({**overrides, **own})))
    return found


def run(variant: Variant, donors: Sequence[Path], say: Say) -> None:
    """Every step of a variant: skipped, taken over, or done."""
    pipeline = Pipeline(variant.recipe, say)
    for step in pipeline.steps():
        # The report of a run is about that run; everything else may be another's.
        if step.name != "report" and not step.complete():
            adopt(step, pipeline.root, donors, say)
        pipeline.run([step])


def adopt(step: Step, root: Path, donors: Sequence[Path], say: Say) -> bool:
    """Take over the step from the first of the run folders that has it finished with this key."""
    key, place = step.key(), step.folder.relative_to(root)
    for donor in donors:
        source = donor / place
        if donor == root or not manifest.is_complete(source, key):
            continue
        say(f"{step.name}: taken from {donor}")
        with manifest.disk_errors(step.folder):
            _copy(source, step.folder)
        return True
    return False


def _copy(source: Path, target: Path) -> None:
    """What the finished step's manifest names, and last the manifest itself."""
    names = [*manifest.read_manifest(source)["files"], manifest.MANIFEST]
    (target / manifest.MANIFEST).unlink(missing_ok=True)
    for name in names:
        partial = target / f"{name}{PARTIAL}"
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        _link_or_copy(source / name, partial)
        partial.replace(target / name)


def _link_or_copy(source: Path, target: Path) -> None:
    """Weights are replaced, never written into, so two names for one file are safe and cheap."""
    if source.suffix == ".safetensors":
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copy2(source, target)


def _unknown(recipes: Sequence[Run]) -> list[dict[str, float]]:
    return [{} for _ in recipes]


def planned(variants: Sequence[Variant], hours: Hours = _unknown) -> str:
    """What is complete, what would be run, and what would be taken from another variant.

    `hours` reckons the training of those with a stage to run.
    """
    from medexpert.evaluate.tables import plain_table

    rows, first = list[list[str]](), dict[str, str]()
    for variant in variants:
        pipeline = Pipeline(variant.recipe, lambda line: None)
        marks = _signatures(variant.recipe)
        for step in pipeline.steps():
            mark = marks.get(step.name, "")
            if step.folder.is_dir() and _complete(step):
                state = "complete"
            elif mark and first.get(mark, variant.title) != variant.title:
                state = f"as in {first[mark]}"
            else:
                state = "to run"
            if mark:
                first.setdefault(mark, variant.title)
            rows.append([variant.title, step.name, state])
    due = {title for title, step, state in rows if step in STAGES and state == "to run"}
    recipes = {v.title: v.recipe for v in variants if v.title in due}
    training = dict(zip(recipes, hours(list(recipes.values())), strict=True))
    told: list[tuple[float | None, list[str]]] = [
        (training[title].get(step) if step in STAGES and state == "to run" else None,
         [title, step, state])
        for title, step, state in rows
    ]  # fmt: skip
    table = [[title, step, _hours(step, state, h), state] for h, (title, step, state) in told]
    return f"{plain_table(('variant', 'step', 'hours', 'state'), table)}\n{_counted(told)}"


def _hours(step: str, state: str, hours: float | None) -> str:
    """Hours of a step that is to be run, where they matter: training and evaluation."""
    if hours is not None:
        return f"{hours:.2f}"
    costly = step in STAGES or step.startswith("evaluate")
    return "not estimated" if state == "to run" and costly else ""


def _counted(rows: Sequence[tuple[float | None, Sequence[str]]]) -> str:
    """Planned steps in a line a kind, since an evaluation and a stage are hours of unlike work."""
    kinds: dict[str, Counter[str]] = {}
    sums: dict[str, float] = {}
    unknown: Counter[str] = Counter()
    for hours, (_, step, state) in rows:
        word = step.split()[0]
        kind = {"data": "data", "evaluate": "evaluations", "report": "reports"}.get(word, "stages")
        kinds.setdefault(kind, Counter())[state.split()[0]] += 1
        sums[kind] = sums.get(kind, 0.0) + (hours or 0.0)
        unknown[kind] += _hours(step, state, hours) == "not estimated"
    lines = []
    for kind, seen in kinds.items():
        line = (
            f"{kind}: {seen['to']} to run, {seen['complete']} complete, {seen['as']} as in another"
        )
        if sums[kind]:
            line += f"; about {sums[kind]:.2f} h of training on this machine"
        if unknown[kind]:
            line += f"; hours of {unknown[kind]} not estimated"
        lines.append(line)
    return "\n".join(lines)


def _complete(step: Step) -> bool:
    try:
        return step.complete()
    except UserError:  # what it reads is not there yet
        return False


def _signatures(recipe: Run) -> dict[str, str]:
    """By step what decides it, from the settings alone: equal signatures will give equal keys.

    Two steps may still turn out equal whose signatures differ (a stage's data may be the same under
    unlike settings): the plan promises less sharing than there will be.
    """
    data = digest(["data", recipe.data.model_dump(mode="json"), recipe.seed])
    found = {"data": data}
    points = {"base": digest([recipe.base.model_dump(mode="json")])}
    parent = "base"
    for stage in recipe.stages():
        settings = recipe.stage(stage).model_dump(mode="json")
        evaluation = recipe.evaluate.model_dump(mode="json") if recipe.stage(stage).meter.at else 0
        points[stage] = digest([stage, settings, points[parent], data, recipe.seed, evaluation])
        found[stage] = points[stage]
        parent = stage
    asked = recipe.evaluate.model_dump(mode="json", exclude={"points", "strategies"})
    for point, mark in points.items():
        for strategy in recipe.evaluate.strategies:
            name = f"evaluate {point} {strategy}"
            found[name] = digest([name, asked, mark, recipe.seed])
        name = f"evaluate {point} held-out text"
        found[name] = digest([name, recipe.evaluate.dtype, mark, data])
    return found


def _trials(variants: Sequence[Variant], failed: Mapping[str, str]) -> Iterator[Trial]:
    """Each variant at the last point that it evaluates."""
    from medexpert.evaluate.ablation import Trial

    for variant in variants:
        wanted = variant.recipe.evaluate
        there: list[Any] = ["base", *variant.recipe.stages()]
        point = [name for name in there if name in wanted.points][-1:] or ["base"]
        why = failed.get(variant.title, "")
        yield Trial(variant.name, variant.seed, variant.root, point[0], wanted.strategies, why)


def _written(recipe: Run, variants: Sequence[Variant], failed: Mapping[str, str], say: Say) -> str:
    from medexpert.evaluate import ablation

    found = ablation.lines(list(_trials(variants, failed)))
    files = ablation.write(found, recipe.folder() / FOLDER, title=f"{recipe.name}: ablation")
    for file in files:
        say(f"wrote {file}")
    return f"{ablation.as_text(found)}\n{files[0]}"
