"""The kill campaign: a stage is killed at random moments and started again until it ends; its
weights must have the bytes of a stage that was never killed.

    python tests/train/kills.py --kills 50 --seed 1 --out results/train-kills

A run is a fork of this process with everything imported, so that a moment anywhere in its life is
hit: reading, tokenising, training, writing a checkpoint, saving the model.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny
from medexpert.recipe import StageName

KINDS: dict[str, tuple[StageName, list[str]]] = {
    "full": ("knowledge", ["meter.at=[0.0, 0.5, 1.0]"]),
    "infill": ("knowledge", ["infill.suffix=0.4", "infill.words=0.3"]),
    "lora": ("knowledge", ['method="lora"']),
    "bf16-spikes": ("knowledge", ["spike=2.0", "skips=100"]),
    "cpoly": ("adapt", ['method="cpoly"']),
    "preference": ("adapt", ['method="lora"', 'objective="preference"']),
}
"""Stage and settings of what is killed, by name."""
COMMON = [
    "checkpoint_every=1", "max_tokens=0", "epochs=1", "sequence_length=128", "rows_per_step=2",
    'compile="off"',
]  # fmt: skip


IMPORTED = (
    "medexpert.train.stage", "medexpert.instruments", "medexpert.engines.local",
    "medexpert.evaluate.while_training", "medexpert.model.adapters.cpoly", "peft",
    "transformers.models.llama.modeling_llama", "safetensors.torch",
)  # fmt: skip
"""Imported before forking: no kill is spent on imports. None of them starts a thread."""


@dataclass(frozen=True)
class Killed:
    """One campaign item: the kind of stage, seconds of life at each kill, and what came out."""

    kind: str
    after: list[float]
    resumed_from: list[int]
    equal: bool


def prepared(folder: Path, kind: str) -> Callable[[Path], None]:
    """A function that trains a stage of this kind into a folder; its data are built."""
    from medexpert.pipeline import Pipeline
    from medexpert.recipe import load

    name, settings = KINDS[kind]
    path = folder / f"{kind}.toml"
    path.write_text(tiny.RECIPE.format(run=folder / kind, base=folder / "base"))
    recipe = load(path, ["threads=1", *(f"{name}.{line}" for line in [*COMMON, *settings])])
    pipeline = Pipeline(recipe, lambda line: None)
    if name == "knowledge":
        pipeline.run([pipeline.data_step()])
    else:
        answers(folder / kind / "data")

    def train(out: Path) -> None:
        from medexpert import instruments
        from medexpert.train.stage import run_stage

        run_stage(
            recipe, name, parent=folder / "base", data=pipeline.data_file(name),
            folder=out, key="k", say=_to(out), **instruments.of_stage(pipeline, name),
        )  # fmt: skip

    return train


def answers(folder: Path) -> None:
    """Questions of two templates, each with a rejected answer, as a stage's finished data."""
    from medexpert import manifest
    from medexpert.records import Example, to_json

    rows = []
    for n in range(20):
        asked = {"question": f"Does drug {n} help?", "answer": "yes", "rejected": "no"}
        read = {**asked, "contexts": [f"It helped {n} of 20 patients."]}
        rows.append(Example(f"r{n}", "s", "task", "pubmedqa.lm_eval", read))
        rows.append(Example(f"a{n}", "s", "qa", "chat.qa", asked))
    path = folder / "adapt.jsonl"
    folder.mkdir(parents=True)
    path.write_text("".join(to_json(row) + "\n" for row in rows))
    facts = {"quarantined": True, "quarantine": {}}
    manifest.write_manifest(folder, key="d", files=[path], facts=facts)


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


def weights(out: Path) -> dict[str, bytes]:
    """All tensors that the stage saved: the model, the adapter, the tasks."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*.safetensors")}


def campaign(kills: int, seed: int, folder: Path, say: Callable[[str], None]) -> list[Killed]:
    """Kill `kills` times in all, over the kinds in turn; every killed stage is then finished."""
    for name in IMPORTED:
        importlib.import_module(name)
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
    train = prepared(folder, kind)
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
    said = out.parent / f"{out.name}.said"
    after: list[float] = []
    while len(after) < kills:
        child = start(lambda: train(out))
        wait = draw.uniform(0, seconds)
        status = ended(child, wait)
        if status is not None:  # it ended before: start over
            if status:
                raise RuntimeError(f"the {kind} stage failed after {after}: {status}")
            shutil.rmtree(out)
            said.unlink(missing_ok=True)
            after.clear()
            continue
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        after.append(round(wait, 3))
    child = start(lambda: train(out))
    status = ended(child, 300)
    if status is None:
        os.kill(child, signal.SIGKILL)
        raise RuntimeError(f"the {kind} stage that was killed after {after} did not end")
    same = status == 0 and weights(out) == weights(folder / f"{kind}-whole")
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
