"""The door to what stands beside a single score: two scores compared, harnesses, folds, groups,
open questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medexpert.door import BaseUrl, EngineOptions, say
from medexpert.records import UserError

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object")]
JudgeUrl = Annotated[
    str, typer.Option(help="address of the endpoint of --judge openai:MODEL; a judge named as the "
                      "model, without settings of its own, is the model with its settings")
]  # fmt: skip
JudgeOptions = Annotated[
    list[str] | None,
    typer.Option("--judge-option", metavar="NAME=VALUE", help="as --engine-option, for the judge "
                 "(repeatable)"),
]  # fmt: skip


def compare(
    first: Annotated[Path, typer.Argument(help="an evaluation folder")],
    second: Annotated[Path, typer.Argument(help="another, of the same task and protocol")],
    as_json: AsJson = False,
) -> None:
    """Compare two evaluations of the same questions: exact McNemar and paired bootstrap.

    Example: medexpert compare runs/demo/evaluate/base/direct runs/demo/evaluate/adapt/direct
    """
    from medexpert.evaluate.compare import comparison, told

    found = comparison(first, second)
    print(json.dumps(found.to_dict(), indent=2) if as_json else told(found))


def harnesses(
    folder: Annotated[Path, typer.Argument(help="an evaluation folder, answers generated")],
    data: Annotated[
        Path, typer.Option(help="folder that holds the benchmark, or your own file of questions")
    ] = Path(),
    more: Annotated[
        list[Path] | None, typer.Option(help="folders of other splits, which HELM counts too")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score one prediction set by the rules of several harnesses, and tell the spread.

    Example: medexpert harnesses runs/demo/evaluate/adapt/cot --data DIR
    """
    from medexpert.score_verbs import harness_table

    print(harness_table(folder, data=data, more=more or [], as_json=as_json))


def folds(
    folders: Annotated[list[Path], typer.Argument(help="evaluation folders, one a fold model")],
    out: Annotated[Path, typer.Option(help="folder for result.json and predictions")],
) -> None:
    """Cross-validation models on the test: mean and sd, and their ensemble apart.

    Example: medexpert folds runs/fold-0/evaluate/adapt/direct runs/fold-1/evaluate/adapt/direct
    --out results/folds
    """
    from medexpert.score_verbs import fold_table

    print(fold_table(folders, out=out))


def groups(
    name: Annotated[str, typer.Argument(help="mmlu-medical, mmlu-general or cmmlu-medical")],
    folders: Annotated[list[Path], typer.Argument(help="evaluation folders, one a member")],
) -> None:
    """Macro and micro accuracy of a group of tasks, with the members that are missing.

    Example: medexpert groups mmlu-general results/mmlu-sociology results/mmlu-computer_security
    """
    from medexpert.score_verbs import group_json

    print(group_json(name, folders))


def free(
    model: Annotated[
        str, typer.Option(help="model folder, catalogue name, hub id, .gguf or openai:MODEL")
    ],
    out: Annotated[Path, typer.Option(help="folder for predictions and result.json")],
    task: Annotated[str, typer.Option(help="liveqa-med or medicationqa-a")] = "liveqa-med",
    data: Annotated[Path, typer.Option(help="folder that holds the benchmark")] = Path(),
    judge: Annotated[
        str, typer.Option(help="a model that grades the answers; names as for --model")
    ] = "",
    limit: Annotated[int, typer.Option(min=0, help="N questions, a fixed sample; 0 = all")] = 0,
    max_tokens: Annotated[int, typer.Option(min=1, help="of one answer")] = 256,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16")] = "float32",
    batch_tokens: Annotated[int, typer.Option(min=1, help="tokens in one forward pass")] = 4096,
    seed: Annotated[int, typer.Option(min=0, help="for the bootstrap")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = all cores")] = 0,
    base_url: BaseUrl = "",
    engine_options: EngineOptions = None,
    judge_base_url: JudgeUrl = "",
    judge_options: JudgeOptions = None,
    as_json: AsJson = False,
) -> None:
    """Ask open questions; scores overlap with reference answers and, with --judge, grades.

    Example: medexpert free --model smollm2-135m-instruct --task liveqa-med --data DIR --out FOLDER

    Example: medexpert free --model runs/demo/adapt/model --data DIR --out FOLDER
    --judge openai:big-model --judge-base-url http://localhost:8000/v1
    """
    from medexpert.evaluate.open_ended import told
    from medexpert.evaluate_verbs import Opening
    from medexpert.score_verbs import answer_freely, judge_opening

    given = [name for name, value in (("--judge-base-url", judge_base_url),
             ("--judge-option", judge_options)) if value]  # fmt: skip
    if given and not judge:
        raise UserError(f"{given[0]} without a judge", where="free", allowed="with --judge MODEL")
    opening = Opening(model, dtype, batch_tokens, threads, base_url, tuple(engine_options or ()))
    grader = judge_opening(opening, judge, judge_base_url, judge_options or ()) if judge else None
    result = answer_freely(
        opening, grader, task=task, data=data, limit=limit, max_tokens=max_tokens, out=out,
        seed=seed, say=say,
    )  # fmt: skip
    if as_json:
        shown = ("kind", "task", "model", "judge", "n", "empty", "cut_off", "scores")
        print(json.dumps({name: result[name] for name in shown}, ensure_ascii=False, indent=2))
    else:
        print(f"{told(result)}\n{out / 'result.json'}")


def add_to(app: typer.Typer) -> None:
    """Make these verbs commands of the program."""
    for command in (harnesses, folds, groups, free):
        app.command()(command)
