"""Settings with which a stage cannot train, told without its weights, and before its data.

The rules are training's own functions: this calls them with what is known so early.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medexpert.prompt import template
from medexpert.recipe import Run, StageName
from medexpert.records import UserError
from medexpert.train import instruct, trackers, watch


def problems(recipe: Run, base: Path | None, data: dict[StageName, Path]) -> list[str]:
    """One line a problem of the stages' settings.

    `base`: folder of the model, None when it is not known; `data`: files built for this recipe.
    Without a stage's file its tasks are held against all templates, so a task or a merge of a
    template that the data turns out to lack is found by training only.
    """
    found = _told(lambda: trackers.require_tracker(recipe.tracker))
    for name in recipe.stages():
        meter = recipe.stage(name).meter
        found += _told(lambda name=name, meter=meter: watch.check_meter(name, meter))
        found += _told(lambda name=name: _check_tasks(recipe, name, data.get(name)))
        if base is not None and recipe.stage(name).freeze:
            found += _told(lambda name=name: _check_freeze(recipe, name, base), f"{name}.")
    return found


def _told(check: Callable[..., Any], before: str = "") -> list[str]:
    try:
        check()
    except UserError as error:
        return [f"{before}{error}"]
    return []


def _check_tasks(recipe: Run, name: StageName, data: Path | None) -> None:
    settings = recipe.stage(name)
    if settings.method != "cpoly":
        return
    if data is not None:
        tasks = instruct.task_names(data, settings)
    else:
        sources = [source.source for source in recipe.sources(name)]
        where, tasks = f"{name}.cpoly.tasks", tuple(settings.cpoly.tasks or template.names())
        instruct.check_tasks(settings.cpoly, sources, where, possible=template.names())
    instruct.merged_task(settings.cpoly, tasks, name)


def _check_freeze(recipe: Run, name: StageName, base: Path) -> None:
    """Freezes what the stage would, adapter and all, in a model on the meta device."""
    from medexpert.model.adapters import ADAPTERS, freeze
    from medexpert.train.cost import weightless

    settings = recipe.stage(name)
    model = weightless(base)
    if settings.method != "full":
        # 4-bit weights need a GPU's library; their parameters have the names of plain ones.
        method = "lora" if settings.method == "qlora" else settings.method
        tasks = tuple(settings.cpoly.tasks) or ("task",)
        model = ADAPTERS[method](model, settings, recipe.seed, tasks=tasks)
    freeze(model, settings.freeze)
