"""`data construct voc` from file to files: asked, killed and resumed, test items refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from endpoint import Endpoint, Words, running
from medexpert.__main__ import main
from medexpert.construct_verbs import construct, settings_of
from medexpert.data.readers.pubmedqa import official_split
from medexpert.engines.base import PromptError
from medexpert.engines.scripted import ScriptedEngine
from medexpert.prompt.template import ChatFormat, render, render_prompt
from medexpert.prompt.voc import Voc
from medexpert.records import Example, UserError, digest, read_jsonl

QUIET: Any = lambda _: None  # noqa: E731
GOLD = ("yes", "no", "maybe")


def row(k: int, answer: str) -> dict[str, Any]:
    return {
        "QUESTION": f"Does velorin {k} help?", "CONTEXTS": [f"Group {k} took velorin."],
        "LABELS": ["METHODS"], "LONG_ANSWER": f"Velorin {k} helped.", "final_decision": answer,
    }  # fmt: skip


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Twelve invented items, a test item and an item of fold 1's dev part."""
    rows = {str(99000000 + k): row(k, GOLD[k % 3]) for k in range(12)}
    split = official_split()
    rows[split.test[0]], rows[split.folds[1][0]] = row(77, "yes"), row(88, "no")
    file = tmp_path / "pqal.json"
    file.write_text(json.dumps(rows, indent=1))
    return file


def number(prompt: str) -> int:
    return int(prompt.split("Question: Does velorin ")[1].split()[0])


def says(prompt: str) -> str:
    """Explains what it is told to; verifies rightly, but on item 4 never and on 5 once."""
    if "Suppose that the answer below" in prompt:
        choice = prompt.rsplit("\nAnswer: ", 1)[1].split("\n")[0].split(" (")[0]
        return f" Group {number(prompt)} took velorin and that speaks for {choice} most.\n\nMore."
    k = number(prompt)
    right = GOLD[k % 3]
    first = prompt.split("at most one is right.\n[")[1].split("]")[0]
    wrong = GOLD[(k + 1) % 3]
    verdict = wrong if k == 4 or (k == 5 and first == "yes") else right
    return f" What is said for {verdict} alone holds up.\nFinal answer: {verdict}"


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def build(source: Path, out: Path, say: Callable[[str], None] = QUIET, **more: Any) -> Any:
    given: dict[str, Any] = {"engine": ScriptedEngine(says), "options": {"fold": "1"}, "seed": 3}
    return construct("voc", [source], out, say=say, block=4, **{**given, **more})


def test_from_the_published_file(tmp_path: Path, labelled: Path) -> None:
    out, said = tmp_path / "made" / "voc.jsonl", []  # type: ignore[var-annotated]
    engine = ScriptedEngine(says)
    found = build(labelled, out, said.append, engine=engine)
    records, pairs = lines(out), lines(tmp_path / "made" / "voc.pairs.jsonl")
    rejects = lines(tmp_path / "made" / "voc.rejects.jsonl")
    reasons = Counter(reject["reason"] for reject in rejects)
    assert reasons["test_item"] == reasons["dev_item"] == 1
    prompts = [prompt for call in engine.calls for prompt in call.prompts]
    assert not any("velorin 77" in p or "velorin 88" in p for p in prompts)
    assert len(prompts) == 12 * (3 + 3)
    # Item 4 never came to gold: hard, and one in ten may stay (11 consistent items: one).
    hard = {record["ids"]["item"] for record in records if record["ids"]["bucket"] == "hard"}
    assert hard == {"99000004"}
    verify = [r for r in records if r["template"] in ("voc.check", "voc.verify")]
    answers = Counter(r["fields"]["answer"] for r in verify)
    assert set(answers) == set(GOLD)
    assert len(set(answers.values())) == 1
    assert all("rejected" in pair["fields"] for pair in pairs)
    assert not any("rejected" in record["fields"] for record in records)
    assert {pair["template"] for pair in pairs} == {"cot.reason", "voc.check"}
    assert [p["ids"]["item"] for p in pairs if p["template"] == "voc.check"] == ["99000005"]
    assert found["counts"]["read"] == 14
    assert found["counts"]["kept"] == len(records) + len(pairs)
    assert found["counts"]["records"]["pair voc.check maybe"] == 1
    assert found["counts"]["rejected"] == dict(sorted(reasons.items()))
    assert found["made_from"]["settings"]["fold"] == 1
    assert set(found["files"]) == {"voc.jsonl", "voc.pairs.jsonl", "voc.rejects.jsonl"}
    assert any("14/14 items" in line and "/s" in line and "left" in line for line in said)


def test_records_by_other_rules_are_not_mixed_in(
    tmp_path: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which explanations are sound follows from the strategy's rules, so from its version."""
    out = tmp_path / "voc.jsonl"
    build(labelled, out)
    whole = out.read_bytes()
    monkeypatch.setattr(Voc, "version", "0+other")
    with pytest.raises(UserError, match=r"other finished work is here .*has another rules"):
        build(labelled, out)
    assert out.read_bytes() == whole


def never(prompt: str) -> str:
    """Explains as `says`, and never ends at the right answer."""
    said = says(prompt)
    if "Suppose that the answer below" in prompt:
        return said
    wrong = GOLD[(number(prompt) + 1) % 3]
    return f" What is said for {wrong} alone holds up.\nFinal answer: {wrong}"


def test_items_and_records_are_two_things(tmp_path: Path, labelled: Path) -> None:
    said: list[str] = []
    found = build(labelled, tmp_path / "voc.jsonl", said.append)
    assert re.search(r"voc\.jsonl: \d+ records from 14 items \(left out: ", said[-1])
    assert f" {found['counts']['kept']} records from" in said[-1]
    assert any(re.search(r"14/14 items, \d+ records, ", line) for line in said)


def test_labelled_items_alone_are_refused_before_a_model_is_opened(tmp_path: Path) -> None:
    split, file = official_split(), tmp_path / "pqal.json"
    train = split.folds[0][0]  # of fold 1's training part
    for pmids, fold, message in (
        ([train, split.test[0]], "-1", r"2 of 2 rows .*\(pqal_item 1, test_item 1\), none is left;"
                                       r" allowed: --option fold=N \(0 to 9\)"),
        ([split.test[0]], "-1", "allowed: --option fold=N"),
        ([split.test[0]], "1", "allowed: items of the training part"),
    ):  # fmt: skip
        file.write_text(json.dumps({pmid: row(k, "yes") for k, pmid in enumerate(pmids)}))
        with pytest.raises(UserError, match=message):
            construct("voc", [file], tmp_path / "o.jsonl", model="/no/such/model", say=QUIET,
                      options={"fold": fold})  # fmt: skip
    said: list[str] = []
    file.write_text(json.dumps({train: row(1, "no"), "99000001": row(2, "maybe")}))
    build(file, tmp_path / "o.jsonl", said.append, options={})
    assert said[0].startswith("1 of 2 rows are of PubMedQA's labelled set and not used (pqal_item")
    assert "--option fold=N" in said[0]


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_the_teacher_may_be_an_endpoint(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    file, out = tmp_path / "mine.jsonl", tmp_path / "o.jsonl"
    mine = {"id": "q-a", "question": "Does velorin 1 help?", "choices": GOLD, "answer": "no"}
    file.write_text(json.dumps(mine))
    start = ["data", "construct", "voc", "--from", str(file), "--out", str(out),
             "--model", "openai:tiny"]  # fmt: skip
    assert main(start) == 2
    assert "the address of the endpoint" in capsys.readouterr().err
    mind = Words(lambda prompt: says(prompt) if "velorin" in prompt else " five")
    with running(Endpoint(mind, context=4096)) as endpoint:
        asked = [*start, "--base-url", endpoint.address]
        assert main([*asked, "--engine-option", "concurrenzy=2"]) == 2
        assert "did you mean 'concurrency'" in capsys.readouterr().err
        assert main([*asked, "--engine-option", "concurrency=2"]) == 0
    assert {row["ids"]["teacher"] for row in lines(out)} == {"tiny"}


def test_no_record_at_all_says_what_to_do(tmp_path: Path) -> None:
    file, out = tmp_path / "mine.jsonl", tmp_path / "o.jsonl"
    mine = {"id": "1", "question": "Does velorin 1 help?", "choices": GOLD, "answer": "no"}
    file.write_text(json.dumps(mine))
    for _ in range(2):  # also when it is finished already
        with pytest.raises(
            UserError, match=r"no record was made of 1 items \(hard_cap .*: a lower"
        ):
            build(file, out, engine=ScriptedEngine(never))
    more = {"engine": ScriptedEngine(never), "options": {"min_agreement": "0"}}
    assert build(file, tmp_path / "all.jsonl", **more)["counts"]["kept"] > 0


def test_records_of_the_labelled_set_are_counted_aloud(tmp_path: Path, labelled: Path) -> None:
    said: list[str] = []
    build(labelled, tmp_path / "none.jsonl", said.append)
    assert not any("quarantine" in line for line in said)
    rows = {str(99000000 + k): row(k, GOLD[k % 3]) for k in range(6)}
    rows[official_split().folds[2][0]] = row(6, "yes")
    labelled.write_text(json.dumps(rows, indent=1))
    for _ in range(2):  # also when it is finished already
        said.clear()
        build(labelled, tmp_path / "some.jsonl", said.append)
        records = [*lines(tmp_path / "some.jsonl"), *lines(tmp_path / "some.pairs.jsonl")]
        own = sum(r["ids"]["pmid"] == official_split().folds[2][0] for r in records)
        assert own > 4
        told = f"{own} of {len(records)} records are made from PubMedQA's labelled set: under a"
        assert said[-1].startswith(told)
        assert "(with fold = 1 it takes all" in said[-1]


def test_what_is_learned_is_what_was_asked_and_said(tmp_path: Path, labelled: Path) -> None:
    engine = ScriptedEngine(says)
    build(labelled, tmp_path / "voc.jsonl", engine=engine)
    prompts = {digest(p): p for call in engine.calls for p in call.prompts}
    checked = 0
    for example in read_jsonl(tmp_path / "voc.jsonl", Example):
        given, learned = render(example.template, example.fields, chat=ChatFormat("", eos="</s>"))
        assert given.text == render_prompt(example.template, example.fields, chat=ChatFormat(""))
        if example.template in ("voc.hypothesise", "voc.check"):
            assert prompts[example.ids["prompt"]] == given.text
            made = says(given.text).partition("\n\n")[0]
            assert learned.text == f"{made}</s>"
            checked += 1
    assert checked > 36


def test_an_item_that_the_endpoint_refuses_is_a_reject(tmp_path: Path, labelled: Path) -> None:
    class Filtered(ScriptedEngine):
        def complete(self, prompts, **settings):  # type: ignore[no-untyped-def]
            for index, prompt in enumerate(prompts):
                if number(prompt) == 6 and "at most one is right" in prompt:
                    raise PromptError("refused (400): content_filter", index=index)
            return super().complete(prompts, **settings)

    build(labelled, tmp_path / "voc.jsonl", engine=Filtered(says))
    rejects = {reject["id"]: reject for reject in lines(tmp_path / "voc.rejects.jsonl")}
    lost = rejects["99000006"]
    assert lost["reason"] == "teacher_refused"
    assert lost["detail"]["why"] == "refused (400): content_filter"
    made = {record["ids"]["item"] for record in lines(tmp_path / "voc.jsonl")}
    assert made >= {str(99000000 + k) for k in (0, 1, 2, 3, 5, 7, 8, 9, 10, 11)}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("verdict", ["generated", "scored"])
def test_killed_and_run_again_gives_the_same_bytes(
    tmp_path: Path, labelled: Path, verdict: str
) -> None:
    options = {"fold": "1", "verdict": verdict}

    def scores(prompt: str, choices: Sequence[str]) -> list[float]:
        return [2.0 * (c.strip() == GOLD[number(prompt) % 3]) for c in choices]

    def dies(prompt: str) -> str:
        if number(prompt) == 9:
            raise Killed
        return says(prompt)

    build(labelled, tmp_path / "a" / "o.jsonl", options=options,
          engine=ScriptedEngine(says, scores))  # fmt: skip
    out = tmp_path / "b" / "o.jsonl"
    with pytest.raises(Killed):
        build(labelled, out, options=options, engine=ScriptedEngine(dies, scores))
    with (tmp_path / "b" / "o.progress.jsonl").open("ab") as handle:
        handle.write(b'{"block": 2, "exam')  # the line that was being written
    again = ScriptedEngine(says, scores)
    build(labelled, out, options=options, engine=again)
    assert min(number(p) for call in again.calls for p in call.prompts) == 8
    names = ("o.jsonl", "o.pairs.jsonl", "o.rejects.jsonl", "o.manifest.json")
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    once_more = ScriptedEngine()
    build(labelled, out, options=options, engine=once_more)
    assert not once_more.calls
    (tmp_path / "b" / "o.pairs.jsonl").write_text("")
    with pytest.raises(UserError, match=r"o\.pairs\.jsonl: the file is not the one"):
        build(labelled, out, options=options)


def test_a_model_without_logprobs_can_teach(tmp_path: Path, labelled: Path) -> None:
    found = build(labelled, tmp_path / "o.jsonl", engine=ScriptedEngine(says, has_logprobs=False))
    assert found["counts"]["kept"] > 50


def test_settings_by_name() -> None:
    assert settings_of("voc", {"fold": "4", "verdict": "scored"}).fold == 4
    with pytest.raises(UserError, match=r"unknown option of voc 'foldd'.*did you mean 'fold'"):
        settings_of("voc", {"foldd": "4"})
