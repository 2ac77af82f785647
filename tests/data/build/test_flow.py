"""What a build takes out, keeps and says, source by source, on planted cases."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from invented import prose
from medexpert.data.build import build
from medexpert.data.card import unaccounted
from medexpert.recipe import Run
from medexpert.records import Document, Example, UserError, read_jsonl

Make = Callable[..., Run]
Rows = Callable[..., Path]


def made(recipe: Run, folder: Path) -> dict[str, Any]:
    facts = build(recipe, folder, key="k", progress=lambda line: None)
    for stage in facts["stages"].values():
        assert all(unaccounted(source) == 0 for source in stage["sources"].values())
    return facts


def drops(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "drops.jsonl").read_text().splitlines()]


def documents(folder: Path) -> list[Document]:
    return list(read_jsonl(folder / "knowledge.jsonl", Document))


def general(path: Path, **more: Any) -> dict[str, Any]:
    return {"source": "general-en", "path": str(path), **more}


def test_the_copy_with_the_best_licence_stays(
    tmp_path: Path, write_rows: Rows, make_recipe: Make
) -> None:
    text = prose(1, 20)
    first = [{"id": "unknown", "text": text, "license": "none stated"}]
    second = [{"id": "free", "text": text.replace("followed", "watched", 1), "license": "MIT"}]
    sources = [
        {"source": "pubmed-abstracts", "path": str(write_rows("a.jsonl", first))},
        {**general(write_rows("b.jsonl", second)), "role": "train"},
    ]
    made(make_recipe(knowledge=sources), tmp_path / "out")
    assert [d.id for d in documents(tmp_path / "out")] == ["free"]
    (drop,) = drops(tmp_path / "out")
    assert (drop["id"], drop["reason"], drop["of"]) == ("unknown", "near_duplicate", "free")


def test_a_dose_apart_is_another_text(tmp_path: Path, write_rows: Rows, make_recipe: Make) -> None:
    text = prose(3, 20)
    rows = [
        {"id": f"d{dose}", "text": f"{text} Take {dose} mg once a day."} for dose in (5, 10, 50)
    ]
    path = write_rows("g.jsonl", rows)
    facts = made(make_recipe(knowledge=[general(path)]), tmp_path / "out")
    assert len(documents(tmp_path / "out")) == 3
    assert facts["stages"]["knowledge"]["near_duplicates_spared"] == {"numbers_differ": 3}
    loose = make_recipe(knowledge=[general(path)], numbers_must_agree=False)
    made(loose, tmp_path / "loose")
    assert len(documents(tmp_path / "loose")) == 1


def test_chinese_copies_in_the_other_script(
    tmp_path: Path, write_rows: Rows, make_recipe: Make
) -> None:
    simplified = (
        "这个药用于治疗发热和头痛，每日服用两次。老人和小儿应当遵医嘱使用。"
        "服药以后如果出现皮疹，请马上停药。"
    )
    traditional = (
        "這個藥用於治療發熱和頭痛，每日服用兩次。老人和小兒應當遵醫囑使用。"
        "服藥以後如果出現皮疹，請馬上停藥。"
    )
    texts = {"s": simplified, "t": traditional}
    rows = [{"id": name, "text": text, "lang": "zh"} for name, text in texts.items()]
    path = write_rows("zh.jsonl", rows)
    facts = made(make_recipe(knowledge=[general(path)]), tmp_path / "out")
    assert facts["stages"]["knowledge"]["sources"]["general-en"]["duplicates"]["near"] == 1


def test_another_question_about_the_same_text_stays(
    tmp_path: Path, write_rows: Rows, make_recipe: Make
) -> None:
    answer = prose(5, 20)
    rows = [
        {"id": "a", "question": "How is Ambler syndrome inherited?", "answer": answer},
        {"id": "b", "question": "How is Bolder syndrome inherited?", "answer": answer},
        {"id": "c", "question": "How is Bolder syndrome inherited?", "answer": answer + " So."},
    ]
    source = {"source": "medquad-qa", "path": str(write_rows("q.jsonl", rows))}
    facts = made(make_recipe(instruct=[source]), tmp_path / "out")
    kept = {e.id for e in read_jsonl(tmp_path / "out" / "instruct.jsonl", Example)}
    assert kept == {"a", "b"}
    assert facts["stages"]["instruct"]["near_duplicates_spared"]["questions_differ"] >= 1


def test_planted_leaks_leave_every_stage(
    tmp_path: Path, write_rows: Rows, make_recipe: Make
) -> None:
    def other(seed: int, sentences: int) -> str:  # shares no run of words with the rest
        return " ".join(reversed(prose(seed, sentences).split()))

    items = [
        {"id": f"b{i}", "question": other(100 + i, 1), "choices": ["one way", "another way"],
         "answer": 0, "context": other(200 + i, 3)} for i in range(20)
    ]  # fmt: skip
    benchmark = f"file:{write_rows('bench.jsonl', items)}"
    leak = items[3]["context"]
    text = [{"id": f"t{i}", "text": prose(i, 6)} for i in range(20)]
    text.append({"id": "leak", "text": f"{prose(50, 4)} {leak} {prose(51, 4)}"})
    asked = [{"id": f"q{i}", "question": prose(i, 1), "answer": prose(60 + i, 2)} for i in range(9)]
    asked.append({"id": "leak", "question": items[5]["question"], "answer": "The one way."})
    recipe = make_recipe(
        quarantine=[benchmark],
        knowledge=[general(write_rows("t.jsonl", text))],
        instruct=[{"source": "medquad-qa", "path": str(write_rows("q.jsonl", asked))}],
    )
    facts = made(recipe, tmp_path / "out")
    gone = {(d["stage"], d["id"]): d["item"] for d in drops(tmp_path / "out")}
    assert gone == {("knowledge", "leak"): "b3", ("instruct", "leak"): "b5"}
    assert facts["quarantine"][benchmark]["items"] == 20


def test_later_files_take_records_back(tmp_path: Path, make_recipe: Make) -> None:
    def citation(pmid: int) -> str:
        return (
            f"<PubmedArticle><MedlineCitation><PMID>{pmid}</PMID><Article>"
            f"<ArticleTitle>Title {pmid}</ArticleTitle><Abstract><AbstractText>{prose(pmid, 4)}"
            "</AbstractText></Abstract></Article></MedlineCitation></PubmedArticle>"
        )

    folder = tmp_path / "medline"
    folder.mkdir()
    deleted = "<DeleteCitation><PMID>7001</PMID></DeleteCitation>"
    for name, body in (
        ("1", "".join(map(citation, (7001, 7002)))),
        ("2", citation(7003) + deleted),
    ):
        text = f"<?xml version='1.0'?><PubmedArticleSet>{body}</PubmedArticleSet>"
        (folder / f"pubmed26n000{name}.xml").write_text(text)
    source = {"source": "medline-baseline", "path": str(folder)}
    facts = made(make_recipe(knowledge=[source]), tmp_path / "out")
    dropped = facts["stages"]["knowledge"]["sources"]["medline-baseline"]["dropped"]
    assert dropped == {"deleted_citation": 1, "revoked": 1}
    assert {d.ids["pmid"] for d in documents(tmp_path / "out")} == {"7002", "7003"}


def test_the_last_version_of_a_citation_stays(tmp_path: Path, make_recipe: Make) -> None:
    folder = tmp_path / "medline"
    folder.mkdir()

    def file(number: int, *versions: tuple[int, str], deleted: int = 0) -> None:
        body = "".join(
            f"<PubmedArticle><MedlineCitation><PMID>{pmid}</PMID><Article><ArticleTitle>{title}"
            "</ArticleTitle><Abstract><AbstractText>"
            f"{prose(sum(map(ord, title)), 4)}</AbstractText>"
            "</Abstract></Article></MedlineCitation></PubmedArticle>" for pmid, title in versions
        )  # fmt: skip
        body += f"<DeleteCitation><PMID>{deleted}</PMID></DeleteCitation>" if deleted else ""
        text = f"<?xml version='1.0'?><PubmedArticleSet>{body}</PubmedArticleSet>"
        (folder / f"pubmed26n000{number}.xml").write_text(text)

    file(1, (7001, "Old one"), (7002, "Old two"), (7003, "Gone"))
    file(2, (7001, "New one"), deleted=7003)
    file(3, (7002, "New two"), (7003, "Back"))
    source = {"source": "medline-baseline", "path": str(folder)}
    facts = made(make_recipe(knowledge=[source]), tmp_path / "out")
    entry = facts["stages"]["knowledge"]["sources"]["medline-baseline"]
    assert entry["dropped"] == {"superseded": 2, "deleted_citation": 1, "revoked": 1}
    titles = {d.title.rstrip(".") for d in documents(tmp_path / "out")}
    assert titles == {"New one", "New two", "Back"}


def test_nothing_held_out_is_trained_on_but_for_a_number(
    tmp_path: Path, write_rows: Rows, make_recipe: Make
) -> None:
    rows = [{"id": f"d{n}", "text": f"{prose(3, 20)} Take {n} mg once a day."} for n in range(20)]
    rows += [{"id": f"e{n}", "text": prose(50 + n, 20)} for n in range(5)]
    source = general(write_rows("g.jsonl", rows), heldout=5)
    made(make_recipe(knowledge=[source]), tmp_path / "out")
    held = {d.id for d in read_jsonl(tmp_path / "out" / "heldout.jsonl", Document)}
    assert held == {f"e{n}" for n in range(5)}


def test_copies_are_found_in_a_large_bucket(
    tmp_path: Path, write_rows: Rows, make_recipe: Make
) -> None:
    """Leaflets alike but for the dose, and near copies of some with the same dose."""
    text = prose(8, 30)
    rows = [{"id": f"d{n}", "text": f"{text} Take {n} mg once a day."} for n in range(1, 301)]
    rows += [
        {"id": f"c{n}", "text": f"{text} Take {n} mg once each day."} for n in range(1, 301, 10)
    ]
    facts = made(make_recipe(knowledge=[general(write_rows("g.jsonl", rows))]), tmp_path / "out")
    found = facts["stages"]["knowledge"]["sources"]["general-en"]["duplicates"]["near"]
    assert found >= 29


def test_private_text_is_redacted_or_refused(
    tmp_path: Path, make_recipe: Make, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("presidio_analyzer")
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "wong.txt").write_text(f"Patient: Alice Wong, MRN 4471230. {prose(1, 6)}")
    (folder / "plain.txt").write_text(prose(2, 6))
    source = {"source": "local-text", "path": str(folder), "phi": "redact"}
    caplog.set_level("DEBUG")
    facts = made(make_recipe(knowledge=[source]), tmp_path / "out")
    entry = facts["stages"]["knowledge"]["sources"]["local-text"]
    assert entry["kept"] == 2
    assert entry["redacted"]["NAME"] >= 1
    refused = make_recipe(knowledge=[{**source, "phi": "refuse"}])
    facts = made(refused, tmp_path / "refused")
    assert facts["stages"]["knowledge"]["sources"]["local-text"]["refused"] == {"phi_refused": 1}
    for name in ("out", "refused"):
        for file in (tmp_path / name).rglob("*"):
            if file.is_file():
                text = file.read_bytes()
                assert b"Alice" not in text
                assert b"4471230" not in text
                assert b"wong" not in text
    assert "Wong" not in caplog.text


def test_built_examples_are_balanced(tmp_path: Path, write_rows: Rows, make_recipe: Make) -> None:
    def row(i: int) -> dict[str, Any]:
        negative = i % 4 == 0
        verb = "does not reduce" if negative else "reduces"
        return {
            "id": f"a{i}", "pmid": str(9_000_000 + i),
            "title": f"Early drug {i} therapy {verb} fever in children",
            "sections": [
                {"label": "METHODS", "text": prose(i, 2)},
                {"label": "RESULTS", "text": prose(900 + i, 2)},
                {"label": "CONCLUSIONS", "text": f"Early therapy {verb} fever in children."},
            ],
        }  # fmt: skip

    path = write_rows("stage1/pubmed_rct_abstracts.jsonl", [row(i) for i in range(40)])
    source = {
        "source": "pqa-a-built", "of": ["pubmed-rct-abstracts"], "path": str(path),
        "label_ratio": 2.0,
    }  # fmt: skip
    facts = made(make_recipe(adapt=[{**source, "of": ("pubmed-rct-abstracts",)}]), tmp_path / "out")
    examples = list(read_jsonl(tmp_path / "out" / "adapt.jsonl", Example))
    labels = Counter(e.fields["answer"] for e in examples)
    assert labels == {"yes": 20, "no": 10}
    assert all(e.fields["question"].startswith("Does early drug") for e in examples)
    assert all("Early therapy" not in " ".join(e.fields["contexts"]) for e in examples)
    entry = facts["stages"]["adapt"]["sources"]["pqa-a-built"]
    assert entry["dropped"]["label_surplus"] == 10


def test_own_examples_come_back(tmp_path: Path, make_recipe: Make) -> None:
    from medexpert.records import to_json

    asked = {"question": "Why?", "answer": prose(1, 2)}
    choice = {"question": "Which?", "options": {"A": "x", "B": "y"}, "answer_idx": "C"}
    rows = [
        Example("x", "mine", "qa", "chat.qa", asked),
        Example("a", "mine", "essay", "chat.qa", asked),
        Example("b", "mine", "qa", "chat.aq", asked),
        Example("c", "mine", "conversation", "chat.conversation", {}),
        Example("d", "mine", "conversation", "chat.conversation", {"messages": [{"role": "x"}]}),
        Example("e", "mine", "mcq", "chat.mcq_label", {**choice, "explanation": ""}),
        Example("f", "mine", "task", "pubmedqa.lm_eval", asked),
        Example("g", "mine", "qa", "chat.qa", ["list"]),  # type: ignore[arg-type]
        Example("h", "mine", "qa", "chat.qa", asked, lang=3),  # type: ignore[arg-type]
    ]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(to_json, rows)) + "\n")
    source = {"source": "own-examples", "path": str(path)}
    facts = made(make_recipe(instruct=[source], max_bad_rows=1.0), tmp_path / "out")
    entry = facts["stages"]["instruct"]["sources"]["own-examples"]
    assert (entry["kept"], entry["faults"]) == (1, 8)
    told = [json.loads(line)["what"] for line in (tmp_path / "out/drops.jsonl").open()]
    for part in (
        "kind 'essay' with this template; allowed: qa", "did you mean 'chat.qa'",
        "field 'messages' is missing", "field 'content' is missing", "'C' names no option",
        "field 'contexts' is missing", "an object is expected, not a list",
    ):  # fmt: skip
        assert any(part in line for line in told), part


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ({"source": "pqa-a-built"}, "of = names of the sources to build from is needed"),
        ({"source": "pqa-a-built", "of": ("medquad-qa",)}, "unknown source to build from"),
        ({"source": "pubmedqa", "of": ("pubmed-rct-abstracts",)}, "of is for builders"),
    ],
)
def test_builders_say_what_they_need(
    tmp_path: Path, make_recipe: Make, source: dict[str, Any], match: str
) -> None:
    with pytest.raises(UserError, match=match):
        made(make_recipe(adapt=[source]), tmp_path / "out")


def test_a_filter_switched_off_by_a_wrong_name(tmp_path: Path, make_recipe: Make) -> None:
    recipe = make_recipe(
        knowledge=[{"source": "starter-passages-en"}], filters={"off": ("langage",)}
    )
    with pytest.raises(UserError, match=r"unknown filter 'langage'.*did you mean 'language'"):
        made(recipe, tmp_path / "out")


def test_small_sources_are_passed_over_again(
    tmp_path: Path, write_rows: Rows, make_recipe: Make
) -> None:
    small = write_rows("s.jsonl", [{"id": f"s{i}", "text": prose(i, 4)} for i in range(10)])
    large = write_rows("l.jsonl", [{"id": f"l{i}", "text": prose(99 + i, 4)} for i in range(90)])
    sources = [
        {"source": "pubmed-abstracts", "path": str(small), "weight": 0.4},
        {**general(large), "weight": 0.6},
    ]
    facts = made(make_recipe(knowledge=sources, max_epochs=3.0), tmp_path / "out")
    entry = facts["stages"]["knowledge"]["sources"]["pubmed-abstracts"]
    assert (entry["records"], entry["epochs"]) == (30, 3.0)
    assert Counter(d.id for d in documents(tmp_path / "out")).most_common(1)[0][1] == 3


def test_an_item_without_a_label_is_not_trained_on(tmp_path: Path, make_recipe: Make) -> None:
    item = {"QUESTION": "Does rest help?", "CONTEXTS": [prose(1, 3)], "LABELS": ["RESULTS"]}
    labelled = {"12": {**item, "LONG_ANSWER": "It does.", "final_decision": "yes"}}
    (tmp_path / "u.json").write_text(json.dumps({"11": {**item, "LONG_ANSWER": "It does."}}))
    (tmp_path / "a.json").write_text(json.dumps(labelled))
    sources = [
        {"source": "pubmedqa-unlabelled", "path": str(tmp_path / "u.json")},
        {"source": "pubmedqa-artificial", "path": str(tmp_path / "a.json")},
    ]
    made(make_recipe(adapt=sources), tmp_path / "out")
    assert [e.id for e in read_jsonl(tmp_path / "out" / "adapt.jsonl", Example)] == ["12"]
    assert [(d["id"], d["reason"]) for d in drops(tmp_path / "out")] == [("11", "no_answer")]
