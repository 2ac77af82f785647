"""Settings with which a stage cannot train, told without its weights, and before its data.

The rules are training's own functions: this calls them with what is known so early.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medexpert.model.base import quiet
from medexpert.model.exported import base_of
from medexpert.model.opening import open_tokenizer
from medexpert.prompt import template
from medexpert.recipe import Run, StageName
from medexpert.records import Example, UserError, to_json
from medexpert.train import instruct, trackers, watch
from medexpert.train.batches import Account
from medexpert.train.stage import stage_pieces


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


def row_problems(
    recipe: Run, base: Path, examples: Mapping[StageName, Sequence[Example]]
) -> tuple[list[str], list[str]]:
    """(problems, notes), a line each: stages whose rows hold none, or not all, of some examples.

    `base`: the folder of the model. The sample is rendered, tokenised and counted by the stage's
    own function.
    """
    quiet()
    found, notes = list[str](), list[str]()
    for name in recipe.stages():
        sampled = examples.get(name)
        if not sampled:
            continue
        try:
            account = _account(recipe, name, base, sampled)
        except UserError as error:
            found.append(str(error))
            continue
        why = ", ".join(f"{n} {reason}" for reason, n in account.dropped.items())
        what = f"{name}.sequence_length = {recipe.stage(name).sequence_length}: "
        if not account.tokens:
            found.append(f"{what}nothing is left to train on of {len(sampled)} examples: {why}")
        elif why:
            notes.append(f"{what}of {len(sampled)} examples that were tried: {why} (left out)")
    return found, notes


def _account(recipe: Run, name: StageName, base: Path, sampled: Sequence[Example]) -> Account:
    """Where the examples go in a stage that reads them all."""
    settings = recipe.stage(name).model_copy(update={"method": "full", "max_tokens": 0})
    account = Account()
    tokenizer = open_tokenizer(base_of(base))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"data.{name}, a sample"
        lines = "".join(f"{to_json(example)}\n" for example in sampled)
        file.write_text(lines, "utf-8", errors="replace")  # only lengths are asked for
        try:
            for _ in stage_pieces(name, file, tokenizer, settings, account):
                pass
        except UserError as error:
            raise UserError(str(error).replace(f"{folder}/", "")) from None
    return account


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
