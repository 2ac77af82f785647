"""The README's commands exist, with the options it gives, and CI runs its two make targets."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from medexpert.__main__ import _arguments, app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(?:sh|text)\n(.*?)```", README, re.DOTALL)
LINES = [
    line.split("#")[0].strip()
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("medexpert ")])
def test_medexpert_lines_name_real_verbs_and_options(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = _arguments(shlex.split(line)[1:])
    while hasattr(command, "commands"):
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    known = {option for p in command.params for option in p.opts}
    assert {w for w in words if w.startswith("--")} <= known, line
    for word in words:
        if word.startswith("recipes/"):
            assert (ROOT / word).exists(), line


def test_ci_runs_both_make_targets() -> None:
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    targets = [line.split()[1] for line in LINES if line.startswith("make ")]
    assert targets == ["demo", "test"]
    assert all(f"make {target}" in ci for target in targets)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
