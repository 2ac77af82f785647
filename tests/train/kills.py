"""The kill campaign: a stage is killed at random moments and started again until it ends; its
weights must have the bytes of a stage that was never killed.

    python tests/train/kills.py --kills 50 --seed 1 --out results/train-kills

A run is a fork of this process with everything imported, so that a moment anywhere in its life is
hit: reading, tokenising, training, writing a checkpoint, saving the model.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny

KINDS: dict[str, list[str]] = {
    "full": ["knowledge.meter.at=[0.0, 0.5, 1.0]"],
    "infill": ["knowledge.infill.suffix=0.4", "knowledge.infill.words=0.3"],
    "lora": ['knowledge.method="lora"'],
    "bf16-spikes": ["knowledge.spike=2.0", "knowledge.skips=100"],
}
"""Settings of the stages that are killed, by name."""
COMMON = [
    "knowledge.checkpoint_every=1", "knowledge.max_tokens=0", "knowledge.epochs=4",
    "knowledge.sequence_length=128", 'knowledge.compile="off"', "threads=1",
]  # fmt: skip


@dataclass(frozen=True)
class Killed:
    """One campaign item: the kind of stage, seconds of life at each kill, and what came out."""

    kind: str
    after: list[float]
    resumed_from: list[int]
    equal: bool


def prepared(folder: Path, kind: str) -> tuple[Any, Callable[[Path], None]]:
    """(recipe, a function that trains its knowledge stage into a folder), data built."""
    from medexpert.pipeline import Pipeline
    from medexpert.recipe import load

    path = folder / f"{kind}.toml"
    path.write_text(tiny.RECIPE.format(run=folder / kind, base=folder / "base"))
    recipe = load(path, [*COMMON, *KINDS[kind]])
    pipeline = Pipeline(recipe, lambda line: None)
    pipeline.run([pipeline.data_step()])

    def train(out: Path) -> None:
        from medexpert import instruments
        from medexpert.train.stage import run_stage

        run_stage(
            recipe, "knowledge", parent=folder / "base", data=pipeline.data_file("knowledge"),
            folder=out, key="k", say=_to(out), **instruments.of_stage(pipeline, "knowledge"),
        )  # fmt: skip

    return recipe, train


def _to(out: Path) -> Callable[[str], None]:
    def say(line: str) -> None:
        out.mkdir(parents=True, exist_ok=True)
        with (out.parent / f"{out.name}.said").open("a") as handle:
            handle.write(line + "\n")

    return say


def start(work: Callable[[], None]) -> int:
    """Fork; the child does the work and leaves with 0, or 1 after an error told on stderr."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def ended(child: int, within: float) -> int | None:
    """Exit status of a child that ends within so many seconds, else None."""
    until = time.monotonic() + within
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        if time.monotonic() >= until:
            return None
        time.sleep(0.002)


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def campaign(kills: int, seed: int, folder: Path, say: Callable[[str], None]) -> list[Killed]:
    """Kill `kills` times in all, over the kinds in turn; every killed stage is then finished."""
    import medexpert.train.stage  # imported before forking: no kill is spent on imports  # noqa: F401

    draw = random.Random(seed)
    tiny_base(folder / "base")
    done: list[Killed] = []
    made: dict[str, tuple[Callable[[Path], None], float]] = {}
    while sum(len(k.after) for k in done) < kills:
        kind = list(KINDS)[len(done) % len(KINDS)]
        if kind not in made:
            made[kind] = reference(folder, kind)
        train, seconds = made[kind]
        left = kills - sum(len(k.after) for k in done)
        done.append(one(folder, kind, train, seconds, draw, min(left, draw.choice((1, 1, 2, 3)))))
        say(f"{sum(len(k.after) for k in done)}/{kills} kills: {done[-1]}")
    return done


def tiny_base(folder: Path) -> None:
    """Made in a child: this process must not have started torch's threads before it forks."""
    assert ended(start(lambda: void(tiny.base(folder))), 120) == 0


def void(value: object) -> None:
    """For its effect only."""


def reference(folder: Path, kind: str) -> tuple[Callable[[Path], None], float]:
    """Train once without a kill; the seconds it took."""
    _, train = prepared(folder, kind)
    began = time.monotonic()
    status = ended(start(lambda: train(folder / f"{kind}-whole")), 300)
    if status != 0:
        raise RuntimeError(f"the undisturbed {kind} stage failed: {status}")
    return train, time.monotonic() - began


def one(
    folder: Path, kind: str, train: Callable[[Path], None], seconds: float, draw: random.Random,
    kills: int,
) -> Killed:  # fmt: skip
    out = folder / f"{kind}-{draw.getrandbits(32):08x}"
    after: list[float] = []
    while len(after) < kills:
        child = start(lambda: train(out))
        wait = draw.uniform(0, seconds)
        if ended(child, wait) is not None:  # it ended before: start over
            import shutil

            shutil.rmtree(out)
            continue
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        after.append(round(wait, 3))
    status = ended(start(lambda: train(out)), 300)
    same = status == 0 and weights(out) == weights(folder / f"{kind}-whole")
    said = out.parent / f"{out.name}.said"
    resumed = [
        int(line.split("after step ")[1].split()[0])
        for line in (said.read_text().splitlines() if said.exists() else [])
        if "continuing after step" in line
    ]
    return Killed(kind, after, resumed, same)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = campaign(given.kills, given.seed, Path(folder), lambda line: print(line, flush=True))
    summary = {
        "command": f"python tests/train/kills.py --kills {given.kills} --seed {given.seed}",
        "kills": sum(len(k.after) for k in done),
        "stages": len(done),
        "byte_identical": sum(k.equal for k in done),
        "resumed_from_a_checkpoint": sum(bool(k.resumed_from) for k in done),
        "seconds_of_life_at_a_kill": {
            "median": statistics.median(a for k in done for a in k.after),
            "largest": max(a for k in done for a in k.after),
        },
        "killed": [asdict(k) for k in done],
    }
    if given.out:
        from medexpert import manifest

        given.out.mkdir(parents=True, exist_ok=True)
        manifest.write_json(
            given.out / "summary.json", {**summary, "versions": manifest.versions()}
        )
    print(f"{summary['byte_identical']} of {summary['stages']} killed stages byte-identical")
    sys.exit(summary["byte_identical"] != summary["stages"])


if __name__ == "__main__":
    main()
