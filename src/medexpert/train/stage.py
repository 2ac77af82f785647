"""Run one stage: open its input model, feed it, train, save what the next stage starts from.

Several processes run this together: each opens the model and the tokens, the first one writes.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from medexpert import manifest
from medexpert.model import base, checkpoint
from medexpert.model.adapters import ADAPTERS, freeze, routing_facts
from medexpert.model.adapters import tasks as in_task
from medexpert.model.attention import check_prefix
from medexpert.model.folder import model_digest, read_lineage
from medexpert.model.special_tokens import add_infill_tokens
from medexpert.model.text import TextEncoder
from medexpert.prompt.template import ChatFormat
from medexpert.recipe import Run, StageName
from medexpert.records import UserError, digest
from medexpert.train import cost, instruct, knowledge, meeting, preference, speed, trackers, turns
from medexpert.train.batches import Account, Piece
from medexpert.train.faults import repeatable, set_up_repeatable
from medexpert.train.infill import Infilling, reading
from medexpert.train.loop import Job, Outcome, train
from medexpert.train.objectives import Learner, unwrapped
from medexpert.train.optim import Weights
from medexpert.train.parallel import DTYPES, World, hold
from medexpert.train.rows import Plan
from medexpert.train.state import refuse_others
from medexpert.train.store import Store, build_store, count_lines, open_store
from medexpert.train.watch import Dev, Heldout, Instruments, check_instruments

Say = Callable[[str], None]
LINEAGE = (
    "stage", "recipe", "parent", "parent_digest", "data_sha256", "licence", "steps", "tokens",
    "seed", "quarantine", "leaks", "attention", "tasks",
)  # fmt: skip
"""Facts of a stage that go with its weights."""


def run_stage(
    recipe: Run, name: StageName, *, parent: Path, data: Path, folder: Path, key: str, say: Say,
    heldout: Heldout | None = None, dev: Dev | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train stage `name` from model folder `parent` on JSONL `data`; results under `folder`.

    Writes `folder/model` (a plain Hugging Face folder), `folder/adapter` (unless all weights are
    trained), `folder/tasks/<task>` (C-Poly: a peft LoRA folder for each), `folder/log.jsonl`, and
    `folder/manifest.json` last; its checkpoints and tokens are then removed. Returns the manifest;
    {} on every process but the first.
    """
    checked = quarantine_of(data, parent, allow_leaks=recipe.data.allow_leaks)
    settings = recipe.stage(name).learned_by(recipe.seed)
    if manifest.is_finished(folder):  # stopped between its manifest and the end of its cleaning
        shutil.rmtree(folder / "state", ignore_errors=True)
    refuse_others(folder / "state", key, settings)  # before tokens of before are written over
    set_up_repeatable()
    with meeting.open_world() as world:
        meeting.require_shared(world, folder.parent)
        speed.set_up_threads(recipe.threads)
        stage = _Stage(recipe, name, parent, data, folder, key, world, world.only_first(say))
        stage.prepare(heldout, dev)
        outcome = stage.train(heldout, dev)
        # Together: a scheduler that restarts the first machine alone would wait for the others.
        return turns.by_first(world, lambda: stage.save(outcome, checked)) or {}


class _Stage:
    """One stage at work: its model, its tokens, its plan."""

    def __init__(
        self, recipe: Run, name: StageName, parent: Path, data: Path, folder: Path, key: str,
        world: World, say: Say,
    ) -> None:  # fmt: skip
        self.recipe, self.name, self.parent, self.data = recipe, name, parent, data
        self.folder, self.key, self.world, self.say = folder, key, world, say
        self.settings = recipe.stage(name)
        self.account = Account()
        self.tasks = instruct.task_names(data, self.settings) if name != "knowledge" else ()
        self.merged_task()  # a mistake in its name is told before anything is trained
        self.infill: Infilling | None = None
        self.sharded = world.size > 1 and self.settings.sharding == "full"
        # The first process needs the model for the tokens, the others in their turn (`_held`).
        opened = turns.by_first(world, self._open) if self.sharded else self._open()
        both: tuple[Any, Any] = opened or (None, None)
        self.model, self.tokenizer = both

    def _open(self) -> tuple[Any, Any]:
        """The model with what the stage puts on it; only what moves is trainable."""
        settings = self.settings
        model: Any
        four_bit, whole = settings.method == "qlora", settings.method == "full" and not self.sharded
        if four_bit and self.sharded:
            raise UserError(
                "4-bit weights cannot be sharded", where=f"{self.name}.sharding",
                allowed="replicate",
            )  # fmt: skip
        model, tokenizer = base.load(
            self.parent,
            dtype=DTYPES[settings.dtype] if four_bit else torch.float32,
            # In float32 what will be sharded, or rounded (`hold`), need not fit into one GPU.
            device=self.world.device if whole or four_bit else "cpu",
            four_bit=four_bit,
        )
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if limit and settings.sequence_length > limit:
            raise UserError(
                f"{self.name}.sequence_length is {settings.sequence_length}, but the model reads "
                f"at most {limit} tokens",
                where=self.name,
            )
        if settings.infill.on:
            known = len(tokenizer)
            add_infill_tokens(model, tokenizer)
            if settings.method != "full" and len(tokenizer) > known:
                raise UserError(
                    f"infilling adds tokens, and {settings.method} does not train their embeddings",
                    where=f"{self.name}.method",
                    allowed="full; or a model that has the tokens, such as GLM-4",
                )
            self.infill = Infilling.of(settings, tokenizer, self.recipe.seed)
        if settings.infill.on or settings.attention == "prefix":
            check_prefix(model)
        if settings.method != "full":
            model = ADAPTERS[settings.method](model, settings, self.recipe.seed, tasks=self.tasks)
        if settings.freeze:
            still = freeze(model, settings.freeze)
            self.say(f"{self.name}: {len(still)} tensors are kept still")
        return model, tokenizer

    # -- tokens ------------------------------------------------------------------------------------

    def store(self) -> Store:
        """The stage's tokens on disk; written by the first process, read by all."""
        key, place = digest(["tokens", self.key]), self.folder / "tokens"
        found = turns.by_first(
            self.world, lambda: open_store(place, key, self.say) or self._built(place, key)
        )
        if found is None:
            found = open_store(place, key, checksums=False)
        if found is None:
            raise UserError("another process's tokens cannot be read here", where=str(place))
        self.account = found.account
        return found

    def _built(self, place: Path, key: str) -> Store:
        lines = count_lines(self.data)
        return build_store(self._pieces(), place, key, self.say, self.account, items=lines)

    def _pieces(self) -> Iterator[Piece]:
        settings = self.settings
        pieces = stage_pieces(
            self.name, self.data, self.tokenizer, settings, self.account, infill=self.infill
        )
        if settings.objective != "preference":
            return pieces
        # What the stage starts from is the reference, rounded as training computes.
        reference, _ = base.load(
            self.parent, dtype=DTYPES[settings.dtype], four_bit=settings.method == "qlora"
        )
        return preference.reference_logprobs(
            reference, pieces, path=self.folder / "reference.jsonl", key=self.key,
            capacity=settings.sequence_length, micro_rows=settings.micro_rows, pad=self._pad(),
        )  # fmt: skip

    def _pad(self) -> int:
        return int(self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0)

    def plan(self, store: Store) -> Plan:
        """Which rows each step reads."""
        settings = self.settings
        lost = ", ".join(f"{n} {why}" for why, n in self.account.dropped.items())
        if not len(store):
            raise UserError(
                f"nothing is left to train on at {self.name}.sequence_length = "
                f"{settings.sequence_length}: {lost or 'no items'}", where=str(self.data),
            )  # fmt: skip
        plan = Plan(
            store,
            capacity=settings.sequence_length,
            epochs=settings.epochs,
            max_tokens=settings.max_tokens,
            rows_per_step=settings.rows_per_step,
            seed=self.recipe.seed,
            shuffle=self.name != "knowledge",
            by_task=settings.method == "cpoly",
            unit="piece" if settings.objective == "preference" else "token",
            fence=self.account.fence,
        )
        self.say(
            f"{self.name}: {self.account.items} items ({self.account.split_items} split, "
            f"{self.account.not_read} beyond max_tokens{', dropped: ' + lost if lost else ''}), "
            f"{plan.tokens} tokens in {len(plan.rows)} rows, {plan.steps} steps"
        )
        return plan

    # -- training ----------------------------------------------------------------------------------

    def prepare(self, heldout: Heldout | None, dev: Dev | None) -> None:
        """Read the data and plan the steps: all that can be refused before anything is changed."""
        check_instruments(self.name, self.settings.meter, heldout, dev)
        self.plan_ = self.plan(self.store())

    def train(self, heldout: Heldout | None, dev: Dev | None) -> Outcome:
        """Train; the outcome carries the trained model on the first process."""
        recipe, settings, plan = self.recipe, self.settings, self.plan_
        rate = speed.measured_matmul_rate(self.world.device, DTYPES[settings.dtype])
        flops = cost.flops_per_token(cost.read_shape(self.parent), settings)
        with turns.in_turn(self.world) if self.sharded else nullcontext():
            learner, weights = self._held(flops.total)
        tracker = None
        if recipe.tracker != "none" and self.world.first:
            tracker = trackers.open_tracker(
                recipe.tracker, self.folder.parent / "trackers", f"{recipe.name}-{self.name}",
                settings.model_dump(mode="json"), self.say,
            )  # fmt: skip
        job = Job(
            name=self.name, folder=self.folder, key=self.key, seed=recipe.seed, pad=self._pad(),
            settings=settings, say=self.say, world=self.world,
            instruments=Instruments(self._on_task(heldout), self._on_task(dev), self.tokenizer),
            tracker=tracker, width=learner.width,
            flops=flops.total, rate=rate * self.world.size,
        )  # fmt: skip
        if self.world.first:
            # What is refused above must not cost a stage that was finished before.
            (self.folder / manifest.MANIFEST).unlink(missing_ok=True)
        try:
            # On a CPU the kernels used here repeat anyway (tests/train/kills.py).
            with repeatable(settings.deterministic and self.world.device.type == "cuda"):
                return train(learner, plan, job, weights)
        finally:
            if tracker is not None:
                tracker.close()

    def _held(self, flops: float) -> tuple[Learner, Weights]:
        """The model as it learns, and its weights as this process holds them: shards or all."""
        if self.model is None:
            self.model, self.tokenizer = self._open()
        plain: Any = unwrapped(self.model)
        vocabulary = plain.config.get_text_config().vocab_size
        with in_task(self.model, 0):  # it looks once at what the model gives
            learner = Learner(self.model, vocabulary, self.settings)
        self.head = learner.head
        facts = {"tokens": self.plan_.tokens, "flops": flops, "processes": self.world.size}
        self.say(f"{self.name}: {speed.prepare(learner, self.settings, facts, self.world.device)}")
        self.model = None  # the learner holds it, and its weights may become shards
        return learner, hold(learner, self.settings, self.world)

    def _on_task(self, meter: Callable[[Any, Any], Any] | None) -> Any:
        """The stage is measured as the task whose weights it hands on."""
        if meter is None or not self.tasks:
            return meter

        def measure(model: Any, tokenizer: Any) -> Any:
            with in_task(model, self.merged_task()):
                return meter(model, tokenizer)

        return measure

    def merged_task(self) -> str:
        """C-Poly: the task whose weights become the stage's model; "" for other methods."""
        return instruct.merged_task(self.settings.cpoly, self.tasks, self.name)

    # -- saving ------------------------------------------------------------------------------------

    def save(self, outcome: Outcome, checked: dict[str, Any]) -> dict[str, Any]:
        """Write the adapter, the plain model and the manifest; returns the manifest."""
        folder, method = self.folder, self.settings.method
        facts = {**self._facts(outcome), **checked}
        lineage = {name: facts[name] for name in LINEAGE if name in facts}
        for old in ("adapter", "tasks"):  # of earlier settings
            shutil.rmtree(folder / old, ignore_errors=True)
        model = outcome.model
        if method == "full" and self.settings.freeze:
            model = self._with_still_weights(model)
        if method != "full":
            facts["routing"] = routing_facts(model)
            checkpoint.save_adapter(model, folder / "adapter", lineage=lineage)
            for task in self.tasks:
                checkpoint.export_task(folder / "adapter", task, folder / "tasks" / task)
            # Training rounded the frozen weights to its dtype: merge into the parent's own, which
            # is also what the adapter folder gives when it is opened.
            outcome.model = model = None
            gc.collect()  # layers that are recomputed or compiled hold themselves
            own, task = folder / "adapter", self.merged_task()
            model, _ = base.load(own, dtype=torch.float32, device="cpu", task=task)
        checkpoint.save_model(
            model, self.tokenizer, folder / "model", lineage=lineage, dtype=torch.float32
        )
        return _finish(folder, self.key, facts)

    def _with_still_weights(self, trained: Any) -> Any:
        """The trained weights beside the frozen ones as they were: training had rounded those."""
        moved = {name: p for name, p in trained.named_parameters() if p.requires_grad}
        model, _ = self._open()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in moved:
                    parameter.copy_(moved[name])
        return model

    def _facts(self, outcome: Outcome) -> dict[str, Any]:
        recipe, progress = self.recipe, asdict(outcome.progress)
        measured = {name: progress.pop(name) for name in ("meter", "best")}
        for name in ("step", "norms", "micro_rows"):
            progress.pop(name, None)
        progress["skipped"].pop("in_a_row", None)
        return {
            "stage": self.name,
            "recipe": recipe.hash(),
            "seed": recipe.seed,
            "settings": self.settings.model_dump(mode="json"),
            "parent": str(self.parent),
            "parent_digest": model_digest(self.parent),
            "licence": base.describe(self.parent)["licence"],
            "data_sha256": manifest.sha256_file(self.data),
            "attention": reading(self.settings),
            "tasks": list(self.tasks),
            "steps": outcome.steps,
            "stopped": outcome.stopped,
            **progress,
            "first_loss": outcome.losses[0],
            "last_loss": outcome.losses[-1],
            "measured": measured,
            "head": self.head,
            "processes": self.world.size,
            "threads": torch.get_num_threads(),
            "plan": self.plan_.facts(),
            **self.account.facts(),
        }


def quarantine_of(data: Path, parent: Path, *, allow_leaks: bool) -> dict[str, Any]:
    """`quarantine`: the benchmarks kept out of this data and of all that the parent learned from.

    `leaks`: whether data without any quarantine is behind the weights. Raises UserError for such
    data unless leaks are allowed.
    """
    built = manifest.read_manifest(data.parent)
    kept_out = set(built.get("quarantine", {}))
    if not built.get("quarantined") and not allow_leaks:
        raise UserError(
            "this data was built without quarantine: benchmark items may be in it",
            where=str(data),
            allowed="data.quarantine = [benchmarks], or --allow-leaks, which stamps every result",
        )
    before = read_lineage(parent)
    if "quarantine" in before:
        kept_out &= set(before["quarantine"])
    leaks = not built.get("quarantined") or bool(before.get("leaks"))
    return {"quarantine": sorted(kept_out), "leaks": leaks}


def stage_pieces(
    name: StageName, data: Path, tokenizer: Any, settings: Any, account: Account,
    *, infill: Infilling | None = None,
) -> Iterator[Piece]:  # fmt: skip
    """The stage's data as token pieces. Raises UserError when the tokenizer has no end of text."""
    eos = tokenizer.eos_token_id
    if eos is None:
        raise UserError("its tokenizer has no end-of-text token", where=str(data))
    encode = TextEncoder(tokenizer)
    length = settings.sequence_length
    # With one epoch the cap says how much is read; a share of an epoch, or more, is of all data.
    cap = settings.max_tokens if settings.epochs == 1 else 0
    if name == "knowledge":
        return knowledge.pieces(data, encode, eos, length, account, cap, infill=infill)
    chat = ChatFormat(*base.chat_format(tokenizer))
    if settings.objective == "preference":
        return preference.pieces(data, encode, chat, length, account, cap, settings)
    return instruct.pieces(data, encode, chat, length, account, cap, settings=settings)


def _finish(folder: Path, key: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the stage's manifest; only then are its checkpoints and tokens not needed any more."""
    parts = [folder / part for part in ("model", "adapter", "tasks", "log.jsonl")]
    files = [
        path
        for part in parts
        for path in ([part] if part.is_file() else sorted(part.rglob("*")))
        if path.is_file()
    ]
    entry = manifest.write_manifest(folder, key=key, files=files, facts=facts)
    for left in ("state", "tokens"):
        shutil.rmtree(folder / left, ignore_errors=True)
    (folder / "reference.jsonl").unlink(missing_ok=True)
    return entry
