"""Measurements that training asks for on its way: held-out bits/byte, the task's dev fold.

Never the test split: what is measured here chooses checkpoints and stops training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexpert.evaluate.heldout import bits_per_byte
from medexpert.evaluate.refusals import answers
from medexpert.evaluate.scoring import score
from medexpert.evaluate.tasks.task import Task
from medexpert.prompt import strategies
from medexpert.records import Document, UserError, read_jsonl

if TYPE_CHECKING:
    from medexpert.engines.base import Engine

OpenEngine = Callable[[Any, Any], "Engine"]
"""An engine around a loaded (model, tokenizer)."""


def heldout_meter(
    engine: OpenEngine, text: Path, roles: Mapping[str, str]
) -> Callable[[Any, Any], dict[str, dict[str, Any]]]:
    """(model, tokenizer) -> bits/byte a source, on the documents of `text` (heldout.jsonl)."""

    def measure(model: Any, tokenizer: Any) -> dict[str, dict[str, Any]]:
        documents = read_jsonl(text, Document)
        return bits_per_byte(engine(model, tokenizer), documents, roles=roles)

    return measure


def dev_meter(
    engine: OpenEngine, task: Task, folder: Path, fold: int, *, protocol: str, seed: int
) -> Callable[[Any, Any], dict[str, float]]:
    """(model, tokenizer) -> accuracy, macro_f1 and log_loss of `direct` on the dev fold.

    `refused` of its `n` questions do not fit the context: they are wrong, and have no loss. Raises
    UserError for a task without dev folds.
    """
    questions = task.load(folder, f"dev-{fold}")
    if not questions:
        raise UserError(f"{task.name} has no dev fold {fold}", where=str(folder))

    def measure(model: Any, tokenizer: Any) -> dict[str, float]:
        ask = strategies.get("direct", where="meter.select")
        how = partial(ask.predict, engine=engine(model, tokenizer), protocol=protocol, seed=seed)
        found = list(answers(how, questions))
        scores = score(found, task.choices, seed=seed, questions=questions)
        calibration = scores["calibration"] or {}
        return {
            "n": len(found),
            "refused": scores["refused"],
            "accuracy": scores["accuracy"],
            "macro_f1": scores["macro_f1"],
            "log_loss": float(calibration.get("nll", float("nan"))),
        }

    return measure
