"""task x strategy x engine -> predictions.jsonl (resumable) -> result.json, manifest last.

Every answer is written as it comes, so that a stopped run goes on where it stopped. Predictions of
another key (other model, recipe, code of the step) are never mixed in: `run.json` beside them says
what they belong to, and anything else is discarded with a message.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medexpert import manifest
from medexpert.evaluate import metrics, statistics
from medexpert.evaluate.tasks import Task
from medexpert.records import (
    NO_ANSWER,
    Prediction,
    Question,
    UserError,
    digest,
    from_mapping,
    to_json,
    unknown_name,
)

if TYPE_CHECKING:
    from medexpert.engines.base import Engine

Progress = Callable[[str], None]
PREDICTIONS, OFFICIAL, RESULT, HEADER = (
    "predictions.jsonl",
    "predictions.json",
    "result.json",
    "run.json",
)
EXAMPLES = "examples.json"
EXAMPLE_POOL = 40
"""Questions whose text is kept for the report: those with the smallest SHA-256 of their id, so the
choice cannot depend on the answers."""
SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True)
class Setting:
    """What one evaluation is, apart from the model: the part that must agree to be compared."""

    task: Task
    split: str
    protocol: str
    strategy: str
    limit: int
    seed: int
    key: str


def evaluate(
    engine: Engine,
    task: Task,
    *,
    data: Path,
    strategy: str,
    protocol: str,
    out: Path,
    key: str,
    progress: Progress,
    limit: int = 0,
    seed: int = 0,
    split: str = "test",
) -> dict[str, Any]:
    """Ask every question of the split (the first `limit`, 0 = all) and write the result to `out`.

    Returns the content of result.json. Work already finished under the same key is returned as it
    is; an interrupted run goes on. Raises UserError for an unknown strategy, protocol or split.
    """
    if manifest.is_complete(out, key):
        progress(f"{out}: complete, nothing to do")
        finished: dict[str, Any] = manifest.read_json(out / RESULT)
        return finished
    task.check_protocol(protocol)
    strategies = _strategies()
    if strategy not in strategies:
        raise unknown_name("strategy", strategy, strategies)
    setting = Setting(task, split, protocol, strategy, limit, seed, key)
    questions = _questions(task, data, split, limit, progress)
    header = _header(setting, engine, questions)
    done = _resume(out, header, questions, progress)
    resumed = len(done)
    started = time.monotonic()
    earlier = float(manifest.read_json(out / HEADER).get("seconds", 0.0))
    try:
        answers = strategies[strategy].predict(
            questions[resumed:], engine, protocol=protocol, seed=seed
        )
        if resumed < len(questions):
            done += _stream(answers, questions[resumed:], out / PREDICTIONS, progress, header)
    finally:
        # Kept even when the run is interrupted, so that `seconds` covers all its sessions.
        header["seconds"] = earlier + time.monotonic() - started
        manifest.write_json(out / HEADER, header)
    facts = {
        **_provenance(setting, engine, strategies[strategy]),
        "split_digest": header["split_digest"],
        "seconds": header["seconds"],
        "resumed_at": resumed,
    }
    return _finish(out, setting, questions, done, facts)


def score(
    predictions: Sequence[Prediction], choices: Sequence[str], *, seed: int
) -> dict[str, Any]:
    """Every number of result.json that follows from the answers alone.

    NO_ANSWER counts as wrong. `macro_f1` follows the official rule, under which it is a class of its
    own with F1 0; `macro_f1_choices` averages over the choices only. Bootstrap: 10,000 resamples.
    """
    truth = [p.answer for p in predictions]
    given = [p.choice for p in predictions]
    correct = sum(p.correct for p in predictions)
    unparsed = given.count(NO_ANSWER)
    return {
        "n": len(predictions),
        "correct": correct,
        "accuracy": metrics.accuracy(truth, given),
        "accuracy_interval": asdict(statistics.wilson(correct, len(predictions))),
        "accuracy_interval_bootstrap": asdict(statistics.bootstrap_accuracy(truth, given, seed=seed)),
        "macro_f1": metrics.macro_f1(truth, given),
        "macro_f1_interval": asdict(statistics.bootstrap_macro_f1(truth, given, seed=seed)),
        "macro_f1_choices": metrics.macro_f1_over(choices, truth, given),
        "per_class": metrics.per_class(truth, given),
        "histogram": metrics.histogram(given, choices),
        "gold_histogram": metrics.histogram(truth, choices),
        "confusion": metrics.confusion(truth, given),
        "unparsed": unparsed,
        "unparsed_rate": unparsed / len(predictions),
        "calibration": _calibration(predictions, choices),
        "majority_baseline": metrics.majority_baseline(truth),
        "tokens": _tokens(predictions),
    }


def read_predictions(folder: Path) -> list[Prediction]:
    """Predictions of a finished evaluation. Raises UserError when a line is bad."""
    path = folder / PREDICTIONS
    if not path.is_file():
        raise UserError("no predictions here", where=str(path))
    rows, fault = _read_lines(path)
    if fault:
        raise UserError(fault, where=f"{path}:{len(rows) + 1}")
    return rows


def _strategies() -> Mapping[str, Any]:
    from medexpert.prompt import STRATEGIES

    return STRATEGIES


def _questions(
    task: Task, data: Path, split: str, limit: int, progress: Progress
) -> list[Question]:
    if limit < 0:
        raise UserError(f"limit {limit} is negative", allowed="0 (all) or a number of questions")
    questions = task.load(data, split)
    if not questions:
        raise UserError(f"{task.name} has no questions in split {split!r}", where=str(data))
    if limit > len(questions):
        progress(f"{task.name}: limit {limit} is more than the {len(questions)} questions; all taken")
    return questions[:limit] if limit else questions


def _header(setting: Setting, engine: Engine, questions: Sequence[Question]) -> dict[str, Any]:
    """What predictions belong to. The split digest covers ids, gold answers and every shown text."""
    return {
        "key": setting.key,
        "task": setting.task.name,
        "task_version": setting.task.version,
        "split": setting.split,
        "protocol": setting.protocol,
        "strategy": setting.strategy,
        "seed": setting.seed,
        "model": engine.name,
        "n": len(questions),
        "split_digest": digest([asdict(question) for question in questions]),
    }


def _resume(
    out: Path, header: Mapping[str, Any], questions: Sequence[Question], progress: Progress
) -> list[Prediction]:
    """Predictions already on disk that belong to `header`; prepares the folder for the rest."""
    with manifest.disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        # A manifest of other work must not vouch for files that are about to change.
        (out / manifest.MANIFEST).unlink(missing_ok=True)
    path = out / PREDICTIONS
    kept: list[Prediction] = []
    old = manifest.read_json(out / HEADER) if (out / HEADER).is_file() else {}
    if path.is_file():
        different = [name for name in header if old.get(name) != header[name]]
        if different:
            progress(f"{path}: made for another {different[0]}; discarded, starting over")
        else:
            kept = _matching(path, questions, progress)
    seconds = old.get("seconds", 0.0) if kept else 0.0
    manifest.write_json(out / HEADER, {**header, "seconds": seconds})
    manifest.write_text(path, "".join(to_json(row) + "\n" for row in kept))
    if kept:
        progress(f"{path}: {len(kept)} of {len(questions)} questions answered already, going on")
    return kept


def _matching(path: Path, questions: Sequence[Question], progress: Progress) -> list[Prediction]:
    """The longest run of whole lines that answers the first questions in order."""
    rows, fault = _read_lines(path)
    kept: list[Prediction] = []
    for row, question in zip(rows, questions, strict=False):
        if (row.id, row.answer) != (question.id, question.answer):
            fault = fault or f"expected question {question.id}, found {row.id}"
            break
        kept.append(row)
    if fault:
        progress(f"{path}:{len(kept) + 1}: {fault}; asked again from here")
    return kept


def _read_lines(path: Path) -> tuple[list[Prediction], str]:
    """Whole, valid lines from the start of the file, and what ended them ('' = the file's end)."""
    rows: list[Prediction] = []
    for number, raw in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not raw.endswith(b"\n"):
            return rows, "a torn last line"
        try:
            rows.append(from_mapping(Prediction, json.loads(raw), where=f"{path}:{number}"))
        except (ValueError, UserError) as error:
            return rows, f"not a prediction ({error})"
    return rows, ""


def _stream(
    answers: Iterator[Prediction],
    questions: Sequence[Question],
    path: Path,
    progress: Progress,
    header: Mapping[str, Any],
) -> list[Prediction]:
    """Append predictions to `path` as they come, one flushed line each, and tell the rate."""
    written: list[Prediction] = []
    started = told = time.monotonic()
    total, before = header["n"], header["n"] - len(questions)
    title = f"{header['task']} · {header['strategy']} · {header['model']}"
    with manifest.disk_errors(path), path.open("ab") as handle:
        for answer in answers:
            _check(answer, questions, len(written), header["strategy"])
            handle.write((to_json(answer) + "\n").encode("utf-8"))
            handle.flush()
            written.append(answer)
            now = time.monotonic()
            if now - told >= SECONDS_BETWEEN_LINES or len(written) == len(questions):
                told = now
                rate = len(written) / max(now - started, 1e-9)
                left = (len(questions) - len(written)) / rate
                progress(
                    f"{title}: {before + len(written)}/{total}, {rate:.2f} questions/s, "
                    f"{_duration(left)} left"
                )
    if len(written) != len(questions):
        raise RuntimeError(f"{header['strategy']} answered {len(written)} of {len(questions)}")
    return written


def _check(answer: Prediction, questions: Sequence[Question], index: int, strategy: str) -> None:
    """Hold a strategy to its promise: the asked order, a valid choice, the gold kept, Σp = 1."""
    if index >= len(questions):
        raise RuntimeError(f"{strategy} answered more than the {len(questions)} questions asked")
    question = questions[index]
    if answer.id != question.id or answer.answer != question.answer:
        raise RuntimeError(f"{strategy} answered {answer.id} where {question.id} was asked")
    if answer.choice not in (*question.choices, NO_ANSWER):
        raise RuntimeError(f"{strategy}: {answer.choice!r} is no choice of {question.id}")
    shares = answer.probabilities
    if shares and (
        set(shares) != set(question.choices) or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6)
    ):
        raise RuntimeError(f"{strategy}: the probabilities of {question.id} are not over its choices")


def _finish(
    out: Path,
    setting: Setting,
    questions: Sequence[Question],
    predictions: Sequence[Prediction],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write predictions.json (official format), examples.json, result.json and the manifest."""
    parsed = {p.id: p.choice for p in predictions if p.choice != NO_ANSWER}
    whole = setting.task.official and setting.split == "test" and not setting.limit
    result = {
        **{name: facts[name] for name in ("task", "task_version", "protocol", "strategy", "model")},
        **score(predictions, setting.task.choices, seed=setting.seed),
        "official": whole,
        # The official scorer takes all test ids or none; unparsed answers are left out, not guessed.
        "official_complete": whole and len(parsed) == len(predictions),
        "official_missing": len(predictions) - len(parsed),
        **facts,
        "versions": manifest.versions(),
    }
    if result["official_complete"]:
        truth = {q.id: q.answer for q in questions}
        result["official_score"] = metrics.official_score(parsed, truth)
    manifest.write_json(out / OFFICIAL, parsed)
    manifest.write_json(out / EXAMPLES, _examples(questions))
    manifest.write_json(out / RESULT, result)
    files = [out / name for name in (PREDICTIONS, OFFICIAL, EXAMPLES, RESULT)]
    shown = ("task", "task_version", "protocol", "strategy", "model", "n", "accuracy", "macro_f1")
    manifest.write_manifest(out, key=setting.key, files=files, facts={k: result[k] for k in shown})
    return result


def _provenance(setting: Setting, engine: Engine, strategy: Any) -> dict[str, Any]:
    return {
        "task": setting.task.name,
        "task_version": setting.task.version,
        "task_note": setting.task.note,
        "split": setting.split,
        "protocol": setting.protocol,
        "strategy": setting.strategy,
        "strategy_version": getattr(strategy, "version", None),
        "choices": list(setting.task.choices),
        "model": engine.name,
        "engine": engine.facts(),
        "seed": setting.seed,
        "limit": setting.limit,
        "key": setting.key,
    }


def _examples(questions: Sequence[Question]) -> list[dict[str, Any]]:
    """The text of up to EXAMPLE_POOL questions, chosen by hash of the id: see EXAMPLE_POOL."""
    chosen = sorted(questions, key=lambda q: digest(q.id))[:EXAMPLE_POOL]
    keys = ("id", "question", "contexts", "answer", "lang")
    return [{key: getattr(question, key) for key in keys} for question in chosen]


def _calibration(predictions: Sequence[Prediction], choices: Sequence[str]) -> dict[str, Any] | None:
    """Calibration over the predictions that carry probabilities; None when none does."""
    rows = [p for p in predictions if p.probabilities and p.answer in choices]
    if not rows:
        return None
    matrix = np.array([[p.probabilities[c] for c in choices] for p in rows], dtype=np.float64)
    gold = np.array([list(choices).index(p.answer) for p in rows], dtype=np.int64)
    return metrics.calibration(matrix, gold)


def _tokens(predictions: Sequence[Prediction]) -> dict[str, int]:
    """Sums of the token counts in the traces, by the names strategies give them."""
    total: Counter[str] = Counter()
    for prediction in predictions:
        counts = prediction.trace.get("tokens", {})
        if isinstance(counts, Mapping):
            total.update({str(k): int(v) for k, v in counts.items() if isinstance(v, int | float)})
        elif isinstance(counts, int | float):
            total["total"] += int(counts)
    return dict(sorted(total.items()))


def _duration(seconds: float) -> str:
    """'45 s', '12 min', '3 h 20 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
