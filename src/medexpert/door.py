"""What the parts of the door share: common arguments, the progress line, a recipe opened."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from medexpert import launch

RecipeArg = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="a recipe file (.toml) or folder")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override a setting, for example "
                 "--set adapt.learning_rate=1e-4 (repeatable)"),
]  # fmt: skip
BaseUrl = Annotated[
    str, typer.Option(help="address of the endpoint of --model openai:MODEL, such as "
                      "http://localhost:8000/v1")
]  # fmt: skip
EngineOptions = Annotated[
    list[str] | None,
    typer.Option("--engine-option", metavar="NAME=VALUE", help="a setting of the engine, for "
                 "example api_key_env=MY_KEY, concurrency=16, cache=DIR (repeatable)"),
]  # fmt: skip
_STARTED = time.monotonic()


def say(line: str) -> None:
    """One progress line on standard error, with the minutes and seconds since the start.

    Of several training processes only the first one speaks.
    """
    if launch.rank():
        return
    minutes, seconds = divmod(int(time.monotonic() - _STARTED), 60)
    print(f"[{minutes:3d}:{seconds:02d}] {line}", file=sys.stderr, flush=True)


def open_pipeline(recipe: Path, overrides: list[str] | None) -> Any:
    """The pipeline of a recipe file. Raises UserError."""
    from medexpert.pipeline import Pipeline
    from medexpert.recipe import load

    return Pipeline(load(recipe, overrides or ()), say)
