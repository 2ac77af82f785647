"""The documents' commands, code and links hold: verbs and options exist, names can be imported."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from medexpert.__main__ import _arguments, app
from medexpert.engines.http import HttpSettings
from medexpert.prompt.strategies import STRATEGIES

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / name / "README.md" for name in ("results", "benchmarks")),
    ]
)
WRITTEN = {page.name: page.read_text("utf-8") for page in PAGES if page.name != "cli.md"}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """Lines of code blocks, fenced or indented, that call medexpert."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    lines = [line.split(" #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line.startswith("medexpert ") and "[OPTIONS]" not in line]


COMMANDS = [
    pytest.param(line, id=f"{page.stem}-{number}")
    for page in PAGES
    if page.name != "cli.md"
    for number, line in enumerate(commands(page))
]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_would_be_understood(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = _arguments(shlex.split(line.split(">")[0])[1:])
    while hasattr(command, "commands"):
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    known = {option for p in command.params for option in p.opts}
    assert {w for w in words if w.startswith("--")} <= known, line
    needed = [p for p in command.params if p.required and p.opts[0].startswith("--")]
    assert all(set(p.opts) & set(words) for p in needed), line


@pytest.mark.parametrize("page", WRITTEN)
def test_python_code_names_what_there_is(page: str) -> None:
    for language, code in FENCED.findall(WRITTEN[page]):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("medexpert"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.name}")
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_options_are_told() -> None:
    measuring = WRITTEN["evaluate.md"] + WRITTEN["voc.md"]
    for strategy in STRATEGIES.values():
        made: Any = strategy
        options = {field.name for field in dataclasses.fields(made)} - {"name", "control"}
        untold = [name for name in options if not re.search(rf"`{name}[`=]", measuring)]
        assert not untold, strategy.name
    for field in dataclasses.fields(HttpSettings):
        if field.name not in ("base_url", "model"):
            assert f"`{field.name}`" in WRITTEN["engines.md"], field.name
    every = "\n".join([*WRITTEN.values(), (ROOT / "README.md").read_text("utf-8")])
    for name, verb in verbs(typer.main.get_command(app), "medexpert"):
        for parameter in verb.params:
            # Of a switch that is on, what switches it off.
            on = parameter.secondary_opts and parameter.default
            for option in parameter.secondary_opts if on else parameter.opts:
                if option.startswith("--"):
                    assert re.search(rf"{option}(?![\w-])", every), f"{name} {option}"


def verbs(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every verb with its name."""
    if not hasattr(command, "commands"):
        yield name, command
    for word, child in getattr(command, "commands", {}).items():
        yield from verbs(child, f"{name} {word}")


def test_tables_of_results_tell_refused_questions_where_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COLUMNS", "TERMINAL_WIDTH", "NO_COLOR"):  # the script sets them
        monkeypatch.setenv(name, "")
    script = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    made = script["results_table"].__globals__
    made["ROOT"] = tmp_path
    result: dict[str, Any] = {
        "task": "pubmedqa", "protocol": "question-only", "strategy": "direct", "n": 10,
        "accuracy": 0.5, "accuracy_interval": {"low": 0.2, "high": 0.8}, "macro_f1": 0.4,
        "choices": ["yes", "no"], "unparsed": 1, "seconds": 1.0,
        "usage": {"questions": 10, "prompt_tokens": 10, "generated_tokens": 0},
    }  # fmt: skip
    for number, refused in enumerate((None, 0, 2)):
        one = result | ({} if refused is None else {"refused": refused})
        folder = tmp_path / "results" / f"run-{number}"
        (folder / "evaluate" / "base" / "direct").mkdir(parents=True)
        (folder / "evaluate" / "base" / "direct" / "result.json").write_text(json.dumps(one))
        (folder / "grid").mkdir()
        grid = {"cells": [{"strategy": "direct", "result": one}] * 2, "against": []}
        (folder / "grid" / "summary.json").write_text(json.dumps(grid))
    rows = script["results_table"]().splitlines()[2:]
    assert [row.split(" | ")[-1] for row in rows] == ["1 |", "1 |", "1, 2 refused |"]
    rows = script["grid_table"]().splitlines()[2:]
    assert [row.split(" | ")[5] for row in rows] == ["2", "2", "2, 4 refused"]
