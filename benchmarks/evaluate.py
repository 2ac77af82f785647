"""The evaluation room's benchmark: direct scoring against lm-eval, VoC against one prompt a time.

    python benchmarks/evaluate.py --data PUBMEDQA         # SmolLM2-135M on this CPU
    python benchmarks/evaluate.py --limit 8 --repeats 1   # minutes; no report
    python benchmarks/evaluate.py --systems voc-ours,voc-naive,voc-vllm --data PUBMEDQA
    python benchmarks/evaluate.py --report                # README.md from the measurements

Every system answers the same questions with the same model from the same folder. The systems of a
part take turns, each turn begins with another. Each finished measurement is a line of
results/evaluate-benchmark/*.jsonl; a run that was stopped goes on after the last line of the same
work. PUBMEDQA is the folder of the published files; without it, generated questions are asked.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluate_report import write_report
from evaluate_systems import ASKED_FOR, PARTS, SYSTEMS, System
from evaluate_work import make_work
from measure import machine, run, take_turns
from train_systems import python_of, variables

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "evaluate-benchmark"
ITEMS = {"direct": 100, "voc": 16, "growth": 4}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then write the report; returns the exit code."""
    args = _arguments(argv)
    args.results.mkdir(parents=True, exist_ok=True)
    well = True
    if not args.report:
        well = all([compare(part, args) for part in args.parts])
    write_report(args.results)
    return int(not well)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", default="", help=f"default: all but {', '.join(ASKED_FOR)}")
    parser.add_argument("--parts", default="", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="base name or folder")
    parser.add_argument("--data", type=Path, help="folder of the PubMedQA files")
    parser.add_argument("--limit", type=int, default=0, help="questions; default "
                        + ", ".join(f"{n} {part}" for part, n in ITEMS.items()))  # fmt: skip
    parser.add_argument("--max-tokens", type=int, default=128, help="of a rationale")
    parser.add_argument("--choices", default="2,3,4,6,8", help="numbers of choices to grow over")
    parser.add_argument("--lengths", default="32,64,128,256", help="rationale lengths")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "benchmarks")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="only write README.md")
    args = parser.parse_args(argv)
    known = [name for name in SYSTEMS if name not in ASKED_FOR]
    args.chosen = [name for name in args.systems.split(",") if name] or known
    for name in args.chosen:
        if name not in SYSTEMS:
            parser.error(f"--systems: {name!r} is not one of {', '.join(SYSTEMS)}")
    args.parts = [part for part in args.parts.split(",") if part] or list(PARTS)
    for part in args.parts:
        if part not in PARTS:
            parser.error(f"--parts: {part!r} is not one of {', '.join(PARTS)}")
    args.choices, args.lengths = (
        [int(x) for x in t.split(",")] for t in (args.choices, args.lengths)
    )
    if args.repeats < 1 or args.limit < 0 or args.max_tokens < 1 or min(args.choices) < 2:
        parser.error("--repeats and --max-tokens are at least 1, --choices at least 2")
    args.items = {part: args.limit or count for part, count in ITEMS.items()}
    given = list(sys.argv[1:] if argv is None else argv)
    kept = [word for word, before in zip(given, ["", *given], strict=False)
            if not {"--cache", "--results", "--data"} & {word, before}]  # fmt: skip
    data = ["--data PUBMEDQA"] if args.data else []
    args.command = " ".join(["python benchmarks/evaluate.py", *data, *kept])
    return args


def compare(part: str, args: argparse.Namespace) -> bool:
    """The chosen systems of a part, interleaved. False when one of them failed."""
    systems = [SYSTEMS[name] for name in args.chosen if SYSTEMS[name].part == part]
    if not systems:
        return True
    args.cache.mkdir(parents=True, exist_ok=True)
    work = make_work(args, part)
    digest = hashlib.sha256(work.read_bytes()).hexdigest()[:12]
    kind = "short-" if args.limit else ""
    file = args.results / f"{kind}{part}-{digest}.jsonl"
    about = json.loads(work.read_text("utf-8"))
    about = {k: about[k] for k in ("part", "source", "max_tokens")}
    about |= {"model": args.model, "questions": args.items[part]}
    head = {"work": about, "machine": machine(), "command": args.command}
    return take_turns(file, head, systems, args.repeats, lambda system: once(system, work, args))


def once(system: System, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One measured run of a system."""
    out = args.cache / "evaluate-out.json"
    out.unlink(missing_ok=True)
    script = str(Path(__file__).resolve().parent / system.script)
    python = python_of(system, args.cache)
    command = [python, script, str(work), str(out), "--mode", system.mode]
    if system.server:
        command += ["--server", python_of(replace(system, environment=system.server), args.cache)]
    took = run(command, variables(system, "cpu"), args.cache / f"evaluate-{system.name}.log")
    found: dict[str, Any] = json.loads(out.read_text("utf-8"))
    print(f"{system.name}: {found['seconds']:,.1f} s, {took.pss_mb:,.0f} MB", flush=True)
    return {**found, "whole_seconds": took.seconds, "peak_mb": took.pss_mb}


if __name__ == "__main__":
    raise SystemExit(main())
