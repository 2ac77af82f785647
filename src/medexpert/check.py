"""`medexpert check`: find every problem of a recipe before an hour is spent.

Reads the recipe's sources, benchmark and base model; estimates tokens, memory, disk and hours for
this machine. The estimates say what they rest on.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from medexpert.recipe import Run, StageName
from medexpert.recipe_train import Stage
from medexpert.records import UserError

Say = Callable[[str], None]
CHARACTERS_PER_TOKEN = {"en": 4.3, "zh": 0.75}
"""Measured with the SmolLM2 tokenizer on the starter data; other tokenizers differ."""
EFFICIENCY = 0.4
"""Share of the matmul rate that training reaches here (measured: 0.36 to 0.45 on two cores)."""
FULL_BYTES = {"bfloat16": 18, "float32": 20}
"""Bytes a trained parameter: weight 2 or 4, fp32 master 4, gradient 4, AdamW moments 8."""


def check(recipe: Run, say: Say) -> str:
    """A readable summary of what the recipe will cost.

    Raises UserError with one line a problem, all at once.
    """
    from medexpert.data.build import inspect_sources

    problems: list[str] = []
    found, estimate = inspect_sources(recipe)
    problems += found
    problems += evaluation_problems(recipe)
    shape = _base_shape(recipe, say, problems)
    if not problems:
        problems += _resource_problems(recipe, shape)
    if problems:
        raise UserError("\n".join(problems))
    return "\n".join(_summary(recipe, shape, estimate))


def require_evaluation(recipe: Run) -> None:
    """Raise UserError if the benchmark of a recipe cannot be run: cheap, so `run` asks it first."""
    if problems := evaluation_problems(recipe):
        raise UserError("\n".join(problems))


def evaluation_problems(recipe: Run) -> list[str]:
    """What is wrong with the [evaluate] part of a recipe and the benchmark's files."""
    from medexpert.evaluate.tasks import TASKS
    from medexpert.prompt import STRATEGIES
    from medexpert.records import unknown_name

    settings = recipe.evaluate
    problems = [
        str(unknown_name("strategy", name, STRATEGIES, where="evaluate.strategies"))
        for name in settings.strategies
        if name not in STRATEGIES
    ]
    if settings.task not in TASKS:
        return [*problems, str(unknown_name("task", settings.task, TASKS, where="evaluate.task"))]
    try:
        task = TASKS[settings.task]
        task.check_protocol(settings.protocol)
        task.load(_benchmark_folder(recipe), "test")
    except UserError as error:
        problems.append(str(error))
    return problems


def _benchmark_folder(recipe: Run) -> Path:
    return Path(recipe.evaluate.data or recipe.data.root or ".")


def _base_shape(recipe: Run, say: Say, problems: list[str]) -> dict[str, Any]:
    from medexpert.model.base import describe, fetch

    try:
        folder = fetch(recipe.base.model, revision=recipe.base.revision, progress=say)
        return describe(folder)
    except UserError as error:
        problems.append(f"base.model: {error}")
        return {}


def trained_parameters(settings: Stage, shape: dict[str, Any]) -> int:
    """Trainable parameters of a stage. LoRA on all linear layers: rank x (inputs + outputs)."""
    if settings.method == "full":
        return int(shape["parameters"])
    return int(settings.lora.rank * shape["linear_in_plus_out"])


def memory_bytes(settings: Stage, shape: dict[str, Any]) -> int:
    """Peak of a stage: weights, masters, gradients, moments, activations, one chunk of logits."""
    moving = trained_parameters(settings, shape)
    still = 0 if settings.method == "full" else int(shape["parameters"]) * 4
    tokens = settings.sequence_length * settings.micro_rows
    activations = tokens * int(shape["layers"]) * int(shape["hidden"]) * 2 * 34
    attention = settings.micro_rows * settings.sequence_length**2 * 4 * int(shape["layers"])
    logits = 256 * int(shape["vocabulary"]) * 12
    return moving * FULL_BYTES[settings.dtype] + still + activations + attention + logits


def disk_bytes(recipe: Run, shape: dict[str, Any]) -> int:
    """Run folder at its fullest: a fp32 model a stage, three checkpoints of the largest stage."""
    sizes = [trained_parameters(recipe.stage(name), shape) * 12 for name in recipe.stages()]
    return len(sizes) * int(shape["parameters"]) * 4 + 3 * max(sizes, default=0)


def _resource_problems(recipe: Run, shape: dict[str, Any]) -> list[str]:
    problems = []
    need = disk_bytes(recipe, shape)
    place = recipe.folder().resolve()
    free = shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
    if need > free:
        problems.append(f"{place}: {need / 2**30:.1f} GiB of disk needed, {free / 2**30:.1f} free")
    memory = _machine_memory()
    context = int(shape["context_length"])
    for name in recipe.stages():
        length = recipe.stage(name).sequence_length
        if context and length > context:
            problems.append(
                f"{name}.sequence_length is {length}, but {recipe.base.model} reads at most "
                f"{context} tokens"
            )
        need = memory_bytes(recipe.stage(name), shape)
        if need > memory:
            problems.append(
                f"{name}: about {need / 2**30:.1f} GiB of memory needed, this machine has "
                f"{memory / 2**30:.1f}: lower {name}.sequence_length or micro_rows, or use LoRA"
            )
    return problems


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def evaluation_tokens(recipe: Run) -> int:
    """Tokens of the questions that are scored, over all points; generation is not counted."""
    from medexpert.evaluate.tasks import TASKS

    settings = recipe.evaluate
    questions = TASKS[settings.task].load(_benchmark_folder(recipe), "test")
    questions = questions[: settings.limit or None]
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


@cache
def matmul_rate(dtype: str, threads: int) -> float:
    """Measured multiply-adds x 2 a second of this machine's CPU, over about half a second."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    kind = {"bfloat16": torch.bfloat16, "float32": torch.float32}[dtype]
    size = 768
    left, right = (torch.randn(size, size).to(kind) for _ in range(2))
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < 0.5:
        left @ right
        done += 1
    return done * 2 * size**3 / (time.perf_counter() - started)


def _summary(recipe: Run, shape: dict[str, Any], estimate: dict[str, Any]) -> list[str]:
    lines = [
        f"recipe {recipe.name} ({recipe.hash()}): valid",
        f"base {recipe.base.model}: {int(shape['parameters']) / 1e6:.0f} M parameters",
        f"{'step':10} {'method':7} {'tokens':>10} {'memory':>9} {'time':>9}",
    ]

    def hours(passes: int, tokens: int, dtype: str) -> float:
        rate = matmul_rate(dtype, recipe.threads) * EFFICIENCY
        return passes * int(shape["parameters"]) * tokens / rate / 3600

    total = 0.0
    for name in recipe.stages():
        settings = recipe.stage(name)
        tokens = stage_tokens(name, settings, estimate)
        time_needed = hours(6 if settings.method == "full" else 4, tokens, settings.dtype)
        total += time_needed
        memory = memory_bytes(settings, shape) / 2**30
        lines.append(
            f"{name:10} {settings.method:7} {tokens:>10} {memory:>5.1f} GiB {time_needed:>7.2f} h"
        )
    tokens = evaluation_tokens(recipe)
    time_needed = hours(2, tokens, recipe.evaluate.dtype)
    lines.append(f"{'evaluate':10} {'direct':7} {tokens:>10} {'':9} {time_needed:>7.2f} h")
    disk = disk_bytes(recipe, shape) / 2**30
    return [
        *lines,
        f"about {total + time_needed:.2f} h on this machine's CPU, {disk:.1f} GiB of disk",
        *_grounds(recipe),
        "no problem found",
    ]


def _grounds(recipe: Run) -> list[str]:
    """What the estimates rest on and what they leave out."""
    dtypes = sorted(
        {recipe.evaluate.dtype, *(recipe.stage(name).dtype for name in recipe.stages())}
    )
    rates = ", ".join(f"{matmul_rate(d, recipe.threads) / 1e9:.0f} GFLOP/s {d}" for d in dtypes)
    per_token = ", ".join(f"{n} ({lang})" for lang, n in CHARACTERS_PER_TOKEN.items())
    return [
        "tokens rest on the characters of evenly spaced rows, one pass over each source, and on "
        f"{per_token} characters a token, as SmolLM2's tokenizer has on the starter data",
        "time rests on 6 operations a parameter and token (LoRA 4, scoring 2) at "
        f"{100 * EFFICIENCY:.0f} % of the matmul rate measured just now: {rates}",
        "not counted: voc's generated text, held-out text, and reading and writing files",
    ]
