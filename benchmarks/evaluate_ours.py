"""Our strategies with the local engine, as `medexpert evaluate` runs them."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from evaluate_result import arguments, write
from evaluate_work import PROTOCOL, read_questions, with_choices


def main() -> None:
    """Modes are the engine's dtypes. The part says what is asked."""
    args, work = arguments()
    from medexpert.verbs import open_engine

    engine, _ = open_engine(work["model"], dtype=args.mode, batch_tokens=4096, say=print)
    engine.complete(["Warm up."], max_tokens=2)
    asked = {"direct": direct, "voc": voc, "growth": growth}[work["part"]]
    write(args, facts=engine.facts(), **asked(work, engine))


def direct(work: dict[str, Any], engine: Any) -> dict[str, Any]:
    """Zero-shot label scores of all questions."""
    from medexpert.prompt.direct import Direct

    questions = read_questions(work)
    list(Direct().predict(questions[:1], engine, protocol=PROTOCOL, seed=1))
    worked = time.process_time()
    seconds, usage, made = timed(engine, Direct(), questions)
    cpu = time.process_time() - worked
    logprobs = [prediction.trace["logprobs"] for prediction in made]
    scores = [[row[c] for c in q.choices] for q, row in zip(questions, logprobs, strict=True)]
    return {"seconds": seconds, "cpu_seconds": cpu, "usage": usage, "scores": scores}


def voc(work: dict[str, Any], engine: Any) -> dict[str, Any]:
    """Verification-of-Choice: one rationale a choice, the verdict label-scored."""
    seconds, usage, made = timed(engine, strategy(work["max_tokens"]), read_questions(work))
    return {
        "seconds": seconds, "usage": usage, "predictions": [p.choice for p in made],
        "probabilities": [dict(p.probabilities) for p in made],
    }  # fmt: skip


def growth(work: dict[str, Any], engine: Any) -> dict[str, Any]:
    """The same with more choices, and with longer rationales."""
    questions = read_questions(work)
    cells = [(n, work["max_tokens"]) for n in work["choices"]]
    cells += [(3, length) for length in work["lengths"] if (3, length) not in cells]
    rows = []
    for choices, length in cells:
        engine.reuse.store.clear()
        asked = [with_choices(question, choices) for question in questions]
        seconds, usage, _ = timed(engine, strategy(length), asked)
        rows.append({"choices": choices, "max_tokens": length, "seconds": seconds,
                     "usage": usage, "questions": len(asked)})  # fmt: skip
    return {"seconds": sum(row["seconds"] for row in rows), "cells": rows}


def strategy(max_tokens: int) -> Any:
    """VoC in its plainest form: k = 1, one verify pass, label-scored."""
    from medexpert.prompt import strategies

    return strategies.get(f"voc:permutations=1:batch=16:max_tokens={max_tokens}")


def timed(engine: Any, how: Any, questions: list[Any]) -> tuple[float, dict[str, Any], list[Any]]:
    """(seconds, what the engine counted, predictions)."""
    before, started = engine.usage(), time.perf_counter()
    made = list(how.predict(questions, engine, protocol=PROTOCOL, seed=1))
    seconds = time.perf_counter() - started
    return seconds, dataclasses.asdict(engine.usage().since(before)), made


if __name__ == "__main__":
    main()
