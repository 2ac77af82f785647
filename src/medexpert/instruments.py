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
    meter = pipeline.recipe.stage(stage).meter
    inputs = []
    if meter.stop_general:
        inputs.append(manifest.sha256_file(pipeline.data_file("heldout")))
    if meter.select != "last":
        from medexpert.evaluate.tasks import task_named

        task = task_named(pipeline.recipe.evaluate.task)
        fold = task.load(pipeline.benchmark_folder(), f"dev-{dev_fold(pipeline)}")
        inputs.append(digest([asdict(question) for question in fold]))
    return inputs


def dev_fold(pipeline: Pipeline) -> int:
    """The fold that stage 3 does not train on."""
    used = (s.fold for s in pipeline.recipe.data.adapt if s.source == "pubmedqa")
    return next(used, 0)


def of_stage(pipeline: Pipeline, stage: StageName) -> dict[str, Any]:
    """`heldout` and `dev` of `train.watch.Instruments`, where the stage's meter asks for them."""
    from medexpert.engines.local import LocalEngine
    from medexpert.evaluate.tasks import task_named
    from medexpert.evaluate.while_training import dev_meter, heldout_meter

    settings, meter = pipeline.recipe.evaluate, pipeline.recipe.stage(stage).meter

    def engine(model: Any, tokenizer: Any) -> LocalEngine:
        return LocalEngine(model, tokenizer, batch_tokens=settings.batch_tokens)

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
