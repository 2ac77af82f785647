"""Trains with medexpert's loop on given rows of tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from train_trainer import Clock, arguments, write

from medexpert.model import base
from medexpert.model.adapters import ADAPTERS
from medexpert.recipe_train import Lora, Stage
from medexpert.train import cost, loop, speed
from medexpert.train.batches import IGNORE, Piece
from medexpert.train.objectives import Learner
from medexpert.train.parallel import World
from medexpert.train.rows import Plan


def _plan(pieces: list[Piece], settings: Stage) -> Plan:
    """A plan that reads the pieces, each a row, in their order: its own shuffling is undone."""

    def make(given: list[Piece]) -> Plan:
        return Plan(
            given, capacity=settings.sequence_length, epochs=1, max_tokens=0,
            rows_per_step=settings.rows_per_step, seed=1, shuffle=False,
        )  # fmt: skip

    first = make(pieces)  # the order depends on the lengths alone, and they are all alike
    placed = list(pieces)
    for number, row in enumerate(first.rows):
        placed[int(row[0])] = pieces[number]
    return make(placed)


def main() -> None:
    """`default`: compile = on; `eager`: compile = off. A row is one document, as for the others."""
    args, work = arguments()
    pieces = []
    for row in work["rows"]:
        ids = np.asarray(row, dtype=np.int32)
        pieces.append(Piece(ids, np.append(ids[1:], IGNORE)))
    settings = Stage(
        method=args.method, sequence_length=len(work["rows"][0]),
        rows_per_step=work["rows_per_step"], micro_rows=work["micro_rows"],
        learning_rate=work["learning_rate"], schedule="constant", warmup_share=0.0,
        weight_decay=0.0, betas=(0.9, 0.95), clip=1.0, dtype="bfloat16",
        compile="off" if args.mode == "eager" else "on", checkpoint_every=10**9,
        lora=Lora(rank=work["rank"], alpha=2 * work["rank"], dropout=0.0),
    )  # fmt: skip
    speed.set_up_threads(0)
    device = torch.device(work["device"])
    rate = speed.measured_matmul_rate(device, torch.bfloat16)
    model: Any
    model, _ = base.load(Path(work["model"]), dtype=torch.float32)
    vocabulary = model.config.get_text_config().vocab_size
    if args.method != "full":
        model = ADAPTERS[args.method](model, settings, 1)
    flops = cost.flops_per_token(cost.shape_of(model), settings).total
    weights = sum(p.numel() for p in model.parameters())
    learner = Learner(model, vocabulary, settings)
    told = speed.prepare(learner, settings, {}, device)
    count = work["steps"] * work["rows_per_step"]
    plan = _plan(pieces[:count], settings)
    folder = args.out.with_suffix(".run")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job = loop.Job(
        name="benchmark", folder=folder, key="", seed=1, pad=0, settings=settings, say=print,
        world=World(0, 1, 0, device), width=learner.width, flops=flops, rate=rate,
    )  # fmt: skip
    loop.train(learner, plan, job)
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    clock = Clock()
    clock.losses = [event["loss"] for event in steps]
    clock.seconds = np.diff([0.0, *(event["seconds"] for event in steps)]).tolist()
    # Measured again at the end: the machine's own speed may have changed on the way.
    speed.measured_matmul_rate.cache_clear()
    rates = [rate, speed.measured_matmul_rate(device, torch.bfloat16)]
    write(args, work, clock, matmul=rates, flops=flops, weights=weights, compile=told)


if __name__ == "__main__":
    main()
