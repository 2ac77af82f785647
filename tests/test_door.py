"""The command line: help, one-line errors, exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from medexpert import __version__
from medexpert.__main__ import app, main
from medexpert.engines.scripted import ScriptedEngine

ROOT = Path(__file__).resolve().parents[1]


def commands() -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(prefix: str, command: Any) -> None:
        for name, child in getattr(command, "commands", {}).items():
            found[f"{prefix}{name}"] = child
            walk(f"{prefix}{name} ", child)

    walk("", typer.main.get_command(app))
    return found


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_verb_has_help_with_an_example(name: str, capsys: Any) -> None:
    command = commands()[name]
    if not hasattr(command, "commands"):
        assert f"Example: medexpert {name.split()[0]}" in command.help
    assert main([*name.split(), "--help"]) == 0
    assert "Usage: medexpert" in capsys.readouterr().out


def test_version(capsys: Any) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"medexpert {__version__}\n"


def error_of(capsys: Any, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    return str(capsys.readouterr().err)


def test_bad_input_is_one_line_and_exit_2(capsys: Any, tmp_path: Path) -> None:
    assert "did you mean 'demo.toml'?" in error_of(
        capsys, "run", str(ROOT / "recipes/demo/dem.toml")
    )
    (tmp_path / "r.toml").write_text('name = "x"\n[data]\nqarantine = []\n')
    assert "did you mean 'quarantine'?" in error_of(capsys, "check", str(tmp_path / "r.toml"))
    demo = str(ROOT / "recipes" / "demo")
    line = error_of(capsys, "train", "knowlege", demo)
    assert line.startswith("medexpert: unknown stage 'knowlege'")
    assert "did you mean 'knowledge'?" in line
    line = error_of(capsys, "evaluate", "--model", "m", "--task", "pubmedq", "--out", "o")
    assert "did you mean 'pubmedqa'?" in line
    line = error_of(
        capsys, "evaluate", "--model", "m", "--task", "trialgen", "--strategy", "vok", "--out", "o"
    )
    assert "did you mean 'voc'?" in line
    line = error_of(capsys, "data", "sources", "starter-pasages-en")
    assert "did you mean 'starter-passages-en'?" in line
    assert "two or more different words" in error_of(capsys, "ask", "Why?", "--choices", "yes")
    assert "the question is empty" in error_of(capsys, "ask", " ")
    assert "no such file" in error_of(capsys, "ask", "Why?", "--context", "@nowhere.txt")


def test_ask_shows_what_the_strategy_gave(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(prompt: str) -> str:
        return "Walkers differ.\nWho knows?"

    scripted = ScriptedEngine(said, lambda p, choices: [-1.0 - n for n, _ in enumerate(choices)])
    monkeypatch.setattr("medexpert.verbs.open_engine", lambda *_, **__: (scripted, ""))
    assert main(["ask", "Why?", "--strategy", "cot"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Answer: none (no single choice could be read")
    assert "The model wrote: Walkers differ.\nWho knows?\n" in shown
    assert "none given" not in shown
    assert "NO_ANSWER" not in shown
    assert main(["ask", "Why?", "--strategy", "direct"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Answer: yes\n\nyes  (67 %)\nno  (24 %)\n")
    assert "none given" not in shown
    assert main(["ask", "Why?"]) == 0
    assert "\n  for:     Walkers differ. Who knows?\n" in capsys.readouterr().out


def test_ask_passes_on_how_the_model_is_opened_and_the_seed(
    capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = ScriptedEngine(lambda prompt: "So it is. Final answer: no")
    opened: dict[str, Any] = {}

    def opening(model: str, **settings: Any) -> tuple[Any, str]:
        opened.update(settings)
        return scripted, ""

    monkeypatch.setattr("medexpert.verbs.open_engine", opening)
    given = ["--seed", "7", "--threads", "3", "--batch-tokens", "99", "--strategy"]
    assert main(["ask", "Why?", *given, "cot"]) == 0
    assert capsys.readouterr().out.startswith("Answer: no\n")
    assert (opened["threads"], opened["batch_tokens"]) == (3, 99)
    assert scripted.calls[0].settings["seed"] == 7


def test_ask_knows_its_strategies_before_a_model_is_opened(capsys: Any) -> None:
    line = error_of(capsys, "ask", "Why?", "--strategy", "vok", "--model", "nowhere")
    assert line.startswith("medexpert: --strategy: unknown strategy 'vok'")


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        ("medprompt", "medprompt shows 5 solved examples, and one question alone has none"),
        ("direct:shots=2", "direct:shots=2 shows 2 solved examples, and"),
        ("voc-foreign", "voc-foreign shows explanations of another question, and"),
        ("voc-no-context", "voc-no-context leaves the context out, and there is none"),
        ("voc:pmi=true", "voc:pmi=true leaves the context out, and there is none"),
    ],
)
def test_ask_says_where_to_ask_what_one_question_is_too_little_for(
    capsys: Any, strategy: str, told: str
) -> None:
    line = error_of(capsys, "ask", "Why?", "--strategy", strategy, "--model", "nowhere")
    assert line.startswith(f"medexpert: --strategy: {told}")
    assert f"medexpert evaluate --strategy {strategy})" in line
    assert line.count("\n") == 1


def test_run_refuses_an_unknown_strategy_before_any_work(capsys: Any, tmp_path: Path) -> None:
    line = error_of(
        capsys, "run", str(ROOT / "recipes" / "demo"), "--set", f"output={tmp_path}/r",
        "--set", 'evaluate.strategies=["vok"]',
    )  # fmt: skip
    assert "unknown strategy 'vok'" in line
    assert not (tmp_path / "r").exists()


def test_a_report_of_a_recipe_never_run_says_so(capsys: Any, tmp_path: Path) -> None:
    place = f"output={tmp_path / 'never'}"
    line = error_of(capsys, "report", str(ROOT / "recipes" / "demo"), "--set", place)
    assert "no evaluation has finished here: run `medexpert run" in line
    assert not (tmp_path / "never").exists()


def test_wrong_usage_is_exit_2(capsys: Any) -> None:
    assert main(["evaluate"]) == 2
    assert main(["evaluate", "--model", "m", "--out", "o", "--limit", "-1"]) == 2
    assert main(["nonsense"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_data_recipe_is_short_for_data_build() -> None:
    from medexpert.__main__ import _arguments

    assert _arguments(["data", "recipes/demo"]) == ["data", "build", "recipes/demo"]
    assert _arguments(["data", "sources"]) == ["data", "sources"]
    assert _arguments(["data", "--help"]) == ["data", "--help"]


def test_interrupt_is_exit_130(capsys: Any, monkeypatch: Any) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt("knowledge stopped after step 3 of 9")

    monkeypatch.setattr("medexpert.recipe.load", stopped)
    assert main(["run", "x"]) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        "medexpert: knowledge stopped after step 3 of 9; run the same command to continue"
    )


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 99 bytes")],
)
def test_out_of_memory_is_one_line_with_advice(
    capsys: Any, monkeypatch: Any, error: Exception
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("medexpert.__main__.app", fails)
    assert "out of memory: lower sequence_length" in error_of(capsys, "run", "x")


def test_an_unexpected_os_error_is_one_line(capsys: Any, monkeypatch: Any) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise IsADirectoryError(21, "Is a directory", "somewhere")

    monkeypatch.setattr("medexpert.__main__.app", fails)
    assert error_of(capsys, "run", "x") == "medexpert: somewhere: Is a directory\n"
