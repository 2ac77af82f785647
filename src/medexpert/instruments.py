"""What a stage may measure while it trains, wired from evaluation and engines to training."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from medexpert import manifest
from medexpert.recipe import StageName
from medexpert.records import digest

if TYPE_CHECKING:
    from medexpert.pipeline import Pipeline


def measured_on(pipeline: Pipeline, stage: StageName) -> list[str]:
    """Digests of what a stage is stopped or selected by: part of what it learns from."""
    meter, settings = pipeline.recipe.stage(stage).meter, pipeline.recipe.evaluate
    inputs = []
    if meter.stop_general:
        text = manifest.sha256_file(pipeline.data_file("heldout"))
        inputs.append(digest([text, pipeline.roles()]))
    if meter.select != "last":
        from medexpert.evaluate.tasks import task_named
        from medexpert.prompt import strategies

        task = task_named(settings.task)
        fold = task.load(pipeline.benchmark_folder(), f"dev-{dev_fold(pipeline)}")
        asked = strategies.get("direct", where="meter.select").version
        how = [settings.task, task.version, settings.protocol, asked]
        inputs.append(digest([how, [asdict(question) for question in fold]]))
    return inputs


def dev_fold(pipeline: Pipeline) -> int:
    """The fold that stage 3 does not train on."""
    return pipeline.recipe.data.dev_fold


def of_stage(pipeline: Pipeline, stage: StageName) -> dict[str, Any]:
    """`heldout` and `dev` of `train.watch.Instruments`, where the stage's meter asks for them."""
    from medexpert.engines.local import LocalEngine
    from medexpert.evaluate.tasks import task_named
    from medexpert.evaluate.while_training import dev_meter, heldout_meter
    from medexpert.train.infill import reading

    settings, meter = pipeline.recipe.evaluate, pipeline.recipe.stage(stage).meter
    # Asked as the finished stage will be: what a prefix model is given is read both ways.
    lineage = {"attention": reading(pipeline.recipe.stage(stage))}

    def engine(model: Any, tokenizer: Any) -> LocalEngine:
        return LocalEngine(model, tokenizer, batch_tokens=settings.batch_tokens, lineage=lineage)

    found: dict[str, Any] = {}
    if meter.at:
        text = pipeline.data_file("heldout")
        if text.stat().st_size:
            found["heldout"] = heldout_meter(engine, text, pipeline.roles())
    if meter.select != "last":
        found["dev"] = dev_meter(
            engine, task_named(settings.task), pipeline.benchmark_folder(), dev_fold(pipeline),
            protocol=settings.protocol, seed=pipeline.recipe.seed,
        )  # fmt: skip
    return found
