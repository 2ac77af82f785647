"""The verbs about measuring: evaluate, ablate, and what is behind a number (probe ...)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medexpert.door import BaseUrl, EngineOptions, RecipeArg, SetOption, say
from medexpert.records import UserError

if TYPE_CHECKING:
    from medexpert.evaluate.against import Against
    from medexpert.evaluate.grid import Outcome
    from medexpert.evaluate_verbs import Opening

probe_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="What is behind a number: calibration, order "
    "and names of the choices, flagged questions, memorised texts.",
)  # fmt: skip
FAILED = 1
"""Exit code when some cells or variants have no result."""

Model = Annotated[
    str, typer.Option(help="model folder, catalogue name, hub id, .gguf or openai:MODEL")
]
Out = Annotated[Path, typer.Option(help="folder for predictions and results")]
Data = Annotated[Path, typer.Option(help="folder that holds the benchmarks")]
Split = Annotated[str, typer.Option(help="test, or a split the task names, as dev-0")]
Protocol = Annotated[str, typer.Option(help="how a task is asked; default: its first protocol")]
Limit = Annotated[int, typer.Option(min=0, help="a fixed sample of N questions; 0 = all")]
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16")]
Batch = Annotated[int, typer.Option(min=1, help="tokens in one forward pass")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 = all cores")]
Seed = Annotated[int, typer.Option(min=0, help="for sampling and the bootstrap")]


def _opening(
    model: str, dtype: str, batch_tokens: int, threads: int, base_url: str,
    options: Sequence[str] | None,
) -> Opening:  # fmt: skip
    from medexpert.evaluate_verbs import Opening

    return Opening(model, dtype, batch_tokens, threads, base_url, tuple(options or ()))


def evaluate(
    model: Model,
    out: Out,
    tasks: Annotated[
        str, typer.Option(help="tasks, groups or file:PATH, with commas between")
    ] = "",
    strategies: Annotated[
        str, typer.Option(help="strategies with their options, with commas between")
    ] = "",
    seeds: Annotated[str, typer.Option(help="seeds, with commas between")] = "",
    task: Annotated[str, typer.Option(help="one task; its result goes to --out itself")] = "",
    strategy: Annotated[str, typer.Option(help="one strategy")] = "",
    seed: Annotated[
        int | None, typer.Option(min=0, help="one seed, for sampling and the bootstrap; default: 0")
    ] = None,
    data: Data = Path(),
    split: Split = "test",
    protocol: Protocol = "",
    limit: Limit = 0,
    dtype: Dtype = "float32",
    batch_tokens: Batch = 4096,
    threads: Threads = 0,
    base_url: BaseUrl = "",
    engine_options: EngineOptions = None,
) -> None:
    """Measure a model on benchmarks; resumable, every answer is on disk as it comes.

    With --tasks, --strategies or --seeds each combination is a folder OUT/TASK/STRATEGY/seed-N;
    complete ones are skipped, one that fails is told and the rest goes on (exit code 1).

    Example: medexpert evaluate --model HuggingFaceTB/SmolLM2-360M-Instruct --data DIR --out r
    --tasks pubmedqa,file:my.jsonl --strategies direct,voc:batch=4 --seeds 0,1

    Example: medexpert evaluate --model runs/demo/adapt/model --task pubmedqa --data DIR
    --strategy direct --limit 50 --out results/mine
    """
    from medexpert.evaluate.grid import Settings
    from medexpert.evaluate_verbs import evaluate_model, listed, numbers

    one_seed = "" if seed is None else str(seed)
    for plural, single, name in (
        (tasks, task, "task"), (strategies, strategy, "strategy"), (seeds, one_seed, "seed"),
    ):  # fmt: skip
        if plural and single:
            raise UserError(f"--{name} and its plural are both given", allowed="one of them")
    outcomes, compared = evaluate_model(
        _opening(model, dtype, batch_tokens, threads, base_url, engine_options),
        tasks=listed(tasks or task or "pubmedqa", "--tasks"),
        strategies=listed(strategies or strategy or "direct", "--strategies"),
        seeds=numbers(seeds, "--seeds") if seeds else [seed or 0],
        settings=Settings(data, out, split, protocol, limit),
        flat=not (tasks or strategies or seeds),
        say=say,
    )
    _show(outcomes, compared, out)


def _show(outcomes: Sequence[Outcome], compared: Sequence[Against], out: Path) -> None:
    from medexpert.evaluate import against
    from medexpert.evaluate.grid import closing_table, conditions

    if len(outcomes) == 1 and outcomes[0].result and outcomes[0].cell.folder == out:
        cell, result = outcomes[0].cell, outcomes[0].result
        interval = result["accuracy_interval"]
        print(
            f"{cell.task.name} {cell.protocol} {cell.strategy}: "
            f"accuracy {100 * result['accuracy']:.1f} % "
            f"({100 * interval['low']:.1f} to {100 * interval['high']:.1f}, "
            f"{interval['method']} 95 %), "
            # Over letters, of questions with choices of their own, macro-F1 says nothing.
            + (f"macro-F1 {100 * result['macro_f1']:.1f}, " if result["choices"] else "")
            + f"n = {result['n']}, unparsed {result['unparsed']}"
            + (f", refused {refused}" if (refused := result.get("refused")) else "")
            + (f" ({told})" if (told := conditions(result)) else "")
            + f"\n{out / 'result.json'}"
        )
    else:
        print(closing_table(outcomes))
        if compared:
            print("\n" + against.plain(compared, outcomes[0].cell.strategy))
        print(out / "summary.json")
    for outcome in outcomes:
        if outcome.result and outcome.result["leaks"]:
            say(f"WARNING: {outcome.cell.name}: the model's training data was not checked "
                "against this benchmark")  # fmt: skip
    failed = [outcome for outcome in outcomes if outcome.result is None]
    for outcome in failed:
        say(f"failed: {outcome.cell.name}: {outcome.error}")
    if failed:
        raise typer.Exit(FAILED)


def ablate(
    recipe: RecipeArg,
    overrides: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="tell what would run and what is there; run nothing")
    ] = False,
) -> None:
    """Run every variant of a recipe's [ablation] that is missing, and print one table.

    Stages that variants share are trained once. A killed ablation goes on where it stopped. A
    variant that fails is told and the others go on (exit code 1).

    Example: medexpert ablate recipes/ablation/demo.toml --dry-run
    """
    from medexpert.ablation_verb import ablate as run_all

    done = run_all(recipe, overrides or (), dry_run=dry_run, say=say)
    print(done.text)
    if done.failed:
        raise typer.Exit(FAILED)


@probe_app.command()
def temperature(
    test: Annotated[Path, typer.Argument(help="a finished evaluation folder of the test split")],
    dev: Annotated[list[Path], typer.Option(help="an evaluation folder of a dev split (repeat)")],
    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON object, with all numbers and curves")
    ] = False,
) -> None:
    """Fit a temperature on dev predictions and show the test split's calibration before and after.

    ECE is that of 10 bins of equal count; the other numbers and the curves are in --json.

    Example: medexpert probe temperature r/test --dev r/dev-0
    """
    from medexpert.evaluate.temperature import calibrate, told

    found = calibrate(test, dev)
    if as_json:
        _print(found)
    else:
        print(told(found))


@probe_app.command()
def flagged(
    folder: Annotated[Path, typer.Argument(help="a finished evaluation folder")],
    audit: Annotated[Path, typer.Option(help="what `medexpert data audit ... --json` wrote")],
    benchmark: Annotated[str, typer.Option(help="its name in the audit; default: the task's")] = "",
) -> None:
    """Accuracy on questions that an audit found in training data, against the clean ones.

    Example: medexpert probe flagged r/test --audit hits.json
    """
    from medexpert.evaluate.subsets import flagged_against_clean

    _print(flagged_against_clean(folder, audit, benchmark=benchmark))


@probe_app.command()
def choices(
    model: Model,
    out: Out,
    task: Annotated[str, typer.Option(help="one task")] = "pubmedqa",
    strategy: Annotated[str, typer.Option(help="one strategy")] = "direct",
    labels: Annotated[
        str, typer.Option(help="names of the choices: words, letters, numbers")
    ] = "words,letters,numbers",
    orders: Annotated[int, typer.Option(min=1, help="orders of the choices to ask in")] = 4,
    data: Data = Path(),
    split: Split = "test",
    protocol: Protocol = "",
    limit: Limit = 100,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    batch_tokens: Batch = 4096,
    threads: Threads = 0,
    base_url: BaseUrl = "",
    engine_options: EngineOptions = None,
) -> None:
    """Ask the same questions with their choices in other orders and under other names.

    Example: medexpert probe choices --model smollm2-135m-instruct --data DIR --out r/choices
    """
    from medexpert.evaluate.grid import Settings
    from medexpert.evaluate_verbs import listed, measure_sensitivity

    found = measure_sensitivity(
        _opening(model, dtype, batch_tokens, threads, base_url, engine_options),
        task=task, strategy=strategy,
        labels=listed(labels, "--labels"), orders=orders,
        settings=Settings(data, out, split, protocol, limit), seed=seed, say=say,
    )  # fmt: skip
    _print(found)


@probe_app.command("min-k")
def min_k(
    model: Model,
    against: Annotated[str, typer.Option(help="other questions: TASK or TASK@SPLIT")],
    task: Annotated[str, typer.Option(help="one task")] = "pubmedqa",
    data: Data = Path(),
    split: Split = "test",
    share: Annotated[float, typer.Option(help="share of the least likely tokens")] = 0.2,
    limit: Limit = 0,
    dtype: Dtype = "float32",
    batch_tokens: Batch = 4096,
    threads: Threads = 0,
    base_url: BaseUrl = "",
    engine_options: EngineOptions = None,
) -> None:
    """Evidence that a model has read a benchmark's texts: Min-K% against other questions.

    Example: medexpert probe min-k --model smollm2-135m-instruct --data DIR --against pubmedqa@dev-0
    """
    from medexpert.evaluate_verbs import measure_memorisation

    found = measure_memorisation(
        _opening(model, dtype, batch_tokens, threads, base_url, engine_options),
        task=task, data=data, against=against,
        split=split, share=share, limit=limit, say=say,
    )  # fmt: skip
    _print(found)


def _print(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
