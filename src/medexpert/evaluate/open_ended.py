"""Free answers -> overlap with references and grades of a judge, each marked as what it is.

Answers stream to predictions.jsonl, one line each, so that a stopped run goes on; result.json has
its own shape (`kind: open`), since nothing here is accuracy. A question that the engine refuses is
an empty answer with the reason (`refused`), a grade that the judge refuses is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medexpert import manifest
from medexpert.evaluate import overlap
from medexpert.evaluate.resume import refuse_other
from medexpert.evaluate.run import RESULT, leaks
from medexpert.evaluate.sampling import sample
from medexpert.evaluate.statistics import bootstrap_ratio
from medexpert.evaluate.tasks.open_tasks import OpenQuestion, OpenTask
from medexpert.prompt import judge as judging
from medexpert.prompt import template
from medexpert.prompt.asking import versioned
from medexpert.prompt.ledger import Asked, Ledger
from medexpert.records import UserError, canonical_json, digest

if TYPE_CHECKING:
    from medexpert.engines.base import Completion, Engine

ANSWERS, HEADER = "predictions.jsonl", "run.json"
TEMPLATE = "chat.qa"
BATCH = 8
OVERLAPS: dict[str, Callable[[str, str], float]] = {
    "token_f1": overlap.token_f1, "rouge_l": overlap.rouge_l,
}  # fmt: skip
AT_LEAST = {least: f"at_least_{least}" for least in judging.GRADES[1:]}


def evaluate_open(
    engine: Engine,
    task: OpenTask,
    *,
    data: Path,
    out: Path,
    key: str,
    progress: Callable[[str], None],
    judge: Engine | None = None,
    limit: int = 0,
    max_tokens: int = 256,
    seed: int = 0,
) -> dict[str, Any]:
    """Ask every question (a sample of `limit`, 0 = all), score the answers and write them to `out`.

    Returns the content of result.json. Work finished under the same key is returned as it is; an
    interrupted run goes on. Raises UserError when there is no question, and for a folder that
    holds other work.
    """
    # What is asked and how it is graded belong to the key: other templates, other answers.
    key = digest([key, versioned(1, (TEMPLATE,)), judging.version() if judge else ""])
    if manifest.is_complete(out, key):
        finished: dict[str, Any] = manifest.read_json(out / RESULT)
        return finished
    asked = sample(task.load(data), limit)
    if not asked:
        raise UserError(f"{task.name} has no questions", where=str(data))
    header = {
        "key": key, "kind": "open", "task": task.name, "task_version": task.version,
        "model": engine.name, "seed": seed, "limit": limit, "max_tokens": max_tokens,
        "judge": judge.name if judge else "", "judge_version": judging.version() if judge else "",
        "template": template.template_id(TEMPLATE), "n": len(asked),
        "split_digest": digest([asdict(question) for question in asked]),
    }  # fmt: skip
    refuse_other(out, header)
    rows = _kept(out, header, asked)
    with manifest.disk_errors(out), (out / ANSWERS).open("a", encoding="utf-8") as handle:
        waiting = iter(asked[len(rows) :])
        while group := list(islice(waiting, BATCH)):
            first = all("refused" in row for row in rows)
            for row in _answered(group, engine, judge, max_tokens, seed, first=first):
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
                handle.flush()
                rows.append(row)
            progress(f"{task.name} · {engine.name}: {len(rows)}/{len(asked)}")
    result = header | {
        "engine": engine.facts(),
        "leaks": leaks(engine.facts().get("lineage") or {}, task.kept_out_as),
        "empty": sum(not row["text"].strip() and "refused" not in row for row in rows),
        "cut_off": sum(row["finish"] == "length" for row in rows),
        "refused": sum("refused" in row for row in rows),
        "scores": scores(rows, seed=seed),
        "versions": manifest.versions(),
    }
    manifest.write_json(out / RESULT, result)
    files = [out / ANSWERS, out / RESULT]
    manifest.write_manifest(out, key=key, files=files, facts={"task": task.name, "n": len(rows)})
    return result


def scores(rows: Sequence[dict[str, Any]], *, seed: int) -> dict[str, Any]:
    """{"overlap": {...}, "judge": {...} | None} of answered rows.

    Overlap: mean against the nearest reference with a bootstrap interval over questions. Judge:
    TREC LiveQA's average (grade - 1, 0 to 3; no grade counts 0) and the shares graded at least 2,
    3, 4 of all questions; None where no answer at all has a grade. `unparsed` are replies without
    one grade, `refused` answers that the judge refused; a question without an answer is neither.
    """
    ones = [1.0] * len(rows)
    found = {}
    for name in OVERLAPS:
        values = [float(row["overlap"][name]) for row in rows]
        interval = bootstrap_ratio(values, ones, seed=seed)
        found[name] = {"mean": float(np.mean(values)), "interval": asdict(interval)}
    graded = [row for row in rows if "judge" in row]
    if not graded:
        return {"overlap": found, "judge": None}
    grades = [row["judge"]["grade"] for row in graded]
    refused = sum("refused" in row["judge"] for row in graded)
    unasked = sum("refused" in row for row in graded)
    lost = {"unparsed": grades.count(None) - refused - unasked, "refused": refused}
    if not any(grades):  # the judge said nothing about any answer: 0 would say that all are wrong
        unknown = dict.fromkeys(("average", "interval", *AT_LEAST.values()))
        return {"overlap": found, "judge": {**unknown, **lost}}
    points = [grade - 1 if grade else 0 for grade in grades]
    return {
        "overlap": found,
        "judge": {
            "average": float(np.mean(points)),
            "interval": asdict(bootstrap_ratio(points, [1.0] * len(points), seed=seed)),
            **{
                name: sum((grade or 0) >= least for grade in grades) / len(grades)
                for least, name in AT_LEAST.items()
            },
            **lost,
        },
    }


def told(result: dict[str, Any]) -> str:
    """The scores of a result in lines for the terminal."""
    lines = [
        f"{result['task']} · {result['model']}: n = {result['n']}, empty {result['empty']}, "
        f"cut off {result['cut_off']}"
        + (f", refused {refused}" if (refused := result.get("refused")) else "")
    ]
    for name, found in result["scores"]["overlap"].items():
        low, high = (100 * found["interval"][end] for end in ("low", "high"))
        lines.append(f"{name}: {100 * found['mean']:.1f} % ({low:.1f} to {high:.1f}, "
                     f"{found['interval']['method']} 95 %), wording and not truth")  # fmt: skip
    if grades := result["scores"]["judge"]:
        lines.append(f"grades of {result['judge']}: {_grades_told(grades)}")
    return "\n".join(lines)


def _grades_told(grades: dict[str, Any]) -> str:
    lost = f"unparsed {grades['unparsed']}"
    if refused := grades.get("refused"):
        lost += f", refused {refused}"
    if grades["average"] is None:
        return f"nothing graded; no reply states one grade ({lost})"
    interval = grades["interval"]
    shares = ", ".join(f"{100 * grades[name]:.1f} % {least} or more"
                       for least, name in AT_LEAST.items())  # fmt: skip
    return (
        f"average {grades['average']:.2f} of 3 ({interval['low']:.2f} to {interval['high']:.2f}, "
        f"{interval['method']} 95 %); of grades 1 to 4 {shares}; {lost}"
    )


def _answered(
    group: Sequence[OpenQuestion], engine: Engine, judge: Engine | None, max_tokens: int, seed: int,
    *, first: bool,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Rows of a batch; `first`: no question was answered before. Raises UserError where all are
    refused, of a whole batch or the first: then the engine is at fault, not a question."""
    ledger = Ledger(engine, seed=seed)
    asked = [
        Asked(
            question.id,
            template.render_prompt(
                TEMPLATE, {"question": question.question}, chat=engine.chat, lang=question.lang
            ),
            template.template_id(TEMPLATE, question.lang),
        )
        for question in group
    ]
    made = ledger.each(asked, max_tokens=max_tokens)
    _check_refused(group, made, engine, first)
    texts = ["" if isinstance(one, str) else one.text for one in made]
    grades: dict[str, dict[str, Any]] = {}
    if judge:
        given = [k for k, one in enumerate(made) if not isinstance(one, str)]
        asked_for = [group[k] for k in given]
        replies = _replies(asked_for, [texts[k] for k in given], judge, seed)
        if given:
            _check_refused(asked_for, [one for one, _ in replies], judge, first)
        grades = {q.id: _grade(*reply) for q, reply in zip(asked_for, replies, strict=True)}
    for question, one, text in zip(group, made, texts, strict=True):
        yield {
            "id": question.id,
            "text": text,
            **({"finish": "", "refused": one} if isinstance(one, str) else {"finish": one.finish}),
            "overlap": {
                name: overlap.best(score, text, question.references)
                for name, score in OVERLAPS.items()
            },
            **({"judge": grades.get(question.id, {"grade": None, "reply": ""})} if judge else {}),
            "trace": ledger.trace(question.id),
        }


def _check_refused(
    group: Sequence[OpenQuestion], made: Sequence[Completion | str], engine: Engine, first: bool
) -> None:
    if (first or len(made) == BATCH) and all(isinstance(one, str) for one in made):
        raise UserError(
            f"{engine.name} refuses {len(made)} questions in a row, so it or its settings are at "
            f"fault; none of these is recorded. The first: {made[0]}",
            where=f"question {group[0].id}",
        )


def _replies(
    group: Sequence[OpenQuestion], texts: Sequence[str], judge: Engine, seed: int
) -> list[tuple[Completion | str, dict[str, Any]]]:
    """What the judge says of each answer, or why it refuses, and the trace."""
    ledger = Ledger(judge, seed=seed)
    asked = [
        judging.asked(q.id, q.question, q.references, text, chat=judge.chat, lang=q.lang)
        for q, text in zip(group, texts, strict=True)
    ]
    made = ledger.each(asked, max_tokens=judging.MAX_TOKENS)
    return [(one, ledger.trace(q.id)) for q, one in zip(group, made, strict=True)]


def _grade(reply: Completion | str, trace: dict[str, Any]) -> dict[str, Any]:
    if isinstance(reply, str):
        return {"grade": None, "reply": "", "refused": reply}
    return {"grade": judging.parse_grade(reply.text), "reply": reply.text, "trace": trace}


def _kept(out: Path, header: dict[str, Any], asked: Sequence[OpenQuestion]) -> list[dict[str, Any]]:
    """Whole lines on disk that belong to `header`, in the questions' order; prepares the folder."""
    with manifest.disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / manifest.MANIFEST).unlink(missing_ok=True)
    path, rows = out / ANSWERS, []
    old = manifest.read_json(out / HEADER) if (out / HEADER).is_file() else None
    if path.is_file() and canonical_json(old) == canonical_json(header):
        for raw, question in zip(path.read_bytes().splitlines(True), asked, strict=False):
            try:
                row = json.loads(raw)
            except ValueError:
                break
            if not raw.endswith(b"\n") or row.get("id") != question.id:
                break
            rows.append(row)
    manifest.write_text(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    manifest.write_json(out / HEADER, header)
    return rows
