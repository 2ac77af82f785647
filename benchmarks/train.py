"""The training room's benchmark: medexpert's loop against TRL and LLaMA-Factory on the same tokens.

    python benchmarks/train.py                        # SmolLM2-135M on this CPU, all systems
    python benchmarks/train.py --smoke                # minutes: a tiny random model, one turn
    python benchmarks/train.py --device cuda          # a random 1B model, one GPU (not tested yet)
    python benchmarks/train.py --report               # README.md from the measurements

Every system trains the same model from the same weights on the same rows of tokens, in the same
order, with the same AdamW settings, loss on every token. Systems take turns, each turn begins with
another. Each finished measurement is a line of results/train-benchmark/*.jsonl; a run that was
stopped goes on after the last line of the same work.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import machine, run, take_turns
from train_report import write_report
from train_systems import SYSTEMS, System, python_of, variables
from train_work import RANDOM, make_work

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "train-benchmark"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then write the report; returns the exit code."""
    args = _arguments(argv)
    args.results.mkdir(parents=True, exist_ok=True)
    failed = False
    if not args.report:
        failed = not compare(args)
    write_report(args.results)
    return int(failed)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", default="", help="comma-separated; default: all of the device")
    parser.add_argument("--model", default="", help=f"base name, folder or {', '.join(RANDOM)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=0, help="tokens a row; default 512, GPU 2048")
    parser.add_argument("--rows", type=int, default=0, help="rows a step; default 2, GPU 8")
    parser.add_argument("--micro-rows", type=int, default=0, help="ours: rows at once; default all")
    parser.add_argument("--steps", type=int, default=0, help="timed steps; default 3, GPU 20")
    parser.add_argument("--warmup", type=int, default=0, help="steps not timed; default 1, GPU 5")
    parser.add_argument("--rank", type=int, default=16, help="of LoRA")
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "benchmarks")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="only write README.md")
    args = parser.parse_args(argv)
    if args.smoke:
        args.model, args.repeats = args.model or "random:tiny", 1
        args.tokens, args.rows = args.tokens or 64, args.rows or 2
    gpu = args.device == "cuda"
    args.model = args.model or ("random:1b" if gpu else "smollm2-135m-instruct")
    args.tokens = args.tokens or (2048 if gpu else 512)
    args.rows = args.rows or (8 if gpu else 2)
    args.micro_rows = args.micro_rows or args.rows
    args.steps = args.steps or (20 if gpu else 3)
    args.warmup = args.warmup or (5 if gpu else 1)
    args.chosen = [name for name in args.systems.split(",") if name] or list(SYSTEMS)
    for name in args.chosen:
        if name not in SYSTEMS:
            parser.error(f"--systems: {name!r} is not one of {', '.join(SYSTEMS)}")
    if min(args.repeats, args.tokens, args.rows, args.steps, args.warmup) < 1:
        parser.error("--repeats, --tokens, --rows, --steps and --warmup are at least 1")
    given = list(sys.argv[1:] if argv is None else argv)
    kept = [word for word, before in zip(given, ["", *given], strict=False)
            if "--cache" not in (word, before) and "--results" not in (word, before)]  # fmt: skip
    args.command = " ".join(["python benchmarks/train.py", *kept])
    return args


def compare(args: argparse.Namespace) -> bool:
    """All chosen systems, interleaved. False when one of them failed."""
    args.cache.mkdir(parents=True, exist_ok=True)
    work = make_work(args)
    digest = hashlib.sha256(work.read_bytes()).hexdigest()[:12]
    file = args.results / f"{'smoke' if args.smoke else args.device}-{digest}.jsonl"
    about = json.loads(work.read_text("utf-8"))
    del about["rows"]
    about["model"] = args.model
    head = {"work": about, "machine": machine(), "command": args.command}
    systems = [SYSTEMS[name] for name in args.chosen]
    return take_turns(file, head, systems, args.repeats, lambda system: once(system, work, args))


def once(system: System, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One measured run of a system."""
    out = args.cache / "train-out.json"
    for old in args.cache.glob("train-out.*"):  # an adapter's folder would be taken up again
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    python = python_of(system, args.cache)
    script = str(Path(__file__).resolve().parent / system.script)
    command = [python, script, str(work), str(out), "--mode", system.mode, "--method",
               system.method]  # fmt: skip
    took = run(command, variables(system, args.device), args.cache / f"train-{system.name}.log")
    found: dict[str, Any] = json.loads(out.read_text("utf-8"))
    found["seconds"] = found["seconds"][args.warmup :]
    rate = found["tokens_per_step"] * len(found["seconds"]) / sum(found["seconds"])
    print(f"{system.name}: {rate:,.0f} tokens/s, {took.pss_mb:,.0f} MB, losses "
          f"{' '.join(f'{x:.3f}' for x in found['losses'])}", flush=True)  # fmt: skip
    return {**found, "whole_seconds": took.seconds, "peak_mb": took.pss_mb}


if __name__ == "__main__":
    raise SystemExit(main())
