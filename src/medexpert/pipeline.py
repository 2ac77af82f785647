"""Recipe -> steps: which are complete, which to run, which to resume. No logic of its own.

Order: base, data, evaluate/base, then each stage and its evaluation, then report. A step's key is a
digest of its own settings and of what its inputs hold, so a changed setting reruns that step, and
the next ones only where an output they read really changed. Manifests are written last.
"""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from medexpert import launch, manifest
from medexpert.recipe import STAGES, PointName, Run, StageName
from medexpert.recipe_data import PLACE
from medexpert.records import Example, UserError, digest, read_jsonl

Say = Callable[[str], None]
DATA_FORMAT = 3
"""Raised when the build writes other records from the same settings: old builds are redone."""
REPORT_FORMAT = 3
"""Raised when a report says other things about the same results."""
TRAIN_FORMATS = {"full": 2, "lora": 3, "dora": 1, "qlora": 1, "cpoly": 1}
"""By method; raised when training makes other weights from the same data and settings."""


@dataclass(frozen=True)
class Step:
    """One unit of work: its folder, the key that a finished folder must carry, and how to do it."""

    name: str
    folder: Path
    key: Callable[[], str]
    work: Callable[[str], Any]

    def complete(self) -> bool:
        return manifest.is_complete(self.folder, self.key())


class Pipeline:
    """The steps of one recipe, in order."""

    def __init__(self, recipe: Run, say: Say) -> None:
        self.recipe, self.say = recipe, say
        self.root = recipe.folder()
        self._base: Path | None = None
        self._opened: tuple[Path | None, Any] = (None, None)
        self._kept: tuple[int, ...] = ()  # the lock of the run folder, while it is held

    # -- inputs ------------------------------------------------------------------------------------

    def base(self) -> Path:
        """The base model's folder, fetched and verified once per process."""
        if self._base is None:
            from medexpert.model import base

            settings = self.recipe.base
            self._base = base.fetch(settings.model, revision=settings.revision, progress=self.say)
        return self._base

    def model_folder(self, point: PointName) -> Path:
        """Where the model of a point lies: the base, or a stage's result."""
        return self.base() if point == "base" else self.root / point / "model"

    def parent(self, stage: StageName) -> PointName:
        """What a stage starts from: the stage before it that is switched on, else the base."""
        before = self.recipe.stages()[: self.recipe.stages().index(stage)]
        return before[-1] if before else "base"

    def _model_digest(self, point: PointName) -> str:
        folder = self.model_folder(point)
        if (folder / manifest.MANIFEST).is_file():
            return manifest.output_digest(folder)
        if point != "base":
            raise UserError(
                f"stage {point} has no finished model here: run `medexpert train {point} RECIPE`",
                where=str(folder),
            )
        from medexpert.model.folder import model_digest

        return model_digest(folder)

    def data_file(self, name: str) -> Path:
        """A file of the finished data. Raises UserError when there is none."""
        path = self.root / "data" / f"{name}.jsonl"
        if not (path.parent / manifest.MANIFEST).is_file():
            raise UserError("no finished data here: run `medexpert data RECIPE`", where=str(path))
        return path

    # -- steps -------------------------------------------------------------------------------------

    def steps(self) -> list[Step]:
        """Every step of the recipe, in the order they run."""
        wanted = self.recipe.evaluate.points
        steps = [self.data_step()]
        steps += self.evaluation_steps("base") if "base" in wanted else []
        for stage in self.recipe.stages():
            steps.append(self.stage_step(stage))
            steps += self.evaluation_steps(stage) if stage in wanted else []
        return [*steps, self.report_step()]

    def data_step(self) -> Step:
        def key() -> str:
            from medexpert.data.build import benchmark_digests, source_digests

            settings = self.recipe.data.model_dump(mode="json", exclude=set(PLACE))
            inputs = [source_digests(self.recipe), benchmark_digests(self.recipe)]
            return digest(["data", DATA_FORMAT, settings, self.recipe.seed, *inputs])

        def work(key: str) -> None:
            from medexpert.data.build import build

            build(self.recipe, self.root / "data", key=key, progress=self.say)

        return Step("data", self.root / "data", key, work)

    def stage_step(self, stage: StageName) -> Step:
        from medexpert import instruments

        def key() -> str:
            settings = self.recipe.stage(stage).learned_by(self.recipe.seed)
            seed = settings.pop("seed")
            made = TRAIN_FORMATS[settings["method"]]
            parent = self._model_digest(self.parent(stage))
            file = self.data_file(stage)
            inputs = [parent, manifest.sha256_file(file), *instruments.measured_on(self, stage)]
            if stage != "knowledge":
                # Examples name their template; its wording is part of what is trained on.
                inputs.append(digest(_template_ids(file, file.stat().st_mtime_ns)))
            return digest(["train", made, stage, settings, seed, *inputs])

        def work(key: str) -> None:
            self._let_go()
            if self.recipe.processes > 1 and not launch.launched():
                launch.train(stage, self.root, self.recipe.processes, self._kept)
                return
            from medexpert.train.stage import run_stage

            run_stage(
                self.recipe,
                stage,
                parent=self.model_folder(self.parent(stage)),
                data=self.data_file(stage),
                folder=self.root / stage,
                key=key,
                say=self.say,
                **instruments.of_stage(self, stage),
            )

        return Step(stage, self.root / stage, key, work)

    def roles(self) -> dict[str, str]:
        """What a stage-1 source is for, by name: "medical" or "general"."""
        return {
            source.source: "general" if source.role == "replay" else "medical"
            for source in self.recipe.data.knowledge
        }

    def evaluation_steps(self, point: PointName) -> list[Step]:
        """Each strategy on the benchmark, then bits/byte on the held-out text."""
        folder = self.root / "evaluate" / point
        return [
            *(self._benchmark(point, s) for s in self.recipe.evaluate.strategies),
            self._heldout(point, folder),
        ]

    def _benchmark(self, point: PointName, strategy: str) -> Step:
        from medexpert.evaluate.folders import folder_of

        settings = self.recipe.evaluate
        folder = self.root / "evaluate" / point / folder_of(strategy)

        def key() -> str:
            from medexpert.evaluate.run import inputs_digest
            from medexpert.evaluate.sampling import of_limit
            from medexpert.evaluate.tasks import task_named
            from medexpert.prompt import strategies

            task = task_named(settings.task)
            version = strategies.get(strategy, where="evaluate.strategies").version
            questions = inputs_digest(task, self.benchmark_folder())
            names = ("task", "protocol", "batch_tokens", "dtype")
            chosen = {name: getattr(settings, name) for name in names}
            return digest(
                [
                    "evaluate", chosen, of_limit(self._limit(strategy)), strategy,
                    version, self.recipe.seed,
                    task.version, questions, self._model_digest(point),
                ]
            )  # fmt: skip

        def work(key: str) -> None:
            from medexpert.evaluate.run import evaluate
            from medexpert.evaluate.tasks import task_named

            evaluate(
                self._engine(point),
                task_named(settings.task),
                data=self.benchmark_folder(),
                strategy=strategy,
                protocol=settings.protocol,
                limit=self._limit(strategy),
                out=folder,
                key=key,
                seed=self.recipe.seed,
                progress=self.say,
            )

        return Step(f"evaluate {point} {strategy}", folder, key, work)

    def _limit(self, strategy: str) -> int:
        settings = self.recipe.evaluate
        own = strategy.startswith("voc") and settings.voc_limit
        return settings.voc_limit if own else settings.limit

    def benchmark_folder(self) -> Path:
        return Path(self.recipe.evaluate.data or self.recipe.data.root or ".")

    def _heldout(self, point: PointName, folder: Path) -> Step:
        out = folder / "heldout.json"
        roles = self.roles()

        def key() -> str:
            text = manifest.sha256_file(self.data_file("heldout"))
            dtype = self.recipe.evaluate.dtype
            return digest(["heldout", dtype, text, roles, self._model_digest(point)])

        def work(key: str) -> None:
            from medexpert.evaluate.heldout import write_heldout

            text = self.data_file("heldout")
            if text.stat().st_size == 0:
                self.say("no held-out documents in this recipe: bits/byte is not measured")
                manifest.write_json(out, {})
            else:
                write_heldout(self._engine(point), text, out, roles=roles, progress=self.say)
            manifest.write_manifest(folder, key=key, files=[out], facts={"point": point})

        return Step(f"evaluate {point} held-out text", folder, key, work)

    def _engine(self, point: PointName) -> Any:
        """The local engine of a point; the last one is kept, the one before is let go."""
        from medexpert.engines.local import LocalEngine
        from medexpert.train.speed import set_up_threads

        folder = self.model_folder(point)
        settings = self.recipe.evaluate
        if self._opened[0] != folder:
            set_up_threads(self.recipe.threads)
            self._let_go()
            self.say(f"opening {folder} ({settings.dtype})")
            self._opened = (
                folder,
                LocalEngine.open(folder, dtype=settings.dtype, batch_tokens=settings.batch_tokens),
            )
        return self._opened[1]

    def _let_go(self) -> None:
        """Free the model evaluated last: another process may train on its GPU."""
        if self._opened[1] is None:
            return
        import torch

        self._opened = (None, None)
        gc.collect()
        torch.cuda.empty_cache()

    def report_step(self) -> Step:
        folder = self.root / "report"

        def key() -> str:
            inputs = sorted(
                path for name in ("data", "evaluate", *self.recipe.stages())
                for path in (self.root / name).glob("**/manifest.json") if "state" not in path.parts
            )  # fmt: skip
            keys = [manifest.read_json(path)["key"] for path in inputs]
            return digest(["report", REPORT_FORMAT, keys])

        def work(key: str) -> None:
            from medexpert.evaluate.report import write

            files = write(self.root)
            manifest.write_manifest(folder, key=key, files=files, facts={})

        return Step("report", folder, key, work)

    # -- running -----------------------------------------------------------------------------------

    def run(self, steps: list[Step]) -> None:
        """Do each step that is not complete; afterwards all of them are.

        Of several processes the first one holds the folder and writes the recipe.
        """
        alone = [step.name for step in steps if step.name not in STAGES]
        if alone and launch.processes() > 1:
            raise UserError(
                f"{alone[0]} is the work of one process, and torchrun started several",
                allowed="torchrun ... -m medexpert train STAGE RECIPE; processes = N in the recipe",
            )
        first = not launch.launched() or launch.rank() == 0
        with (
            self.locked() if first else nullcontext(),
            manifest.provenance(self.provenance()),
        ):
            if first:
                self.write_recipe()
            for step in steps:
                if step.complete():
                    # A kill between a step's manifest and this leaves what it worked with behind.
                    shutil.rmtree(step.folder / "state", ignore_errors=True)
                    shutil.rmtree(step.folder / ".work", ignore_errors=True)
                    self.say(f"{step.name}: complete and unchanged, skipped")
                    continue
                started = time.monotonic()
                self.say(f"{step.name}: started")
                step.work(step.key())
                self.say(f"{step.name}: done in {time.monotonic() - started:.0f} s")

    def require_inputs(self, stage: StageName) -> None:
        """Raise UserError unless the data and the stages before `stage` fit the recipe as it is.

        Else a stage run alone would take what earlier settings left here for its input.
        """
        stages = self.recipe.stages()
        before = [self.stage_step(name) for name in stages[: stages.index(stage)]]
        for step in (self.data_step(), *before):
            if not step.complete():
                verb = step.name if step.name == "data" else f"train {step.name}"
                raise UserError(
                    f"{step.name} is not complete for these settings: "
                    f"run `medexpert {verb} RECIPE` first",
                    where=str(step.folder),
                )

    def provenance(self) -> dict[str, Any]:
        """What every manifest of this run records beside its own facts."""
        recipe = self.recipe
        return {"resolved_recipe": recipe.model_dump(mode="json"), "recipe_hash": recipe.hash()}

    def write_recipe(self) -> None:
        """The resolved recipe with its hash and the versions, beside the results."""
        manifest.write_json(
            self.root / "recipe.json",
            {
                "recipe": self.recipe.model_dump(mode="json"),
                "hash": self.recipe.hash(),
                "versions": manifest.versions(),
            },
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One run at a time in a folder. The lock ends with it and its torchrun, killed or not."""
        if launch.holds(self.root):
            yield
            return
        with manifest.disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            handle = (self.root / ".lock").open("a+")
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = (self.root / ".lock").read_text("utf-8").strip() or "?"
                why = f"another medexpert (process {holder}, or what it started) works here"
                why += "; remove .lock if that machine is lost"
                raise UserError(why, where=str(self.root)) from None
            except OSError as error:
                why = f"this file system has no locks ({error.strerror}; Lustre: mount -o flock)"
                raise UserError(why, where=str(self.root)) from None
            handle.truncate(0)
            print(os.getpid(), "on", os.uname().nodename, file=handle, flush=True)
            self._kept = (handle.fileno(),)
            yield
        finally:
            self._kept = ()
            handle.close()


@lru_cache(maxsize=8)
def _template_ids(examples: Path, changed: int) -> list[str]:
    """Ids (name and content) of the templates that a file of examples names.

    `changed` is the file's modification time, so that a rewritten file is read again.
    """
    from medexpert.prompt.template import template_id

    used = {(example.template, example.lang) for example in read_jsonl(examples, Example)}
    return sorted(template_id(name, lang) for name, lang in used)
