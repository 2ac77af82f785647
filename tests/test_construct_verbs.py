"""A scripted engine as teacher, both builders from file to file, killed and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from medexpert.construct_verbs import EngineTeacher, construct, settings_of
from medexpert.data.construct.teacher import Chosen, Refusal, Teacher, Written
from medexpert.engines.base import Completion, PromptError
from medexpert.engines.scripted import ScriptedEngine
from medexpert.prompt.template import ChatFormat
from medexpert.records import UserError, digest

QUIET: Any = lambda _: None  # noqa: E731
CHAT = ChatFormat(
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
PAIR = "Question: When is velorin {k} taken?\nAnswer: Velorin {k} is taken each evening."


def row(k: int, **changes: Any) -> dict[str, Any]:
    return {
        "QUESTION": f"Does velorin {k} help?",
        "CONTEXTS": [f"Group {k} took velorin."],
        "LABELS": ["METHODS"],
        "LONG_ANSWER": f"Velorin {k} helped.",
        **changes,
    }


def document(k: int) -> dict[str, Any]:
    text = f"Velorin {k} is an invented drug. Velorin {k} is taken each evening with water."
    return {"id": f"d{k}", "text": text, "source": "s", "lang": "en", "title": "", "ids": {}}


def scores(prompt: str, choices: Sequence[str]) -> list[float]:
    """Sure of " yes" unless the prompt is about the ferry."""
    sure = 0.0 if "ferry" in prompt else 4.0
    return [sure if choice.strip() == "yes" else 0.0 for choice in choices]


def writes(prompt: str) -> str:
    number = prompt.split("Velorin ")[1].split()[0]
    return PAIR.replace("{k}", number)


def engine(**changes: Any) -> ScriptedEngine:
    return ScriptedEngine(writes, scores, **{"chat": CHAT, **changes})


@pytest.fixture
def pqau(tmp_path: Path) -> Path:
    rows = {str(99000000 + k): row(k) for k in range(11)}
    rows["99000003"] = row(3, QUESTION="Which drug helps?")
    file = tmp_path / "ori_pqau.json"
    file.write_text(json.dumps(rows, indent=1))
    return file


@pytest.fixture
def knowledge(tmp_path: Path) -> Path:
    file = tmp_path / "knowledge.jsonl"
    file.write_text("".join(json.dumps(document(k)) + "\n" for k in range(10)))
    return file


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_pqau_from_the_published_file(tmp_path: Path, pqau: Path) -> None:
    out = tmp_path / "out" / "pqau.jsonl"
    said: list[str] = []
    found = construct("pqa-u", [pqau], out, engine=engine(), seed=4, say=said.append)
    assert found["counts"] == {
        "read": 11, "kept": 10, "labels": {"yes": 10}, "rejected": {"not_yes_no": 1},
    }  # fmt: skip
    first = lines(out)[0]
    assert first["fields"]["answer"] == "yes"
    assert first["source"] == "ori_pqau"
    assert first["ids"]["pmid"] == "99000000"
    assert first["ids"]["template"].startswith("pubmedqa.reasoning_free@")
    prompt = "Abstract: Velorin 0 helped.\nQuestion: Does velorin 0 help?\nAnswer:"
    assert first["ids"]["prompt"] == digest(prompt)
    assert found["teacher"]["name"] == "scripted"
    assert any("11/11 items" in line and "/s" in line and "left" in line for line in said)


def test_passages_from_documents(tmp_path: Path, knowledge: Path) -> None:
    out = tmp_path / "qa.jsonl"
    found = construct(
        "passages", [knowledge], out, engine=engine(), options={"min_chars": "20"}, say=QUIET
    )
    assert found["counts"]["kept"] == 10
    made = lines(out)[2]
    assert made["fields"] == {
        "question": "When is velorin 2 taken?",
        "answer": "Velorin 2 is taken each evening.",
    }
    assert made["ids"]["document"] == "d2"
    assert float(made["ids"]["margin"]) == pytest.approx(4.0)
    assert found["made_from"]["settings"]["min_chars"] == 20


def test_limit_is_of_rows(tmp_path: Path, pqau: Path) -> None:
    found = construct("pqa-u", [pqau], tmp_path / "o.jsonl", engine=engine(), limit=2, say=QUIET)
    assert found["counts"]["read"] == 2


class Killed(BaseException):
    pass


@pytest.mark.parametrize("kind", ["pqa-u", "passages"])
def test_killed_and_run_again(tmp_path: Path, pqau: Path, knowledge: Path, kind: str) -> None:
    source = pqau if kind == "pqa-u" else knowledge
    options = {} if kind == "pqa-u" else {"min_chars": "20"}

    def go(out: Path, using: ScriptedEngine) -> Mapping[str, Any]:
        return construct(kind, [source], out, engine=using, options=options, say=QUIET)

    go(tmp_path / "a" / "o.jsonl", engine())

    def dies(prompt: str, choices: Sequence[str]) -> list[float]:
        if "elorin 9" in prompt:
            raise Killed
        return scores(prompt, choices)

    out = tmp_path / "b" / "o.jsonl"
    with pytest.raises(Killed):
        go(out, ScriptedEngine(writes, dies, chat=CHAT))
    again = engine()
    go(out, again)
    assert not any("elorin 1 " in p for call in again.calls for p in call.prompts)
    for name in ("o.jsonl", "o.rejects.jsonl", "o.manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


KILLED = """
import sys, time
from pathlib import Path
from medexpert.construct_verbs import construct
from medexpert.engines.scripted import ScriptedEngine

def score(prompt, choices):
    time.sleep(0.02)
    return [float(4 * (choice == " yes")) for choice in choices]

construct("pqa-u", [sys.argv[1]], Path(sys.argv[2]), engine=ScriptedEngine({}, score),
          block=2, say=lambda _: None)
"""


@pytest.mark.slow
def test_kill_9_then_the_same_bytes(tmp_path: Path) -> None:
    source = tmp_path / "rows.json"
    source.write_text(json.dumps({str(98000000 + k): row(k) for k in range(40)}))
    wholes, parts = tmp_path / "a" / "o.jsonl", tmp_path / "b" / "o.jsonl"
    command = [sys.executable, "-c", KILLED, str(source)]
    subprocess.run([*command, str(wholes)], check=True)
    kills = 0
    for wait in (3, 7, 12):
        process = subprocess.Popen([*command, str(parts)])
        progress = parts.with_name("o.progress.jsonl")
        while process.poll() is None and (
            not progress.exists() or progress.read_bytes().count(b"\n") < wait
        ):
            time.sleep(0.01)
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills == 3
    assert not parts.exists()
    subprocess.run([*command, str(parts)], check=True)
    for name in ("o.jsonl", "o.rejects.jsonl", "o.manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_bad_row_is_a_reject_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [json.dumps({"id": str(98000000 + k), **row(k)}) for k in range(30)]
    rows[4] = "{broken"
    file.write_text("\n".join(rows))
    out = tmp_path / "o.jsonl"
    found = construct("pqa-u", [file], out, engine=engine(), say=QUIET)
    assert found["counts"]["rejected"] == {"bad_row": 1}
    (reject,) = lines(tmp_path / "o.rejects.jsonl")
    assert reject["where"] == f"{file}:5"
    assert "not valid JSON" in reject["detail"]["what"]


def test_a_language_without_templates_is_a_bad_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"id": "1", "lang": "fr", **row(1)}))
    with pytest.raises(UserError, match=r"language 'fr'; allowed: en, zh"):
        construct("pqa-u", [file], tmp_path / "o.jsonl", engine=engine(), say=QUIET)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "pqau"}, "unknown kind 'pqau'.*did you mean 'pqa-u'"),
        ({"inputs": []}, "no input"),
        ({"limit": -1}, "limit -1"),
        ({"block": 0}, "block 0"),
        ({"temperature": -1.0}, "temperature -1.0"),
        ({"options": {"min_confidense": "1"}}, "did you mean 'min_confidence'"),
        ({"options": {"max_maybe": "few"}}, "max_maybe = 'few'; allowed: a whole number"),
        ({"options": {"min_confidence": "nan"}}, "a finite number"),
        ({"inputs": ["nothere.json"]}, "nothere.json: no such file"),
    ],
)
def test_mistakes_are_told_before_a_model_is_opened(
    tmp_path: Path, pqau: Path, changes: dict[str, Any], told: str
) -> None:
    given: dict[str, Any] = {"kind": "pqa-u", "inputs": [pqau], "out": tmp_path / "o", "say": QUIET}
    with pytest.raises(UserError, match=told):
        construct(**{**given, **changes})


def test_settings_by_name() -> None:
    assert settings_of("pqa-u", {"sees": "abstract", "max_maybe": "7"}).max_maybe == 7
    assert settings_of("passages", {"min_margin": "2"}).min_margin == 2.0


# -- the teacher -------------------------------------------------------------------------------


def test_a_model_without_chat_template_continues_behind_the_cue() -> None:
    plain = EngineTeacher(ScriptedEngine(lambda _: " When? \nAnswer: Now."))
    asked = [{"evidence": "Now."}]
    (found,) = plain.write("construct.passage_qa", asked, lang="en", max_tokens=20, seed=0)
    assert isinstance(found, Written)
    assert found.text == "Question: When? \nAnswer: Now."
    (found,) = plain.write("construct.passage_qa", asked, lang="zh", max_tokens=20, seed=0)
    assert isinstance(found, Written)
    assert found.text.startswith("问题：")


def test_choices_are_shown_and_scored_in_the_words_of_the_language() -> None:
    given = engine()
    teacher: Teacher = EngineTeacher(given)
    fields = [{"evidence": "文。", "question": "是吗？"}]
    (found,) = teacher.choose("construct.label", fields, ("no", "maybe", "yes"), lang="zh")
    assert isinstance(found, Chosen)
    assert sum(found.probabilities) == pytest.approx(1)
    (call,) = given.calls
    assert call.choices == ("否", "不确定", "是")
    assert "选项：否 / 不确定 / 是" in call.prompts[0]


class Narrow(ScriptedEngine):
    """Refuses prompts that hold "long", as an engine does that has no room for them."""

    def complete(self, prompts: Sequence[str], **settings: Any) -> list[Completion]:
        for index, prompt in enumerate(prompts):
            if "long" in prompt:
                raise PromptError("900 tokens do not fit", index=index, allowed="800")
        return super().complete(prompts, **settings)


def test_only_the_prompt_at_fault_is_refused() -> None:
    teacher = EngineTeacher(Narrow(lambda prompt: prompt[:9], chat=CHAT))
    asked = [{"evidence": text} for text in ("long one", "A", "B long", "C")]
    found = teacher.write("construct.passage_qa", asked, lang="en", max_tokens=9, seed=0)
    assert [type(f) for f in found] == [Refusal, Written, Refusal, Written]
    assert found[0] == Refusal("900 tokens do not fit")


def test_numbers_that_are_none_stop_the_work() -> None:
    teacher = EngineTeacher(engine())
    teacher.engine = ScriptedEngine(logprobs=lambda _p, choices: [float("nan")] * len(choices))
    fields = [{"evidence": "x", "question": "y"}]
    with pytest.raises(UserError, match="no usable probabilities"):
        teacher.choose("construct.label", fields, ("yes", "no"), lang="en")


def test_identity_tells_sampling_apart() -> None:
    make: Callable[..., EngineTeacher] = EngineTeacher
    assert make(engine(), temperature=0.7).identity != make(engine()).identity
