"""Hours and money of a recipe on this machine and on others, and how right that was afterwards.

What is measured: this machine's matmul rate, and the share of it that recorded runs reached. What
is assumed is named `assumed` in every output: the share of the vendor's peak that GPUs reach, what
is lost between several of them, and the price of an hour.

`python -m medexpert.train.forecast RUN_FOLDER` compares a finished run with its forecast.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medexpert.manifest import read_json
from medexpert.recipe import STAGES, Run, StageName, load
from medexpert.recipe_train import Stage
from medexpert.records import UserError
from medexpert.train import cost
from medexpert.train.cost import Shape

SHARE_HERE = {"full": 0.69, "adapter": 0.70}
"""Share of the matmul rate reached on two CPU cores by compiled layers, LoRA for all adapters;
tests/train/test_cost_measured.py holds it to results/train-benchmark."""
LOSS_SHARE: dict[str, float] = {"knowledge": 1.0, "instruct": 0.64, "adapt": 0.006}
"""Share of the tokens that carry loss: all of plain text; the other two as in the recorded run."""
SUFFIX_SHARE, SPAN_SHARE = 0.625, 0.15
"""Of infilled items: a suffix of a quarter to all of the text; spans, sentences 15 % of it."""
H100_PEAK = 989e12
"""Dense bf16 operations a second of one H100 SXM, from the vendor's data sheet."""
H100_BYTES = 80e9
ASSUMED_MFU = {"full": 0.40, "adapter": 0.35}
"""Assumed share of the peak on a GPU. Nothing here was measured on one."""
ASSUMED_SCALING = {1: 1.0, 8: 0.95, 64: 0.85}
"""Assumed share kept by n GPUs: sums within one node, and over the network between eight."""
HERE = "here"  # the machine whose peak is measured
USABLE = 0.92
"""Assumed share of a GPU's memory that training can use; the rest is lost to fragments."""
GPU_PROCESS = 1.5e9
"""Assumed bytes of CUDA's own context, libraries and workspaces."""
DOLLARS, EUROS = 3.0, 2.75
"""Assumed price of one H100 for an hour; a default for an argument, no quotation."""


@dataclass(frozen=True)
class Machine:
    """`devices` that each do `peak` operations a second and have `memory` bytes.

    `share` of the peak is reached by one, by kind of training (full, adapter); all of them together
    keep `scaling` of it. `processes` share the work. Prices are of a device and hour, 0 = none.
    """

    name: str
    devices: int
    processes: int
    peak: Mapping[str, float]
    share: Mapping[str, float]
    scaling: float
    memory: float
    process_bytes: float
    dollars: float = 0.0
    euros: float = 0.0
    assumed: tuple[str, ...] = ()
    gpu: bool = False

    def rate(self, settings: Stage) -> float:
        """Operations a second that training is expected to do, all devices together."""
        kind = "full" if settings.method == "full" else "adapter"
        peak = self.peak[settings.dtype] * self.devices
        return peak * self.share[kind] * self.scaling


@dataclass(frozen=True)
class Forecast:
    """One stage on one machine. Bytes a process (`loading`: main memory); money for the stage."""

    stage: str
    machine: str
    method: str
    parameters: int
    trained: int
    tokens: int
    flops_per_token: float
    tokens_per_second: float
    hours: float
    dollars: float
    euros: float
    memory: float
    memory_by: Mapping[str, float]
    memory_limit: float
    loading: float
    fits: bool
    change: str


def h100(devices: int, *, dollars: float = DOLLARS, euros: float = EUROS) -> Machine:
    """1, 8 or 64 H100 with 80 GB, in nodes of eight. Raises KeyError for another number."""
    return Machine(
        name=f"{devices}xH100",
        devices=devices,
        processes=devices,
        peak={"bfloat16": H100_PEAK, "float32": H100_PEAK / 2},
        share=ASSUMED_MFU,
        scaling=ASSUMED_SCALING[devices],
        memory=H100_BYTES * USABLE,
        process_bytes=GPU_PROCESS,
        dollars=dollars,
        euros=euros,
        gpu=True,
        assumed=(
            f"{devices}xH100: {100 * ASSUMED_MFU['full']:.0f} % of the data sheet's 989 TFLOP/s "
            f"(adapters {100 * ASSUMED_MFU['adapter']:.0f} %), of which {devices} keep "
            f"{100 * ASSUMED_SCALING[devices]:.0f} %; {100 * USABLE:.0f} % of 80 GB usable; "
            f"$ {dollars:.2f} or € {euros:.2f} a GPU-hour",
        ),
    )


def this_machine(recipe: Run, *, share: Mapping[str, float] = SHARE_HERE) -> Machine:
    """This computer, its matmul rate measured now; its GPUs where it has some.

    `share` of that rate is what recorded runs on a CPU reached; for GPUs it is assumed.
    """
    import torch

    assumed: tuple[str, ...] = ()
    dtypes = {recipe.stage(name).dtype for name in recipe.stages()}
    peak: dict[str, float] = {d: matmul_rate(d, recipe.threads) for d in sorted(dtypes)}
    if torch.cuda.is_available():
        properties: Any = torch.cuda.get_device_properties(0)
        memory, process = properties.total_memory * USABLE, GPU_PROCESS
        devices, share = min(recipe.processes, torch.cuda.device_count()), ASSUMED_MFU
        assumed = ("here: the share of a GPU's rate and memory that is used, none lost between",)
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / recipe.processes
        devices, process = 1, cost.PROCESS
    return Machine(
        name=HERE,
        devices=devices,
        processes=recipe.processes,
        peak=peak,
        share=share,
        scaling=1.0,
        memory=memory,
        process_bytes=process,
        assumed=assumed,
        gpu=torch.cuda.is_available(),
    )


def matmul_rate(dtype: str, threads: int) -> float:
    """Measured operations a second (2 a multiply-add) of this machine's first GPU, or its CPU."""
    from medexpert.model.base import default_device
    from medexpert.train import parallel, speed

    speed.set_up_threads(threads)
    return speed.measured_matmul_rate(default_device(), parallel.DTYPES[dtype])


def forecast(
    name: str, settings: Stage, shape: Shape, tokens: int, machine: Machine, *, tasks: int = 1
) -> Forecast:
    """What stage `name` costs on `machine` for so many tokens."""
    flops = cost.flops_per_token(shape, settings, loss_share=loss_share(name, settings))
    rate = machine.rate(settings) / flops.executed
    parts = memory_on(shape, settings, machine, tasks)
    loading = cost.load_bytes(shape)
    need = sum(parts.values())
    if not machine.gpu:  # of processes that shard the model, one at a time holds it whole
        turns = (
            machine.processes if settings.sharding == "full" and settings.method != "qlora" else 1
        )
        need += max(0.0, loading - need) / turns
    hours = tokens / rate / 3600
    return Forecast(
        stage=name,
        machine=machine.name,
        method=settings.method,
        parameters=shape.total,
        trained=cost.trained_parameters(shape, settings, tasks),
        tokens=tokens,
        flops_per_token=flops.executed,
        tokens_per_second=rate,
        hours=hours,
        dollars=hours * machine.devices * machine.dollars,
        euros=hours * machine.devices * machine.euros,
        memory=need,
        memory_by=parts,
        memory_limit=machine.memory,
        loading=loading,
        fits=need <= machine.memory,
        change="" if need <= machine.memory else what_fits(shape, settings, machine, tasks),
    )


def loss_share(name: str, settings: Stage) -> float:
    """Expected share of a stage's tokens that carry loss; infilling learns the gaps alone."""
    infill = settings.infill
    if not infill.on:
        return LOSS_SHARE[name]
    spans = infill.words + infill.sentences
    mixed = 1 - infill.total + SUFFIX_SHARE * infill.suffix + SPAN_SHARE * spans
    return LOSS_SHARE[name] * ((1 - infill.anneal) * mixed + infill.anneal * SUFFIX_SHARE)


def memory_on(shape: Shape, settings: Stage, machine: Machine, tasks: int) -> dict[str, float]:
    """Bytes of one process of this machine, by what holds them. A GPU's are its own."""
    parts = cost.memory_bytes(
        shape, settings, processes=machine.processes, tasks=tasks, process=machine.process_bytes
    )
    return {k: v for k, v in parts.items() if not machine.gpu or k != "checkpoint copy"}


def what_fits(shape: Shape, settings: Stage, machine: Machine, tasks: int = 1) -> str:
    """The smallest change of the recipe that makes a stage fit, tried in order of its price."""
    changes: list[dict[str, Any]] = [{"micro_rows": 1}]
    if machine.processes > 1:
        changes.append({"sharding": "full"})
    changes.append({"recompute": True})
    if settings.method == "full":
        changes.append({"method": "lora"})
    if settings.method != "qlora":  # 4-bit weights cannot be sharded
        whole = {"sharding": "replicate"} if machine.processes > 1 else {}
        changes.append({"method": "qlora", **whole})
    changes += [{"sequence_length": n} for n in (2048, 1024) if n < settings.sequence_length]
    made: dict[str, Any] = {}
    for change in changes:
        if all(getattr(settings, key) == value for key, value in change.items()):
            continue
        made |= change
        trial = settings.model_copy(update=made)
        if sum(memory_on(shape, trial, machine, tasks).values()) <= machine.memory:
            return ", ".join(f"{key} = {json.dumps(value)}" for key, value in made.items())
    return "more or larger devices: no setting of this recipe is enough"


def plan(
    recipe: Run,
    shape: Shape,
    tokens: Mapping[str, int],
    machines: Sequence[Machine],
    *,
    tasks: int = 1,
) -> list[Forecast]:
    """Every stage on every machine. `tokens`: of each stage that is planned, all epochs."""
    return [
        forecast(name, recipe.stage(name), shape, tokens[name], machine, tasks=tasks)
        for machine in machines
        for name in recipe.stages()
        if name in tokens
    ]


def as_json(found: Sequence[Forecast], machines: Sequence[Machine]) -> dict[str, Any]:
    """The plan as plain values, with what is assumed."""
    return {
        "stages": [asdict(item) | {"memory_by": dict(item.memory_by)} for item in found],
        "assumed": [line for machine in machines for line in machine.assumed],
        "measured": {m.name: dict(m.peak) for m in machines if m.name == HERE},
        "share": {m.name: dict(m.share) for m in machines},
    }


def table(found: Sequence[Forecast], machines: Sequence[Machine]) -> str:
    """The plan for a reader: a line a machine and stage, totals, grounds."""
    lines = [
        f"{'machine':9} {'stage':9} {'method':6} {'trained':>9} {'tokens':>9} {'GFLOP/tok':>9} "
        f"{'tok/s':>9} {'hours':>10} {'$':>10} {'€':>10} {'GB/process':>10}"
    ]
    for machine in machines:
        here = [item for item in found if item.machine == machine.name]
        lines += [_row(item, paid=machine.dollars > 0) for item in here]
        lines += [f"  {i.stage} does not fit: set {i.change}" for i in here if not i.fits]
        money = f"$ {sum(i.dollars for i in here):,.0f}, € {sum(i.euros for i in here):,.0f}"
        hours = sum(item.hours for item in here)
        lines.append(f"  {machine.name}: {hours:,.2f} h{f', {money}' if machine.dollars else ''}")
    if found:
        size = f"{found[0].loading / 1e9:.1f} GB of main memory"
        lines.append(
            "every process opens the model in float32 first, where it is sharded one process of a "
            f"machine after the other: {size}"
        )
    for machine in machines:
        lines += [f"assumed, not measured: {text}" for text in machine.assumed]
        if machine.name == HERE:
            rates = ", ".join(f"{r / 1e9:,.0f} GFLOP/s {d}" for d, r in machine.peak.items())
            lines.append(f"measured just now here: {rates}; training is expected to reach "
                         f"{100 * machine.share['full']:.0f} % of it (adapters "
                         f"{100 * machine.share['adapter']:.0f} %)")  # fmt: skip
    return "\n".join(lines)


def _row(item: Forecast, *, paid: bool) -> str:
    dollars, euros = (f"{item.dollars:,.0f}", f"{item.euros:,.0f}") if paid else ("-", "-")
    return (
        f"{item.machine:9} {item.stage:9} {item.method:6} {_short(item.trained):>9} "
        f"{_short(item.tokens):>9} {item.flops_per_token / 1e9:>9.2f} "
        f"{_short(item.tokens_per_second):>9} {item.hours:>10,.2f} {dollars:>10} {euros:>10} "
        f"{item.memory / 1e9:>10.1f}"
    )


def _short(number: float) -> str:
    for size, letter in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e4, " k")):
        if number >= size:
            value = number / (1e3 if letter == " k" else size)
            return f"{value:.2f}{letter}" if letter != " k" else f"{value:.0f}{letter}"
    return f"{number:.0f}"


def compare(prediction: Forecast, log: Path) -> dict[str, float]:
    """A forecast beside the log.jsonl of the run: measured, predicted, and the relative errors.

    An error of 0.1 is 10 % more than measured. `memory` is compared where the log has it. Raises
    UserError when the log has no step.
    """
    steps = [e for e in map(json.loads, log.read_text("utf-8").splitlines()) if
             e.get("event") == "step"]  # fmt: skip
    if not steps:
        raise UserError("no step is recorded", where=str(log))
    last = steps[-1]
    measured = {
        "tokens": float(last["tokens"]),
        "seconds": float(last["seconds"]),
        "tokens_per_second": last["tokens"] / last["seconds"],
    }
    predicted = {
        "tokens": float(prediction.tokens),
        "seconds": prediction.hours * 3600,
        "tokens_per_second": prediction.tokens_per_second,
    }
    if any("memory" in step for step in steps):
        measured["memory"] = max(float(step.get("memory", 0)) for step in steps)
        predicted["memory"] = prediction.memory
    found: dict[str, float] = {}
    for key, value in measured.items():
        found |= {f"{key}_measured": value, f"{key}_predicted": predicted[key]}
        found[f"{key}_error"] = predicted[key] / value - 1
    return found


def compare_run(folder: Path) -> dict[str, dict[str, float]]:
    """Every finished stage of a run folder beside its forecast for this machine, measured now."""
    recipe = load(folder / "recipe.json")
    machine = this_machine(recipe)
    found: dict[str, dict[str, float]] = {
        name: compare_stage(
            folder / name, name, recipe.stage(name), cost.read_shape(folder / name / "model"),
            machine,
        )
        for name in STAGES
        if (folder / name / "manifest.json").is_file() and (folder / name / "model").is_dir()
    }  # fmt: skip
    if not found:
        raise UserError("no finished stage with its model is here", where=str(folder))
    return found


def compare_stage(
    folder: Path, name: StageName, settings: Stage, shape: Shape, machine: Machine
) -> dict[str, float]:
    """One finished stage beside its forecast; adds the share of the matmul rate it reached.

    The run's own tokens are taken, so that the rate and the memory are judged alone.
    """
    facts = read_json(folder / "manifest.json")
    said = forecast(name, settings, shape, facts["tokens"], machine)
    found = compare(said, folder / "log.jsonl")
    learned = facts["loss_tokens"] / facts["tokens"]
    exact = cost.flops_per_token(shape, settings, loss_share=learned).executed
    share = found["tokens_per_second_measured"] * exact
    return {**found, "matmul_share": share / (machine.peak[settings.dtype] * machine.devices)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the comparison of a run folder as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run", type=Path, help="a run folder with finished stages")
    try:
        print(json.dumps(compare_run(parser.parse_args(arguments).run), indent=2))
    except UserError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
