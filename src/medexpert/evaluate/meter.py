"""What an evaluation has cost so far, over all its sessions: seconds, calls, tokens, money.

Kept in run.json beside the predictions, saved while they stream, so that a killed session loses a
few seconds of its bill and nothing else. `questions` counts those whose cost is in the sums; a
question whose answer was not written before a stop is paid again, and counted so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexpert import manifest
from medexpert.engines.base import Forgetful

if TYPE_CHECKING:
    from medexpert.engines.base import Engine

COUNTS = (
    "calls", "prompt_tokens", "prefilled_tokens", "generated_tokens", "seconds", "cost",
)  # fmt: skip


class Meter:
    """Reads the engine's usage from its making on; `answered` is raised by the runner."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path, self.engine = path, engine
        if isinstance(engine, Forgetful):
            # Else a strategy asked second would look cheaper for what the first one paid.
            engine.forget()
        self.header: Mapping[str, Any] = manifest.read_json(path)
        self.started, self.before = time.monotonic(), engine.usage()
        self.answered = 0

    def seconds(self) -> float:
        """Wall time of all sessions."""
        return float(self.header.get("seconds", 0.0)) + time.monotonic() - self.started

    def usage(self) -> dict[str, float]:
        """`questions` and the engine's COUNTS over all sessions."""
        earlier = self.header.get("usage") or {}
        now = vars(self.engine.usage().since(self.before))
        sums = {name: earlier.get(name, 0) + now[name] for name in COUNTS}
        return {"questions": earlier.get("questions", 0) + self.answered, **sums}

    def save(self) -> None:
        """Write both into run.json."""
        facts = {"seconds": self.seconds(), "usage": self.usage()}
        manifest.write_json(self.path, {**self.header, **facts})


def per_question(usage: Mapping[str, float]) -> dict[str, float] | None:
    """COUNTS divided by the questions they are of; None when there are none."""
    questions = usage.get("questions", 0)
    return {name: usage[name] / questions for name in COUNTS} if questions else None
