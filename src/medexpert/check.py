"""`medexpert check`: find every problem of a recipe before an hour is spent.

Reads the recipe's sources, benchmark and base model; estimates tokens, memory, disk and hours for
this machine. The estimates say what they rest on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexpert.recipe import Run, StageName
from medexpert.recipe_train import Stage
from medexpert.records import Example, UserError, digest

if TYPE_CHECKING:
    from medexpert.data.build import Inspection

Say = Callable[[str], None]
CHARACTERS_PER_TOKEN = {"en": 4.3, "zh": 0.75}
"""Measured with the SmolLM2 tokenizer on the starter data; other tokenizers differ."""
EFFICIENCY = 0.4
"""Share of the matmul rate that scoring reaches (measured on two cores)."""


def check(recipe: Run, say: Say) -> str:
    """A readable summary of what the recipe will cost.

    Raises UserError with one line a problem, all at once.
    """
    from medexpert.data.build import inspect_sources

    inspected = inspect_sources(recipe)
    problems = [*inspected.problems, *evaluation_problems(recipe)]
    shape = _base_shape(recipe, say, problems)
    dropped: list[str] = []
    problems += _settings_problems(recipe, say, inspected.examples, dropped, known=not problems)
    if not problems:
        problems += _resource_problems(recipe, shape)
    if problems:
        raise UserError("\n".join(problems))
    return "\n".join(_summary(recipe, shape, inspected.characters, dropped))


def _settings_problems(
    recipe: Run, say: Say, examples: Mapping[StageName, list[Example]], dropped: list[str],
    *, known: bool,
) -> list[str]:  # fmt: skip
    """Settings that cannot train; `known`: the sources and the base model are there and read.

    Adds to `dropped` a line for each stage that will drop some of the sampled `examples`.
    """
    from medexpert.model.base import fetch
    from medexpert.pipeline import Pipeline
    from medexpert.train import untrainable

    if not known:
        return untrainable.problems(recipe, None, {})
    files: dict[StageName, Path] = {}
    pipeline = Pipeline(recipe, say)
    by_task = [name for name in recipe.stages() if recipe.stage(name).method == "cpoly"]
    if by_task and pipeline.data_step().complete():
        files = {name: pipeline.data_file(name) for name in by_task}
    base = fetch(recipe.base.model, revision=recipe.base.revision, progress=say)
    wrong, lost = untrainable.row_problems(recipe, base, examples)
    dropped += lost
    return untrainable.problems(recipe, base, files) + wrong


def require_evaluation(recipe: Run) -> None:
    """Raise UserError if the benchmark of a recipe cannot be run: cheap, so `run` asks it first."""
    if problems := evaluation_problems(recipe):
        raise UserError("\n".join(problems))


def evaluation_problems(recipe: Run) -> list[str]:
    """What is wrong with the [evaluate] part of a recipe and the benchmark's files."""
    from medexpert.evaluate.tasks import task_named
    from medexpert.prompt import strategies

    settings = recipe.evaluate
    problems = []
    for name in settings.strategies:
        try:
            strategies.get(name, where="evaluate.strategies")
        except UserError as error:
            problems.append(str(error))
    try:
        task = task_named(settings.task)
    except UserError as error:
        return [*problems, f"evaluate.task: {error}"]
    try:
        task.check_protocol(settings.protocol)
        task.load(_benchmark_folder(recipe), "test")
    except UserError as error:
        problems.append(str(error))
    return problems


def _benchmark_folder(recipe: Run) -> Path:
    return Path(recipe.evaluate.data or recipe.data.root or ".")


def _base_shape(recipe: Run, say: Say, problems: list[str], *, sized: bool = False) -> Any:
    """The base model's `train.cost.Shape`; None, and a problem more, when it cannot be had.

    `sized`: of a folder its config.json is enough.
    """
    from medexpert.model.base import fetch
    from medexpert.train.cost import read_shape

    here = Path(recipe.base.model).expanduser()
    try:
        if sized and (here / "config.json").is_file():
            return read_shape(here)
        return read_shape(fetch(recipe.base.model, revision=recipe.base.revision, progress=say))
    except UserError as error:
        problems.append(f"base.model: {error}")
        return None


def _resource_problems(recipe: Run, shape: Any) -> list[str]:
    from medexpert.train.cost import disk_bytes
    from medexpert.train.forecast import memory_on, this_machine, what_fits

    problems = []
    stages = [recipe.stage(name) for name in recipe.stages()]
    need = disk_bytes(shape, stages, _tasks(recipe))
    place = recipe.folder().resolve()
    free = shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
    if need > free:
        problems.append(f"{place}: {need / 2**30:.1f} GiB of disk needed, {free / 2**30:.1f} free")
    machine = this_machine(recipe)
    for name in recipe.stages():
        settings = recipe.stage(name)
        length = settings.sequence_length
        if shape.context_length and length > shape.context_length:
            problems.append(
                f"{name}.sequence_length is {length}, but {recipe.base.model} reads at most "
                f"{shape.context_length} tokens"
            )
        held = sum(memory_on(shape, settings, machine, _tasks(recipe)).values())
        if held > machine.memory:
            change = what_fits(shape, settings, machine, _tasks(recipe))
            problems.append(
                f"{name}: about {held / 2**30:.1f} GiB of memory needed by a process, this machine "
                f"has {machine.memory / 2**30:.1f}: set {change}"
            )
    return problems


def _tasks(recipe: Run) -> int:
    """Tasks of a C-Poly stage; where they are the templates in the data, one is reckoned with."""
    return max((len(recipe.stage(name).cpoly.tasks) for name in recipe.stages()), default=0) or 1


def plan(
    recipe: Run, say: Say, *, dollars: float | None = None, euros: float | None = None,
    as_json: bool = False,
) -> str:  # fmt: skip
    """What training costs here and on 1, 8 and 64 H100, as a table or as JSON.

    Where sources are not there yet, stages with max_tokens are planned with that many, and the
    others are told and left out. Raises UserError with one line a problem when no stage can be
    planned, and for the base model.
    """
    from medexpert.data.build import inspect_sources
    from medexpert.train import forecast

    shape = _planned_shape(recipe, say)
    tokens = _planned_tokens(recipe, inspect_sources(recipe), say)
    given = {"dollars": dollars, "euros": euros}
    prices = {name: price for name, price in given.items() if price is not None}
    machines = [forecast.this_machine(recipe), *(forecast.h100(n, **prices) for n in (1, 8, 64))]
    found = forecast.plan(recipe, shape, tokens, machines, tasks=_tasks(recipe))
    if as_json:
        return json.dumps(forecast.as_json(found, machines), indent=2, ensure_ascii=False)
    return forecast.table(found, machines)


def training_hours(recipes: Sequence[Run], say: Say) -> list[dict[str, float]]:
    """Stage -> hours on this machine of each recipe, as `plan` reckons them.

    A stage that cannot be planned is left out, and why is told. Sources that recipes have in common
    are read once.
    """
    from medexpert.data.build import inspect_sources
    from medexpert.train import forecast

    inspected: dict[str, Any] = {}
    told: set[str] = set()

    def once(line: str) -> None:
        if line not in told:
            told.add(line)
            say(line)

    found: list[dict[str, float]] = []
    for recipe in recipes:
        asked = digest([recipe.data.model_dump(mode="json"), recipe.seed, recipe.stages()])
        try:
            shape = _planned_shape(recipe, once)
            if asked not in inspected:
                inspected[asked] = inspect_sources(recipe)
            tokens = _planned_tokens(recipe, inspected[asked], once)
            here = [forecast.this_machine(recipe)]
            stages = forecast.plan(recipe, shape, tokens, here, tasks=_tasks(recipe))
        except UserError as error:
            once(f"hours of training are not estimated: {error}")
            found.append({})
            continue
        found.append({stage.stage: stage.hours for stage in stages})
    return found


def _planned_shape(recipe: Run, say: Say) -> Any:
    problems: list[str] = []
    shape = _base_shape(recipe, say, problems, sized=True)
    if problems:
        raise UserError("\n".join(problems))
    return shape


def _planned_tokens(recipe: Run, inspected: Inspection, say: Say) -> dict[str, int]:
    """Stage -> tokens: by its sources, else its max_tokens. Raises UserError without either."""
    problems, estimate = inspected.problems, inspected.characters
    stages = {name: recipe.stage(name) for name in recipe.stages()}
    if not problems:
        return {name: stage_tokens(name, settings, estimate) for name, settings in stages.items()}
    found: dict[str, int] = {n: s.max_tokens for n, s in stages.items() if s.max_tokens}
    if not found:
        raise UserError("\n".join(problems))
    for problem in problems:
        say(f"not read: {problem}")
    left = ", ".join(name for name in stages if name not in found)
    say("sources are missing: planned with max_tokens, all of it"
        + (f"; left out, because they set none: {left}" if left else ""))  # fmt: skip
    return found


def evaluation_tokens(recipe: Run) -> int:
    """Tokens of the questions that are scored, over all points; generation is not counted."""
    from medexpert.evaluate.sampling import sample
    from medexpert.evaluate.tasks import task_named

    settings = recipe.evaluate
    found = task_named(settings.task).load(_benchmark_folder(recipe), "test")
    questions = sample(found, settings.limit)
    tokens = sum(
        (len(q.question) + sum(map(len, q.contexts))) / CHARACTERS_PER_TOKEN.get(q.lang, 4.0)
        for q in questions
    )
    points = {"base", *recipe.stages()} & set(settings.points)
    return int(tokens * len(points) * ("direct" in settings.strategies))


def stage_tokens(name: StageName, settings: Stage, estimate: dict[str, Any]) -> int:
    """Tokens a stage will read, from the characters of its sources."""
    tokens = sum(n / CHARACTERS_PER_TOKEN.get(lang, 4.0) for lang, n in estimate[name].items())
    wanted = tokens * settings.epochs
    return int(min(wanted, settings.max_tokens) if settings.max_tokens else wanted)


def _summary(
    recipe: Run, shape: Any, estimate: dict[str, Any], dropped: Sequence[str]
) -> list[str]:
    from medexpert.train.cost import disk_bytes
    from medexpert.train.forecast import forecast, matmul_rate, this_machine

    machine = this_machine(recipe)
    lines = [
        f"recipe {recipe.name} ({recipe.hash()}): valid",
        f"base {recipe.base.model}: {shape.total / 1e6:.0f} M parameters",
        f"{'step':10} {'method':7} {'tokens':>10} {'memory':>9} {'time':>9}",
    ]
    total = 0.0
    for name in recipe.stages():
        settings = recipe.stage(name)
        tokens = stage_tokens(name, settings, estimate)
        found = forecast(name, settings, shape, tokens, machine, tasks=_tasks(recipe))
        total += found.hours
        lines.append(
            f"{name:10} {settings.method:7} {tokens:>10} {found.memory / 2**30:>5.1f} GiB "
            f"{found.hours:>7.2f} h"
        )
    tokens = evaluation_tokens(recipe)
    rate = matmul_rate(recipe.evaluate.dtype, recipe.threads) * EFFICIENCY
    scoring = 2 * shape.total * tokens / rate / 3600
    lines.append(f"{'evaluate':10} {'direct':7} {tokens:>10} {'':9} {scoring:>7.2f} h")
    disk = disk_bytes(shape, [recipe.stage(n) for n in recipe.stages()], _tasks(recipe)) / 2**30
    return [
        *lines,
        f"about {total + scoring:.2f} h on this machine, {disk:.1f} GiB of disk",
        *dropped,
        *_grounds(recipe),
        "no problem found",
    ]


def _grounds(recipe: Run) -> list[str]:
    """What the estimates rest on and what they leave out."""
    from medexpert.train.forecast import matmul_rate

    dtypes = sorted(
        {recipe.evaluate.dtype, *(recipe.stage(name).dtype for name in recipe.stages())}
    )
    rates = ", ".join(f"{matmul_rate(d, recipe.threads) / 1e9:.0f} GFLOP/s {d}" for d in dtypes)
    per_token = ", ".join(f"{n} ({lang})" for lang, n in CHARACTERS_PER_TOKEN.items())
    return [
        "tokens rest on the characters of evenly spaced rows, one pass over each source, and on "
        f"{per_token} characters a token, as SmolLM2's tokenizer has on the starter data",
        "time rests on the operations of each architecture and method (scoring: 2 a parameter and "
        f"token at {100 * EFFICIENCY:.0f} %) and the matmul rate measured just now: {rates}; "
        "`medexpert train --plan` tells more",
        "not counted: voc's generated text, held-out text, and reading and writing files",
    ]
