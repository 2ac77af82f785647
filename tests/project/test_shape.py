"""Sizes, versions and words: rules of the workshop that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from medexpert import __all__, __version__

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sorted(p for top in ("src", "tests", "benchmarks") for p in (ROOT / top).rglob("*.py"))


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400, f"{path} has more than 400 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"


def test_version_is_the_newest_of_the_changelog() -> None:
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert newest is not None
    assert newest.group(1) == __version__


def test_public_names_exist() -> None:
    import medexpert

    assert all(hasattr(medexpert, name) for name in __all__)


def test_the_project_names_no_machine_and_no_registry_host() -> None:
    words = "|".join(
        ["/wo" + "rk/", "/fa" + "rm/", "py" + r"pi\.org", "python" + "hosted", "npm" + "js"]
    )
    done = subprocess.run(
        ["git", "-C", str(ROOT), "grep", "-nIE", words], capture_output=True, text=True
    )
    if done.returncode > 1:
        pytest.skip("not a git checkout")
    assert done.stdout == ""


def test_every_public_function_has_a_docstring() -> None:
    missing = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if (
                isinstance(node, ast.FunctionDef | ast.ClassDef)
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ):
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not missing
