"""task x strategy x engine -> predictions.jsonl (resumable) -> result.json, manifest last.

Every answer is written as it comes, so that a stopped run goes on where it stopped. Predictions of
another key (other model, recipe, code of the step) are never mixed in: `run.json` beside them says
what they belong to, and anything else is discarded with a message, or refused.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexpert import manifest
from medexpert.evaluate import metrics, refusals
from medexpert.evaluate.meter import Meter, per_question
from medexpert.evaluate.resume import HEADER, PREDICTIONS, Progress, refuse_other, resume
from medexpert.evaluate.sampling import RULE, sample
from medexpert.evaluate.scoring import score
from medexpert.evaluate.stopping import told_at_once
from medexpert.evaluate.tasks import Task
from medexpert.evaluate.tasks.own_file import PREFIX, is_own_file
from medexpert.prompt import strategies
from medexpert.records import (
    NO_ANSWER,
    Prediction,
    Question,
    UserError,
    digest,
    to_json,
)

if TYPE_CHECKING:
    from medexpert.engines.base import Engine

OFFICIAL, RESULT = "predictions.json", "result.json"
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
    start_over: bool = True,
) -> dict[str, Any]:
    """Ask every question of the split (a sample of `limit`, 0 = all) and write the result to `out`.

    Returns the content of result.json. Work already finished under the same key is returned as it
    is; an interrupted run goes on; other work in `out` is discarded, or refused when not
    `start_over`. Raises UserError for an unknown strategy, protocol or split.
    """
    if manifest.is_complete(out, key):
        finished: dict[str, Any] = manifest.read_json(out / RESULT)
        refused = refusals.told(finished.get("refused", 0))
        progress(f"{out}: complete, nothing to do{refused}")
        return finished
    task.check_protocol(protocol)
    chosen = strategies.get(strategy)
    setting = Setting(task, split, protocol, strategy, limit, seed, key)
    questions = _questions(task, data, split, limit, progress)
    header = _header(setting, engine, questions)
    if not start_over:
        refuse_other(out, header)
    done = resume(out, header, questions, progress)
    resumed = len(done)
    meter = Meter(out / HEADER, engine)
    try:
        ask = partial(
            chosen.predict, engine=engine, protocol=protocol, seed=seed,
            examples=_shown(task, data, questions), **_lent(chosen, questions),
        )  # fmt: skip
        given = any(not row.refused for row in done)
        answers = refusals.answers(ask, questions[resumed:], answered=given)
        if resumed < len(questions):
            done += _stream(
                answers, questions[resumed:], out / PREDICTIONS, progress, header, meter
            )
    finally:
        meter.save()  # also when interrupted, so that the bill covers all sessions
    usage = meter.usage()
    facts = {
        **_provenance(setting, engine, chosen),
        "split_digest": header["split_digest"],
        "seconds": meter.seconds(),
        "usage": usage,
        "per_question": per_question(usage),
        "resumed_at": resumed,
        "left_out": dict(task.left_out(data, split)) if task.left_out else {},
    }
    return _finish(out, setting, questions, done, facts)


def _questions(
    task: Task, data: Path, split: str, limit: int, progress: Progress
) -> list[Question]:
    if limit < 0:
        raise UserError(f"limit {limit} is negative", allowed="0 (all) or a number of questions")
    questions = task.load(data, split)
    if not questions:
        raise UserError(f"{task.name} has no questions in split {split!r}", where=str(data))
    twice = [name for name, n in Counter(q.id for q in questions).items() if n > 1]
    if twice:
        raise UserError(f"{task.name} has question {twice[0]} more than once", where=str(data))
    if limit > len(questions):
        progress(
            f"{task.name}: limit {limit} is more than the {len(questions)} questions; all taken"
        )
    return sample(questions, limit)


def _shown(task: Task, data: Path, questions: Sequence[Question]) -> list[Question]:
    """Solved questions that may be shown, without any that is asked: dev folds share items."""
    return not_asked(_solved(task, data), questions)


def _solved(task: Task, data: Path) -> list[Question]:
    return task.examples(data) if task.examples else []


def not_asked(examples: Sequence[Question], questions: Sequence[Question]) -> list[Question]:
    """The examples that are none of the questions."""
    asked = {question.id for question in questions}
    return [example for example in examples if example.id not in asked]


def _lent(strategy: Any, questions: Sequence[Question]) -> dict[str, Any]:
    """All questions for a strategy that borrows of them: a resumed run asks only the rest."""
    return {"lenders": questions} if getattr(strategy, "borrows", False) else {}


def inputs(task: Task, data: Path, split: str = "test") -> tuple[list[Question], list[Question]]:
    """All that a task hands to a strategy: its questions, and solved ones that may be shown.

    Raises UserError when the split does not exist or the data cannot be read.
    """
    return task.load(data, split), _solved(task, data)


def inputs_digest(task: Task, data: Path, split: str = "test") -> str:
    """Digest of :func:`inputs`, which see."""
    return digest_of(*inputs(task, data, split))


def digest_of(questions: Sequence[Question], examples: Sequence[Question]) -> str:
    """Digest of a task's inputs."""
    asked, shown = [asdict(q) for q in questions], [asdict(e) for e in examples]
    return digest([asked, shown] if shown else asked)


def _header(setting: Setting, engine: Engine, questions: Sequence[Question]) -> dict[str, Any]:
    """What predictions belong to. The split digest covers ids, gold answers and texts."""
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


def _stream(
    answers: Iterator[Prediction],
    questions: Sequence[Question],
    path: Path,
    progress: Progress,
    header: Mapping[str, Any],
    meter: Meter,
) -> list[Prediction]:
    """Append predictions to `path` as they come, one flushed line each, and tell the rate.

    Answers come in batches, so the rate counts whole ones: it is told when an answer arrives, for
    those before it and the time up to the last of them.
    """
    written: list[Prediction] = []
    known: set[str] = set()
    started = last = time.monotonic()
    told = started
    total, before = header["n"], header["n"] - len(questions)
    title = f"{header['task']} · {header['strategy']} · {header['model']}"

    def tell() -> None:
        rate = len(written) / max(last - started, 1e-9)
        progress(
            f"{title}: {before + len(written)}/{total}, {rate:.2f} questions/s, "
            f"{_duration((len(questions) - len(written)) / rate)} left"
        )

    many = "1 question" if len(questions) == 1 else f"{len(questions)} questions"
    progress(f"{title}: {many}, the first answers come after a whole batch")
    stopping = told_at_once(progress, f"{title}: stopping after the computation under way")
    with stopping, manifest.disk_errors(path), path.open("ab") as handle:
        for answer in answers:
            now = time.monotonic()
            if not written:
                told = now
            elif now - told >= SECONDS_BETWEEN_LINES:
                tell()
                meter.save()
                told = now
            _check(answer, questions, len(written), header["strategy"])
            for line in refusals.lines(answer, known):
                progress(f"{title}: {line}")
            handle.write((to_json(answer) + "\n").encode("utf-8"))
            handle.flush()
            written.append(answer)
            meter.answered += 1
            last = now
    if len(written) != len(questions):
        raise RuntimeError(f"{header['strategy']} answered {len(written)} of {len(questions)}")
    tell()
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
        set(shares) != set(question.choices)
        or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6)
    ):
        raise RuntimeError(
            f"{strategy}: the probabilities of {question.id} are not over its choices"
        )


def _finish(
    out: Path,
    setting: Setting,
    questions: Sequence[Question],
    predictions: Sequence[Prediction],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write predictions.json (official format), examples.json, result.json and the manifest."""
    parsed = {p.id: p.choice for p in predictions if p.choice != NO_ANSWER}
    whole = setting.task.is_official(setting.split, setting.protocol) and not setting.limit
    result = {
        **{name: facts[name] for name in ("task", "task_version", "protocol", "strategy", "model")},
        **score(predictions, setting.task.choices, seed=setting.seed, questions=questions),
        "official": whole,
        # The official scorer takes all test ids or none; the unparsed are left out, not guessed.
        "official_complete": whole and len(parsed) == len(predictions),
        "official_missing": len(predictions) - len(parsed),
        **facts,
        "versions": manifest.versions(),
    }
    if result["official_complete"] and setting.task.choices:  # the rule is for common labels
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
        "leaks": leaks(engine.facts().get("lineage") or {}, setting.task.kept_out_as),
        "seed": setting.seed,
        "limit": setting.limit,
        "limit_rule": RULE if setting.limit else "",
        "key": setting.key,
    }


def leaks(lineage: Mapping[str, Any], task: str) -> bool:
    """Whether a model was trained on data that was not checked against this benchmark.

    `lineage` is what a trained model's folder tells of itself; a base model tells nothing.
    """
    from medexpert.data.catalogue import BENCHMARKS

    checked = lineage.get("quarantine")
    if checked is None:
        return False
    if is_own_file(task):  # called by its name without the folder
        checked = [f"{PREFIX}{Path(name).name}" for name in checked if is_own_file(name)]
    known = task in BENCHMARKS or is_own_file(task)
    return bool(lineage.get("leaks")) or (known and task not in checked)


def _examples(questions: Sequence[Question]) -> list[dict[str, Any]]:
    """The text of up to EXAMPLE_POOL questions, chosen by hash of the id: see EXAMPLE_POOL."""
    chosen = sorted(questions, key=lambda q: digest(q.id))[:EXAMPLE_POOL]
    keys = ("id", "question", "choices", "contexts", "answer", "lang")
    return [{key: getattr(question, key) for key in keys} for question in chosen]


def _duration(seconds: float) -> str:
    """'45 s', '12 min', '3 h 20 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
