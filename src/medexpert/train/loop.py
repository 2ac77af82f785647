"""The one loop: accumulate, clip, schedule, measure, log, checkpoint, resume. It knows no stage.

A step's loss is the mean over all target tokens (or pairs) of its rows on all processes, so that
accumulation and any number of processes equal the large batch. Everything random is seeded from
(seed, step, micro-batch): a killed run continues to the same bits on the same CPU, threads and
number of processes, and with the same rows in the same order on any other number.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from medexpert.model.adapters import begin_step, tasks
from medexpert.recipe_train import Stage
from medexpert.records import UserError, digest
from medexpert.train import parallel, state
from medexpert.train.batches import Batch
from medexpert.train.faults import Guard, Interrupted, out_of_memory, stop_requests
from medexpert.train.objectives import Learner
from medexpert.train.optim import Masters, Weights, adamw, learning_rate
from medexpert.train.parallel import World
from medexpert.train.progress import Live, Log, Tracker
from medexpert.train.rows import Plan
from medexpert.train.watch import Instruments, Watch


@dataclass(frozen=True)
class Job:
    """What stays the same for a whole run. `width` > 0 pads every row to it (compiled models).

    `flops` a token and the machine's matmul `rate` (FLOP/s of all processes) are for the share of
    the machine that is used; 0 = not told.
    """

    name: str
    folder: Path
    key: str
    seed: int
    pad: int
    settings: Stage
    say: Callable[[str], None]
    world: World
    instruments: Instruments = field(default_factory=Instruments)
    tracker: Tracker | None = None
    width: int = 0
    flops: float = 0.0
    rate: float = 0.0


@dataclass
class Outcome:
    """What a finished run reports. `model` is the trained one, fp32; on the first process only."""

    progress: state.Progress
    losses: list[float]
    model: Any
    stopped: str = ""

    @property
    def steps(self) -> int:
        return self.progress.step


def train(learner: Learner, plan: Plan, job: Job, weights: Weights | None = None) -> Outcome:
    """Train over `plan`, resuming from `folder/state`; log to `folder/log.jsonl`.

    `weights`: those of the learner, where it is held already (`parallel.hold`).

    Raises UserError when too many steps in a row cannot be used, on a full disk, and when one row
    does not fit into memory; Interrupted after SIGINT or SIGTERM, with a checkpoint written.
    """
    run = _Run(learner, plan, job, weights)
    with stop_requests() as stop, run.checkpoints.written():
        run.measure()
        while run.at.step < plan.steps and not run.stopped:
            run.step()
            run.measure()
            asked = parallel.agree(job.world, stop.requested)
            if asked or run.checkpoints.due(run.at.step, job.settings.checkpoint_every):
                run.checkpoints.save(run.at)
            if asked:
                run.checkpoints.wait()
                raise Interrupted(f"{job.name} stopped after step {run.at.step} of {plan.steps}")
    return run.finish()


class _Run:
    """A run in progress: the parts, and what one step does with them."""

    def __init__(self, learner: Learner, plan: Plan, job: Job, weights: Weights | None) -> None:
        self.learner, self.plan, self.job = learner, plan, job
        settings, world = job.settings, job.world
        self.device = world.device
        self.weights = weights or parallel.hold(learner, settings, world)
        if isinstance(self.weights, Masters):
            self.weights.agree()
        if not self.weights.master:
            raise UserError("no parameter is trainable", where=job.name)
        self.optimizer = adamw(self.weights, settings)
        self.checkpoints = state.Checkpointer(
            job.folder / "state", job.key, self.weights, self.optimizer, world,
            settings.checkpoints, job.say, settings.learned_by(job.seed),
        )  # fmt: skip
        self.at = self.checkpoints.restore()
        self.at.best = self.checkpoints.best_kept(self.at)
        if self.at.step:
            job.say(f"{job.name}: continuing after step {self.at.step} of {plan.steps}")
        self.guard = Guard(job.name, settings, self.at.norms, self.at.skipped)
        self.watch = Watch(job.name, settings.meter, job.instruments, plan.steps, self.at.meter)
        self.log = Log(job.folder / "log.jsonl", self.at.step, write=world.rank == 0)
        self.live = Live(
            job.name, plan.steps, self.at.step, job.say, flops=job.flops, rate=job.rate
        )
        self.micro_rows = self.at.micro_rows or settings.micro_rows
        self.stopped = self.watch.stop()
        learner.train()

    def step(self) -> None:
        """One optimiser step: gradients of the mean loss, guarded update, log."""
        started = time.monotonic()
        settings, at = self.job.settings, self.at
        rate = learning_rate(at.step, self.plan.steps, settings)
        loss, sums = self._gradients()
        norm = self.weights.clip(settings.clip)
        why = self.guard.fault(loss, norm)
        if not why:
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["lr_scale"]
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.weights.publish()
            self.guard.take(norm)
        else:
            self.weights.drop()
        at.step += 1
        seconds = time.monotonic() - started
        at.tokens += sums["tokens"]
        at.loss_tokens += sums["loss_tokens"]
        at.padding += sums["padding"]
        at.seconds += seconds
        values = {"loss": loss, "learning_rate": rate, "grad_norm": norm}
        values |= self.learner.take_facts(self._sum)
        values |= self.live.numbers(sums["tokens"], seconds)
        self._tell(values, why)
        if why:
            self.guard.skip(why, at.step, loss, norm)

    def _gradients(self) -> tuple[float, dict[str, int]]:
        """Sum the step's gradients into the masters; its mean loss and counts over all processes.

        Out of memory on one process halves the micro-batch and starts the step again.
        """
        while True:
            batches = self.plan.batches(
                self.at.step, self.micro_rows, self.job.pad,
                rank=self.job.world.rank, size=self.job.world.size, width=self.job.width,
            )  # fmt: skip
            try:
                loss = self._accumulate(batches)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                self._halve(error)
                continue
            total, *counts = parallel.sum_over(
                self.job.world, loss, sum(b.inputs.numel() - b.padding for b in batches),
                sum(b.loss_tokens for b in batches), sum(b.padding for b in batches),
            )  # fmt: skip
            names = ("tokens", "loss_tokens", "padding")
            return total, {name: round(n) for name, n in zip(names, counts, strict=True)}

    def _accumulate(self, batches: list[Batch]) -> float:
        at, job = self.at, self.job
        scale = 1.0 / self.plan.units(at.step)
        begin_step(self.learner.model, _seed(job.seed, job.name, at.step, "step"))
        summed = 0.0
        for number, batch in enumerate(batches):
            # Dropout depends on these numbers alone, so there is no generator state to save.
            torch.manual_seed(_seed(job.seed, job.name, at.step, job.world.rank, number))
            with tasks(self.learner.model, batch.tasks):
                loss = self.learner(batch.to(self.device), scale)
                loss.backward()
            summed += float(loss.detach())
        return summed

    def _sum(self, numbers: torch.Tensor) -> torch.Tensor:
        return torch.tensor(parallel.sum_over(self.job.world, *numbers.tolist()))

    def _halve(self, error: RuntimeError) -> None:
        job = self.job
        if job.world.size > 1 or self.micro_rows == 1:
            advice = "sequence_length" if self.micro_rows == 1 else "micro_rows"
            raise UserError(
                f"out of memory at step {self.at.step + 1} with micro_rows = {self.micro_rows}: "
                f"lower {job.name}.{advice}, or set {job.name}.recompute = true, and remove "
                f"{job.folder / 'state'}: with other settings the stage starts over",
                where=job.name,
            ) from error
        self.weights.drop()
        self.learner.take_facts(lambda counted: counted)  # of the micro-batches that are done again
        self.micro_rows //= 2
        self.at.micro_rows = self.micro_rows
        traceback.clear_frames(error.__traceback__)  # they hold what the failed pass has made
        torch.cuda.empty_cache()
        job.say(f"{job.name}: out of memory; going on with micro_rows = {self.micro_rows}")
        self.log.write(
            {"event": "out_of_memory", "step": self.at.step + 1, "micro_rows": self.micro_rows}
        )

    def _tell(self, values: dict[str, float], why: str) -> None:
        at = self.at
        event: dict[str, Any] = {
            "event": "skip" if why else "step", "step": at.step, **values,
            "tokens": at.tokens, "loss_tokens": at.loss_tokens, "padding": at.padding,
            "seconds": at.seconds,
        }  # fmt: skip
        if why:
            event["why"] = why
        self.log.write(event)
        if self.job.tracker is not None:
            self.job.tracker.log(at.step, values)
        self.live.line(at.step, values, f"  skipped: {why}" if why else "")

    def measure(self) -> None:
        """What is due at this step: forgetting, dev fold; the best weights are kept aside."""
        events = self.watch.measure(
            self.at.step, self.learner.model, self.weights.whole,
            lambda mine: parallel.from_first(self.job.world, mine),
        )  # fmt: skip
        for event in events:
            self.log.write(event)
            shown = ", ".join(f"{k} {v:.4f}" for k, v in event.items() if isinstance(v, float))
            self.job.say(f"{self.job.name} {self.at.step}/{self.plan.steps}  {shown}")
            if self.watch.is_best(event, self.at.best):
                self.at.best = [float(event[self.job.settings.meter.select]), float(self.at.step)]
                self.checkpoints.save_best(self.at)
        self.stopped = self.watch.stop()

    def finish(self) -> Outcome:
        """Wait for the last write; the trained weights, or the best ones on the dev fold.

        Raises UserError when no step could be used, or the best weights are not there any more.
        """
        job, at = self.job, self.at
        self.checkpoints.wait()
        if sum(self.guard.counts().values()) == at.step:
            raise UserError(f"none of the {at.step} steps could be used", where=job.name)
        if self.stopped:
            job.say(f"{job.name}: stopped after step {at.step}: {self.stopped}")
        self.optimizer.state.clear()  # its memory: the model comes back in fp32
        if at.best:
            found = self.checkpoints.best()
            if found is None or found.step != at.best[1]:
                raise UserError(
                    f"the best weights, of step {at.best[1]:.0f}, are not there any more: "
                    "remove this folder and train again",
                    where=str(job.folder / "state"),
                )
        elif job.settings.meter.select != "last":
            job.say(f"{job.name}: nothing finite was measured on the dev fold: the last weights")
        model = self.weights.release()
        return Outcome(
            self.at, self.log.losses(), None if model is None else model.eval(), self.stopped
        )


def _seed(*parts: object) -> int:
    return int(digest(list(parts)), 16) % 2**63
