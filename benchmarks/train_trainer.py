"""What the scripts around transformers' Trainer share: arguments, a clock on steps, the result."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

try:
    from transformers import TrainerCallback
except ImportError:  # read by a test, in an environment without it
    TrainerCallback = object


def arguments() -> tuple[argparse.Namespace, dict[str, Any]]:
    """The command line of a system's script, and the work it names (see `train_work.py`)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mode", default="default")
    parser.add_argument("--method", choices=("full", "lora"), default="full")
    args = parser.parse_args()
    work: dict[str, Any] = json.loads(args.work.read_text("utf-8"))
    return args, work


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds of each optimiser step, and the losses as logged."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self._from = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        _wait()
        self._from = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        _wait()
        self.seconds.append(time.perf_counter() - self._from)

    def on_log(self, *args: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


def _wait() -> None:
    """Until the GPU has done what it was told."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def write(args: argparse.Namespace, work: dict[str, Any], clock: Clock, **more: Any) -> None:
    """The result as JSON: the steps' times and losses, threads, peak memory and versions."""
    import torch

    versions = {}
    for name in ("medexpert", "trl", "llamafactory", "torch", "transformers", "peft", "accelerate"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if loaded := sys.modules.get("medexpert"):  # an editable install's own record may be older
        versions["medexpert"] = loaded.__version__
    found = {
        "seconds": clock.seconds,
        "losses": clock.losses,
        "tokens_per_step": work["rows_per_step"] * len(work["rows"][0]),
        "loss_tokens_per_step": work["rows_per_step"] * (len(work["rows"][0]) - 1),
        "threads": torch.get_num_threads(),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "versions": versions,
        **more,
    }
    if work["device"] == "cuda":
        found["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6
    args.out.write_text(json.dumps(found) + "\n", "utf-8")
