"""evaluate and probe through the door, on a tiny model that was never trained."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from endpoint import EVERYTHING, Endpoint, TinyModel, running
from medexpert.__main__ import main
from medexpert.engines.local import LocalEngine
from medexpert.evaluate_verbs import listed, measure_memorisation, numbers
from medexpert.records import UserError

SAMPLED = "self_consistency:k=1:max_tokens=2"


def rows(path: Path, n: int = 6) -> Path:
    made = [
        {"id": f"q{i}", "question": f"Which number is {i}?", "choices": [str(i), "none", "both"],
         "answer": 0}
        for i in range(n)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def test_a_grid_of_tasks_and_seeds(base_model: Path, tmp_path: Path, capsys: Any) -> None:
    mine = rows(tmp_path / "my rows.jsonl")
    command = ["evaluate", "--model", str(base_model), "--tasks", f"trialgen,file:{mine}",
               "--strategies", f"direct,{SAMPLED}", "--seeds", "0,1", "--limit", "5",
               "--data", str(tmp_path), "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(command) == 0
    told = capsys.readouterr()
    assert told.out.count("mean of 2") == 2
    assert "6 of 6: " in told.err
    assert told.err.count("opening ") == 1
    cells = json.loads((tmp_path / "out" / "summary.json").read_text())["cells"]
    # No seed changes what `direct` says: it is asked once.
    assert [(c["strategy"], c["seed"]) for c in cells] == 2 * [
        ("direct", 0), (SAMPLED, 0), (SAMPLED, 1),
    ]  # fmt: skip
    result = json.loads((tmp_path / "out" / cells[1]["folder"] / "result.json").read_text())
    assert cells[1]["folder"] == "trialgen/self_consistency+k=1+max_tokens=2/seed-0"
    assert result["strategy"] == SAMPLED
    assert result["usage"]["questions"] == 5
    assert result["per_question"]["calls"] == 1
    # Seed 1 asks what seed 0 asked: nothing of it is reused, so it costs the same.
    costs = [cell["result"]["per_question"] for cell in cells[1:3]]
    assert costs[0]["prefilled_tokens"] == costs[1]["prefilled_tokens"] > 10
    assert main(command) == 0
    assert capsys.readouterr().err.count("complete, nothing to do") == 6


def test_cheap_mistakes_come_before_the_model(tmp_path: Path, capsys: Any) -> None:
    start = ["evaluate", "--model", "/no/such/model", "--out", str(tmp_path / "out")]
    for options, told in (
        (["--tasks", "trialgen,pubmedq"], "unknown task 'pubmedq'"),
        (["--strategies", "direct:batc=1", "--tasks", "trialgen"], "did you mean 'batch'"),
        (["--tasks", "trialgen", "--task", "trialgen"], "both given"),
        (["--tasks", "trialgen", "--seeds", "0,1", "--seed", "3"], "both given"),
        (["--tasks", "trialgen", "--seeds", "0,x"], "whole numbers"),
        (["--tasks", "trialgen", "--protocol", "none"], "unknown protocol"),
        (["--tasks", "trialgen", "--dtype", "int3"], "unknown dtype"),
        (["--tasks", "trialgen", "--split", "nowhere"], "split"),
    ):
        assert main([*start, *options]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", [["evaluate"], ["probe", "choices"]])
def test_what_a_strategy_needs_is_told_before_the_model(
    tmp_path: Path, capsys: Any, verb: list[str]
) -> None:
    task = f"file:{rows(tmp_path / 'own.jsonl')}"
    start = [*verb, "--model", "/no/such/model", "--out", str(tmp_path / "out"), "--task", task]
    for strategy, told in (
        ("direct:shots=3", "3 solved examples are to be shown and 0 can be"),
        ("medprompt", "5 solved examples are to be shown and 0 can be"),
        ("voc-no-context", "voc-no-context leaves the context out, and there is none"),
        ("voc:pmi=true", "voc:pmi=true leaves the context out, and there is none"),
    ):
        assert main([*start, "--strategy", strategy]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_choices_in_other_orders_and_under_other_names(
    base_model: Path, tmp_path: Path, capsys: Any
) -> None:
    command = ["probe", "choices", "--model", str(base_model), "--task", "trialgen", "--limit", "4",
               "--labels", "words,letters", "--orders", "3", "--out", str(tmp_path)]  # fmt: skip
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(found["orders"]) == ["letters", "words"]
    assert len(found["variants"]) == 6
    assert len(found["orders"]["letters"]["places"]) == 3
    assert found == json.loads((tmp_path / "sensitivity.json").read_text())
    assert main([*command[:-1], str(tmp_path), "--labels", "wods"]) == 2
    assert "did you mean 'words'" in capsys.readouterr().err


def test_min_k_against_other_questions(base_model: Path, tmp_path: Path, capsys: Any) -> None:
    mine = rows(tmp_path / "mine.jsonl")
    command = ["probe", "min-k", "--model", str(base_model), "--task", "trialgen", "--limit", "6"]
    assert main([*command, "--against", f"file:{mine}"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["items"]["n"], found["others"]["n"]) == (6, 6)
    assert 0 <= found["interval"]["low"] <= found["auroc"] <= found["interval"]["high"] <= 1
    assert main([*command, "--against", "trialgen"]) == 2
    assert "6 questions are in both sets" in capsys.readouterr().err
    assert main([*command, "--against", "pubmedqa@dev-0", "--data", str(tmp_path)]) == 2
    assert f"`medexpert data fetch pubmedqa --to {tmp_path}`" in capsys.readouterr().err


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_min_k_of_an_endpoint_is_that_of_its_model(
    base_model: Path, tmp_path: Path, capsys: Any
) -> None:
    mine = rows(tmp_path / "mine.jsonl")
    rest = ["--task", "trialgen", "--limit", "3", "--against", f"file:{mine}"]
    found = []
    with running(Endpoint(TinyModel(LocalEngine.open(base_model)), context=0)) as served:
        far = ["--model", "openai:tiny", "--base-url", served.address]
        own = ["--engine-option", f"tokenizer={base_model}"]
        for model in (["--model", str(base_model)], [*far, *own]):
            assert main(["probe", "min-k", *model, *rest]) == 0
            found.append(json.loads(capsys.readouterr().out))
        assert main(["probe", "min-k", *far, *rest]) == 2
        told = capsys.readouterr().err
        served.offers = EVERYTHING - {"echo", "prompt_logprobs"}
        assert main(["probe", "min-k", *far, *own, *rest]) == 2
        told += capsys.readouterr().err
    assert found[0]["items"] == pytest.approx(found[1]["items"], abs=1e-4)
    assert found[0]["auroc"] == found[1]["auroc"]
    assert "tokenizer=MODEL; none given)" in told
    assert "by echo or prompt_logprobs (neither found)" in told


def test_min_k_needs_the_probability_of_every_token(tmp_path: Path) -> None:
    far: Any = SimpleNamespace(
        open=lambda say: (SimpleNamespace(name="far", tokenizer=object()), "digest")
    )
    with pytest.raises(UserError, match="far does not tell the log-probability of every token"):
        measure_memorisation(
            far, task="trialgen", data=tmp_path, against="trialgen@dev-0", split="test",
            share=0.2, limit=2, say=lambda line: None,
        )  # fmt: skip


def test_lists() -> None:
    assert listed("a, b:k=1", "x") == ["a", "b:k=1"]
    assert numbers("0,12", "x") == [0, 12]
    with pytest.raises(UserError, match="empty part"):
        listed("a,,b", "--tasks")
    with pytest.raises(UserError, match="whole numbers"):
        numbers("1.5", "--seeds")


def test_one_evaluation_never_replaces_another(
    base_model: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    start = ["evaluate", "--model", str(base_model), "--out", str(out), "--task", "trialgen"]
    assert main([*start, "--limit", "3"]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for options, told in (
        (["--limit", "3", "--strategy", SAMPLED], f"strategy direct there, {SAMPLED} now"),
        (["--limit", "4"], "questions 3 there, 4 now"),
        (["--limit", "3", "--dtype", "bfloat16"], "other weights, dtype"),
    ):
        capsys.readouterr()
        assert main([*start, *options]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert f"{out}: holds a finished evaluation of other settings ({told}" in line
        assert "another --out" in line
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert main([*start, "--limit", "3"]) == 0
    (out / "manifest.json").unlink()
    assert main([*start, "--limit", "3", "--seed", "1"]) == 2
    assert "an interrupted evaluation of other settings (seed 0 there, 1 now)" in (
        capsys.readouterr().err
    )
    (out / "run.json").unlink()
    assert main([*start, "--limit", "3"]) == 2
    assert "holds other work, without run.json" in capsys.readouterr().err
