"""A question from a person: what the prompts say, what comes back, what is refused."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from medexpert.engines.scripted import ScriptedEngine
from medexpert.prompt import verify
from medexpert.prompt.ask import ask
from medexpert.records import UserError


@pytest.fixture
def engine() -> ScriptedEngine:
    def said(prompt: str) -> str:
        return "It is not so." if prompt.endswith("Against:") else "It is so for these reasons."

    return ScriptedEngine(said, lambda p, cs: [-float(n) for n, _ in enumerate(cs)])


def test_verdict_with_reasons_for_and_against(engine: ScriptedEngine) -> None:
    answer = ask("Is aspirin an antiplatelet drug?", engine)
    assert answer.choice == "yes"
    assert sum(answer.probabilities.values()) == pytest.approx(1.0)
    assert answer.reasons_for["no"] == "It is so for these reasons."
    assert answer.reasons_against["maybe"] == "It is not so."
    assert answer.faults == dict.fromkeys(("yes", "no", "maybe"), "too_short")


def test_options_in_the_strategys_name_hold(engine: ScriptedEngine) -> None:
    for given, more, wanted in (("voc", {}, 128), ("voc:max_tokens=64", {}, 64),
                                ("voc:max_tokens=64", {"max_tokens": 32}, 32)):  # fmt: skip
        engine.calls.clear()
        ask("Is it so?", engine, strategy=given, **more)
        assert engine.calls[0].settings["max_tokens"] == wanted


def test_no_context_no_abstract(engine: ScriptedEngine) -> None:
    for strategy in ("voc", "voc-likelihood", "direct"):
        ask("Is it so?", engine, strategy=strategy)
    prompts = [p for call in engine.calls for p in call.prompts]
    assert not [p for p in prompts if "bstract" in p]
    engine.calls.clear()
    ask("Is it so?", engine, context="It is so.")
    assert all(p.startswith("Abstract: It is so.\n") for c in engine.calls for p in c.prompts)


def test_direct_gives_no_reasons(engine: ScriptedEngine) -> None:
    answer = ask("Is it so?", engine, strategy="direct", choices=("aspirin", "warfarin"))
    assert answer.reasons_for == answer.reasons_against == {}
    assert answer.choice == "aspirin"


def test_language_follows_the_question(engine: ScriptedEngine) -> None:
    ask("阿司匹林是抗血小板药吗？", engine)
    assert engine.calls[0].prompts[0].startswith("问题：")
    assert not [p for call in engine.calls for p in call.prompts if "摘要" in p]


def test_faults_are_named(engine: ScriptedEngine) -> None:
    with pytest.raises(UserError, match="the question is empty"):
        ask("  ", engine)
    with pytest.raises(UserError, match="choices 'yes'; allowed: two or more, all different"):
        ask("Is it?", engine, choices=("yes",))
    with pytest.raises(UserError, match="choices 'yes', 'Yes'; allowed"):
        ask("Is it?", engine, choices=("yes", "Yes"))
    for text in ("yes,no", "yn"):
        with pytest.raises(UserError, match=rf"choices '{text}'; allowed: a list of texts"):
            verify("Is it?", text, engine)
    with pytest.raises(UserError, match=r"unknown strategy 'vocs'.*did you mean 'voc'"):
        ask("Is it?", engine, strategy="vocs")
    with pytest.raises(UserError, match=r"question ask: it tells no benchmark.*lm-eval:format="):
        ask("Is it?", engine, strategy="lm-eval", choices=("aspirin", "warfarin"))
    assert not engine.calls


def test_what_one_question_is_too_little_for(engine: ScriptedEngine) -> None:
    with pytest.raises(UserError, match="voc shows 2 solved examples, and one question alone has"):
        verify("Is it?", ["yes", "no"], engine, shots=2)
    with pytest.raises(UserError, match="voc-no-context leaves the context out"):
        ask("Is it?", engine, strategy="voc-no-context")
    assert not engine.calls
    assert ask("Is it?", engine, strategy="voc-no-context", context="So it is.").choice == "yes"


def test_verify_in_five_lines(base_model: Path) -> None:
    """The lines of its docstring, on a real (random) model."""
    code = textwrap.dedent(str(verify.__doc__).split("any engine:\n")[1].split("`options`")[0])
    assert len(code.strip().splitlines()) == 5
    told: list[Any] = []
    exec(code, {"folder": base_model, "print": lambda *shown: told.extend(shown)})
    choice, probabilities, reasons = told
    assert choice in ("yes", "no")
    assert sum(probabilities.values()) == pytest.approx(1.0)
    assert set(reasons) == {"yes", "no"}


def test_the_lines_of_the_docs_run_as_printed(
    base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = (Path(__file__).resolve().parents[2] / "docs" / "voc.md").read_text("utf-8")
    code = docs.split("```python\n")[1].split("```")[0]
    monkeypatch.setattr("medexpert.model.base.fetch", lambda _: str(base_model))
    told: list[Any] = []
    exec(code, {"print": lambda *shown: told.extend(shown)})
    assert told[0] in ("yes", "no")


def test_verify_takes_the_options_of_voc(engine: ScriptedEngine) -> None:
    answer = verify("Which?", ["aspirin", "warfarin"], engine, mode="ptrue", w_direct=1)
    assert [call.kind for call in engine.calls] == ["complete", "choice_logprobs"]
    assert answer.strategy == "voc"
    assert answer.trace["labels"] == {"aspirin": "A", "warfarin": "B"}
    with pytest.raises(UserError, match=r"unknown option of verify 'mod'.*did you mean 'mode'"):
        verify("Which?", ["aspirin", "warfarin"], engine, mod="ptrue")
    with pytest.raises(UserError, match="option k of verify: '3'; allowed: int"):
        verify("Which?", ["aspirin", "warfarin"], engine, k="3")


def test_verify_without_log_probabilities() -> None:
    engine = ScriptedEngine(lambda p: "Final answer: B" if "Check:" in p else "So it is.",
                            has_logprobs=False)  # fmt: skip
    answer = verify("Which?", ["aspirin", "warfarin"], engine, verdict="generated")
    assert (answer.choice, answer.probabilities) == ("warfarin", {})
    with pytest.raises(UserError, match=r"no log-probabilities.*voc:verdict=generated"):
        verify("Which?", ["aspirin", "warfarin"], engine)
