"""Generation on a CPU: the local engine beside OpenVINO, on branches that share a long beginning.

    python benchmarks/generate.py --model smollm2-135m-instruct        # measures, then reports
    python benchmarks/generate.py --report                             # the table from the JSON

The work of one repetition: 8 trialgen questions, each with its abstract-like context, asked in
three branches (one a choice); 64 new tokens each, greedy. Every repetition has other questions, so
that no cache helps across them; all systems get the same ones, in turns, each repetition begins
with another. Written text is held against the local engine's in float32. Processor seconds stand
beside the clock's, since other work on the machine stretches the clock's alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from measure import machine

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "generate-benchmark"
QUESTIONS, NEW_TOKENS = 8, 64
REFERENCE = "local float32"
Opener = Callable[[Path, int], Any]


def systems() -> dict[str, Opener]:
    """Name -> how to open it."""
    from medexpert.engines.local import LocalEngine
    from medexpert.engines.openvino import OpenVINOEngine

    def local(dtype: str) -> Opener:
        return lambda folder, threads: LocalEngine.open(folder, dtype=dtype)

    def openvino(**options: Any) -> Opener:
        return lambda folder, threads: OpenVINOEngine.open(
            folder, threads=threads, progress=print, **options
        )

    return {
        REFERENCE: local("float32"),
        "local bfloat16": local("bfloat16"),
        "openvino bfloat16, unprimed": openvino(dtype="bfloat16", prime=False),
        "openvino bfloat16, primed": openvino(dtype="bfloat16"),
        "openvino float32, primed": openvino(dtype="float32"),
        "openvino bfloat16, primed, q8_0 weights": openvino(dtype="bfloat16", kind="q8_0"),
    }


def prompts_of(repeat: int, chat: Any) -> list[str]:
    """QUESTIONS x 3 prompts of a repetition; the branches of a question differ at the end only."""
    from medexpert.evaluate.tasks import task_named
    from medexpert.prompt.template import render_chat

    questions = task_named("trialgen").load(Path(), "test")
    chosen = questions[repeat * QUESTIONS : (repeat + 1) * QUESTIONS]
    if len(chosen) < QUESTIONS:
        raise SystemExit(f"repetition {repeat + 1} has too few questions left")
    made = []
    for question in chosen:
        shown = "\n".join(question.contexts)
        for choice in question.choices:
            text = (
                f"Passage:\n{shown}\n\nQuestion: {question.question}\n\nGive the reasons for which"
                f" the answer may be the following one.\nAnswer: {choice}"
            )
            made.append(render_chat([{"role": "user", "content": text}], chat, reply=True))
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what was asked and write the report; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--systems", default="", help="comma-free names divided by ';'; all")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="only write the table")
    args = parser.parse_args(argv)
    file = args.results / "generate.json"
    if not args.report:
        args.results.mkdir(parents=True, exist_ok=True)
        given = sys.argv[1:] if argv is None else list(argv)
        command = " ".join(["python benchmarks/generate.py", *given])
        facts = measure(args.model, args.repeats, [n for n in args.systems.split(";") if n])
        file.write_text(json.dumps({"command": command, **facts}, indent=2) + "\n", "utf-8")
    (args.results / "README.md").write_text(table(json.loads(file.read_text("utf-8"))), "utf-8")
    print(args.results / "README.md")
    return 0


def measure(model: str, repeats: int, names: list[str]) -> dict[str, Any]:
    """Every system on every repetition's prompts, in turns."""
    import torch

    from medexpert.model.base import fetch, quiet

    quiet()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    folder = fetch(model)
    known = systems()
    engines = {name: known[name](folder, threads) for name in names or known}
    chat = next(iter(engines.values())).chat
    for engine in engines.values():  # first calls compile and allocate
        engine.complete(["Is it so?"] * 3, max_tokens=4)
    rows = []
    for repeat in range(repeats):
        prompts = prompts_of(repeat, chat)
        order = list(engines)
        order = order[repeat % len(order) :] + order[: repeat % len(order)]
        for name in order:
            gc.collect()
            before, spent = engines[name].usage(), time.process_time()
            made = engines[name].complete(prompts, max_tokens=NEW_TOKENS)
            used = engines[name].usage().since(before)
            row = {"repeat": repeat + 1, "system": name, **vars(used)}
            row["processor_seconds"] = time.process_time() - spent
            rows.append({**row, "texts": [completion.text for completion in made]})
            rate = used.generated_tokens / used.seconds
            print(f"{repeat + 1} {name}: {rate:.0f} tokens/s, {used}", flush=True)
    _compare(rows)
    return {
        "model": model,
        "machine": {**machine(), "threads": threads},
        "versions": {p: metadata.version(p) for p in ("torch", "transformers", "openvino-genai")},
        "work": f"{QUESTIONS} questions x 3 branches, {NEW_TOKENS} new tokens, greedy",
        "systems": {name: engine.facts() for name, engine in engines.items()},
        "runs": [{k: v for k, v in row.items() if k != "texts"} for row in rows],
    }


def _compare(rows: list[dict[str, Any]]) -> None:
    """Adds to each run how its texts agree with the reference's: equal, and equal words first."""
    wanted = {row["repeat"]: row["texts"] for row in rows if row["system"] == REFERENCE}
    for row in rows:
        pairs = list(zip(row["texts"], wanted.get(row["repeat"], ()), strict=False))
        if pairs:
            row["equal_texts"] = sum(a == b for a, b in pairs) / len(pairs)
            row["words_before_a_difference"] = statistics.median(_same(a, b) for a, b in pairs)


def _same(one: str, other: str) -> int:
    words = list(zip(one.split(), other.split(), strict=False))
    return next((k for k, (a, b) in enumerate(words) if a != b), len(words))


def table(facts: dict[str, Any]) -> str:
    """The report in Markdown, from the JSON alone."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for row in facts["runs"]:
        runs.setdefault(row["system"], []).append(row)
    machine_, versions = facts["machine"], facts["versions"]
    repeats = max(len(rows) for rows in runs.values())
    lines = [
        "# Generation on a CPU",
        "",
        f"{facts['model']}; {facts['work']}. Median and spread (least to most) of {repeats}"
        " interleaved repetitions, each with other questions.",
        "",
        "| engine | tokens/s | tokens a processor second | prompt tokens encoded"
        " | texts equal to local float32's | words before the first difference |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in runs.items():
        share = statistics.median(row["prefilled_tokens"] / row["prompt_tokens"] for row in rows)
        equal = [row["equal_texts"] for row in rows if "equal_texts" in row]
        words = [row["words_before_a_difference"] for row in rows if "equal_texts" in row]
        lines.append(
            f"| {name} | {_rate(rows, 'seconds')} | {_rate(rows, 'processor_seconds')} | "
            f"{100 * share:.0f} % | "
            + (f"{100 * statistics.mean(equal):.0f} % | " if equal else " | ")
            + (f"{statistics.median(words):.0f} |" if words else " |")
        )
    stretch = statistics.median(
        row["seconds"] * machine_["threads"] / row["processor_seconds"] for row in facts["runs"]
    )
    if stretch > 1.5:
        lines += [
            "",
            f"Other work held the machine: the clock ran {stretch:.1f} times as long as the"
            " processors worked here, unevenly. Compare tokens a processor second.",
        ]
    tokens = statistics.median(row["prompt_tokens"] / row["calls"] for row in facts["runs"])
    lines += [
        "",
        f"A prompt has {tokens:.0f} tokens. {machine_['processor']}, {machine_['threads']} threads,"
        f" {machine_['memory_gb']} GB, {machine_['system']}, Python {machine_['python']}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f". `{facts['command']}`",
        "",
    ]
    return "\n".join(lines)


def _rate(rows: list[dict[str, Any]], key: str) -> str:
    rates = [row["generated_tokens"] / row[key] for row in rows]
    return f"{statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})"


if __name__ == "__main__":
    sys.exit(main())
