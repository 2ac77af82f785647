"""The door's `data` verbs: sources, fetch, build, show, stats, audit, construct."""

from __future__ import annotations

import json
import pydoc
import sys
from pathlib import Path
from typing import Annotated

import typer

from medexpert.door import BaseUrl, EngineOptions, RecipeArg, SetOption, open_pipeline, say
from medexpert.records import UserError

data_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Collect, build, audit and look at data."
)
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
FOUND = 1


@data_app.command("build")
def data_build(
    recipe: RecipeArg,
    overrides: SetOption = None,
    out: Annotated[
        str, typer.Option(help="also copy the finished data to this folder or fsspec URL")
    ] = "",
    publish: Annotated[
        Path | None,
        typer.Option(help="copy the card and the manifest here, without any text of the data"),
    ] = None,
) -> None:
    """Build the training data of a recipe (`medexpert data RECIPE` does the same).

    Goes on where a stopped build was; a second run of the same recipe does nothing.

    Example: medexpert data recipes/demo
    """
    from medexpert.data.build.deliver import check_target, deliver

    pipeline = open_pipeline(recipe, overrides)
    if out:
        check_target(pipeline.root / "data", out)
    pipeline.run([pipeline.data_step()])
    if out:
        deliver(pipeline.root / "data", out, say=say)
    if publish is not None:
        from medexpert.publish import publish_data

        command = " ".join(
            ["medexpert data", str(recipe), *(f"--set {o}" for o in overrides or ())]
        )
        publish_data(pipeline.root, publish, command=command, say=say)
    print(pipeline.root / "data" / "card.md")


@data_app.command("sources")
def data_sources(
    search: Annotated[
        list[str] | None, typer.Argument(help="words of a name, stage, licence or note")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the catalogue of sources and benchmarks, or show one in full.

    Example: medexpert data sources pubmed
    """
    from medexpert.data.listing import listing, rows

    words = " ".join(search or ())
    print(json.dumps(rows(words), indent=2, ensure_ascii=False) if as_json else listing(words))


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="a source or benchmark of the catalogue")],
    to: Annotated[Path, typer.Option(help="data folder (a recipe's data.root)")] = Path("data"),
    local: Annotated[
        Path | None, typer.Option("--from", help="a local copy to use instead of the network")
    ] = None,
    only: Annotated[str, typer.Option(help="pattern of file names, for a source of many")] = "",
) -> None:
    """Fetch a published source, resume what was cut off, verify its checksum.

    Example: medexpert data fetch pubmedqa --to data
    """
    from medexpert.data.fetch import fetch

    for path in fetch(name, to, local=local, only=only, say=say):
        print(path)


@data_app.command("show")
def data_show(
    file: Annotated[Path, typer.Argument(help="a JSONL or parquet file, also gzip'd")],
    start: Annotated[int, typer.Option(min=1, help="first record")] = 1,
    count: Annotated[int, typer.Option(min=0, help="records; 0 = all")] = 10,
    search: Annotated[str, typer.Option(help="only records that hold these words")] = "",
    full: Annotated[bool, typer.Option(help="do not shorten texts")] = False,
) -> None:
    """Page through records readably.

    Example: medexpert data show runs/demo/data/instruct.jsonl --count 3
    """
    import shutil

    from medexpert.data.show import show

    screen = sys.stdout.isatty()
    width = max(40, min(shutil.get_terminal_size((100, 24)).columns, 120))
    lines = show(
        file, start=start, count=count, width=width, search=search, color=screen, full=full
    )
    if screen and count:
        pydoc.pager("\n".join(lines))
    else:
        for line in lines:
            print(line)


@data_app.command("stats")
def data_stats(
    file: Annotated[Path, typer.Argument(help="a JSONL or parquet file, also gzip'd")],
    as_json: AsJson = False,
) -> None:
    """Print the numbers of a file: records, lengths, sources, licences, labels, duplicates.

    Example: medexpert data stats runs/demo/data/knowledge.jsonl
    """
    from medexpert.data import stats

    found = stats.stats(file, say=say)
    print(stats.as_json(found) if as_json else stats.as_text(found))


@data_app.command("audit")
def data_audit(
    files: Annotated[list[str], typer.Argument(help="training files of any schema")],
    against: Annotated[
        list[str], typer.Option(help="benchmark of the catalogue, all, or file:PATH (repeatable)")
    ],
    data: Annotated[str, typer.Option(help="folder or URL that holds the benchmarks")] = "",
    as_json: AsJson = False,
) -> None:
    """Look for benchmark items in any training files. Exit code 1 when there are hits.

    Example: medexpert data audit train.jsonl --against pubmedqa --data DIR --json
    """
    from medexpert.data.audit import audit

    result = audit(files, against, data, say=say)
    print(result.as_json() if as_json else result.as_text())
    if result.exit_code:
        raise typer.Exit(FOUND)


@data_app.command("construct")
def data_construct(
    kind: Annotated[
        str,
        typer.Argument(help="pqa-u (pseudo-labels), passages (questions) or voc (explanations)"),
    ],
    inputs: Annotated[list[Path], typer.Option("--from", help="input file (repeatable)")],
    out: Annotated[Path, typer.Option(help="JSONL file to write")],
    model: Annotated[
        str,
        typer.Option(help="teacher: model folder, catalogue name, hub id, .gguf or openai:MODEL"),
    ] = "smollm2-135m-instruct",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16")] = "float32",
    temperature: Annotated[float, typer.Option(min=0.0, help="0 = greedy")] = 0.0,
    limit: Annotated[int, typer.Option(min=0, help="rows to read; 0 = all")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="for sampling")] = 0,
    options: Annotated[
        list[str] | None, typer.Option("--option", help="NAME=VALUE of the builder (repeatable)")
    ] = None,
    base_url: BaseUrl = "",
    engine_options: EngineOptions = None,
) -> None:
    """Let a teacher model make examples, keep those that pass its checks, resume after a kill.

    Example: medexpert data construct passages --from passages.jsonl --out qa.jsonl --limit 100

    Example: medexpert data construct voc --from ori_pqal.json --option fold=0 --out voc.jsonl
    """
    from medexpert.construct_verbs import construct

    chosen = {}
    for option in options or ():
        name, sign, value = option.partition("=")
        if not sign:
            raise UserError(f"--option {option!r} is not NAME=VALUE", where="--option")
        chosen[name] = value
    construct(
        kind, inputs, out, model=model, dtype=dtype, temperature=temperature, limit=limit,
        seed=seed, options=chosen, base_url=base_url, engine_options=engine_options or (), say=say,
    )  # fmt: skip
    print(out)
