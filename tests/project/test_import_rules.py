"""The rooms and who may import what: docs/architecture.md as a test."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "medexpert"
ROOMS = ("data", "model", "train", "engines", "prompt", "evaluate", "serve")
PLAIN = {
    "records", "manifest", "signals", "_version", "recipe_data", "recipe_train", "recipe_ablation",
}  # fmt: skip
HEAVY = {"torch", "transformers", "peft", "datasets"}
NETWORK = {"socket", "urllib", "http", "requests", "httpx", "huggingface_hub"}

# room -> what of medexpert it may import, beside itself and PLAIN
MAY: dict[str, set[str]] = {
    "data": {"recipe"},
    "model": {"recipe"},
    "train": {"recipe", "model", "prompt.template"},
    "engines": {"model", "prompt.template"},
    "prompt": {"engines.base"},
    "evaluate": {"recipe", "prompt", "engines.base", "data.catalogue", "data.readers",
                 "data.construct"},
    "serve": {"prompt", "engines"},
}  # fmt: skip
MUST_NOT: dict[str, set[str]] = {
    "data": HEAVY | NETWORK,
    "model": {"datasets"},
    "train": {"datasets"} | NETWORK,
    "engines": {"datasets"},
    "prompt": HEAVY | NETWORK | {"random", "time", "pathlib", "numpy"},
    "evaluate": HEAVY | NETWORK,
    "serve": {"datasets"},
}
FIRST = {
    "records": set(),
    "manifest": {"records", "_version"},
    "signals": set(),
    "recipe_data": set(),
    "recipe_train": {"recipe_data"},
    "recipe_ablation": {"recipe_data"},
    "recipe": {"records", "recipe_data", "recipe_train", "recipe_ablation"},
}


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names that a file imports; names under TYPE_CHECKING do not count."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = str(node.module)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def ours(names: set[str]) -> set[str]:
    return {name.removeprefix("medexpert.") for name in names if name.startswith("medexpert.")}


def files(room: str) -> list[Path]:
    return sorted((SOURCE / room).rglob("*.py"))


def under(name: str, allowed: set[str]) -> bool:
    return any(name == a or name.startswith(a + ".") for a in allowed)


@pytest.mark.parametrize("room", [r for r in ROOMS if (SOURCE / r).is_dir()])
def test_room_imports_only_what_it_may(room: str) -> None:
    for path in files(room):
        names = imports(path)
        allowed = PLAIN | MAY[room] | {room}
        wrong = {n for n in ours(names) if not under(n, allowed)}
        wrong -= {n for n in wrong if n in {"__version__", "NO_ANSWER", "UserError"}}
        assert not wrong, f"{path.relative_to(SOURCE)} imports {sorted(wrong)}"
        heavy = {n for n in names if n.split(".")[0] in MUST_NOT[room]}
        if room == "data" and path.name in ("download.py", "fetch.py"):
            heavy -= {n for n in heavy if n.split(".")[0] in NETWORK}
        assert not heavy, f"{path.relative_to(SOURCE)} imports {sorted(heavy)}"


@pytest.mark.parametrize("name", sorted(FIRST))
def test_the_vocabulary_imports_no_room(name: str) -> None:
    assert ours(imports(SOURCE / f"{name}.py")) <= {
        f"{m}.{n.rsplit('.', 1)[-1]}"
        for m in FIRST[name]
        for n in ours(imports(SOURCE / f"{name}.py"))
    }


@pytest.mark.parametrize(
    "name",
    [
        "__init__",
        "__main__",
        "door",
        "door_data",
        "door_scores",
        "score_verbs",
        "pipeline",
        "check",
        "verbs",
        "construct_verbs",
        "door_evaluate",
        "evaluate_verbs",
        "ablation_verb",
        "instruments",
        "launch",
    ],
)
def test_the_door_imports_rooms_lazily(name: str) -> None:
    top = ours(imports(SOURCE / f"{name}.py", top_level_only=True))
    assert not {n for n in top if n.split(".")[0] in ROOMS}, name


def test_starting_the_program_loads_nothing_heavy() -> None:
    code = (
        "import sys, medexpert.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([n for n in ('torch','transformers','peft','scipy','matplotlib','pyarrow') "
        "if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_no_drawer_for_odds_and_ends() -> None:
    names = {p.stem for p in SOURCE.rglob("*.py")} | {
        p.name for p in SOURCE.rglob("*") if p.is_dir()
    }
    assert not names & {"utils", "util", "common", "core", "helpers", "misc"}


def test_no_pickle_and_no_remote_code() -> None:
    for path in SOURCE.rglob("*.py"):
        text = path.read_text("utf-8")
        assert "torch.load(" not in text, path
        assert "torch.save(" not in text, path
        assert not {n for n in imports(path) if n.split(".")[0] in {"pickle", "dill", "joblib"}}, (
            path
        )
        assert "trust_remote_code=True" not in text, path
