"""What a run tells while it trains: log.jsonl (always), the live line, a tracker if asked."""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from medexpert import manifest

SAY_EVERY = 5.0
"""Seconds between two progress lines."""


class Tracker(Protocol):
    """Where numbers are shown besides log.jsonl; see `train.trackers`."""

    def log(self, step: int, values: dict[str, float]) -> None: ...
    def close(self) -> None: ...


class Log:
    """JSONL, one event a line; lines after the step resumed from are taken back."""

    def __init__(self, path: Path, step: int, *, write: bool = True) -> None:
        self.path, self.writes = path, write
        if write:
            # No checkpoint is of step 0: what is there was written by a run that starts again.
            kept = [e for e in self.events() if e["step"] <= step] if step else []
            manifest.write_text(path, "".join(json.dumps(event) + "\n" for event in kept))

    def events(self) -> list[dict[str, Any]]:
        """Whole lines of the file; the line that a killed run was writing is left out."""
        if not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text("utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return found

    def write(self, event: dict[str, Any]) -> None:
        """Append one event. Raises UserError on a full disk."""
        if not self.writes:
            return
        with manifest.disk_errors(self.path), self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(event) + "\n")

    def losses(self) -> list[float]:
        return [e["loss"] for e in self.events() if e["event"] == "step"]


class Live:
    """The progress line: loss, rates, ETA, share of the matmul rate, memory.

    `flops` is what one token costs, `rate` the measured matmul rate (0 = unknown): their product
    with the tokens a second is the share of the machine that is used.
    """

    def __init__(
        self, name: str, steps: int, first: int, say: Callable[[str], None], *,
        flops: float = 0.0, rate: float = 0.0,
    ) -> None:  # fmt: skip
        self.name, self.steps, self.first, self.say = name, steps, first, say
        self.flops, self.rate = flops, rate
        self.said = -math.inf
        self.started = time.monotonic()

    def numbers(self, tokens: int, seconds: float) -> dict[str, float]:
        """Rates of one step over all processes, and the memory of this one."""
        found = {"tokens_per_second": tokens / seconds, "memory": float(memory_bytes())}
        if self.rate and self.flops:
            found["matmul_share"] = tokens * self.flops / seconds / self.rate
        return found

    def line(self, step: int, values: dict[str, float], note: str = "") -> None:
        """Say where the run is, at most every few seconds and at the last step."""
        now = time.monotonic()
        if now - self.said < SAY_EVERY and step < self.steps and not note:
            return
        self.said = now
        left = (now - self.started) / max(1, step - self.first) * (self.steps - step)
        share = values.get("matmul_share")
        self.say(
            f"{self.name} {step}/{self.steps}  loss {values['loss']:.3f}  "
            f"lr {values['learning_rate']:.2e}  grad {values['grad_norm']:.2f}  "
            f"{values['tokens_per_second']:.0f} tokens/s"
            + (f" ({100 * share:.0f} % of matmul)" if share else "")
            + f"  {values['memory'] / 2**30:.1f} GiB  ETA {clock(left)}{note}"
        )


def memory_bytes() -> int:
    """Peak memory of this process: on its GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage tells the parent's peak, too, where that was the higher one
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"
