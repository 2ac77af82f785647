"""Where training can be watched besides log.jsonl: TensorBoard, trackio, Weights & Biases.

`tracker` of a recipe names one. Each is imported only then and writes under the run folder; nothing
is sent anywhere unless the user sets WANDB_MODE. log.jsonl stays the record: a tracker that fails
while training is named once, its failures are counted, and training goes on.
"""

from __future__ import annotations

import importlib
import io
import math
import os
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Protocol

from medexpert.records import UserError, digest, unknown_name

Say = Callable[[str], None]
Config = Mapping[str, Any]
PROJECT = "medexpert"
LIBRARIES = {"tensorboard": "torch.utils.tensorboard", "trackio": "trackio", "wandb": "wandb"}
"""The module that each tracker needs."""


class Backend(Protocol):
    """One library. `purges`: steps logged again replace the older ones."""

    purges: bool

    def start(self, step: int) -> None:
        """Called once, before `log`, with the first step that will come."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class Tracker:
    """A tracker that cannot stop the training. `failures` counts what it did not take."""

    def __init__(self, name: str, mark: Path, backend: Backend | None, say: Say) -> None:
        self.name, self.mark, self.backend, self.say = name, mark, backend, say
        self.failures = 0
        self.started = False
        self.sent = 0 if backend is None or backend.purges else _last_step(mark)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Show the finite numbers of `step`. A step that was shown before is not shown twice."""
        if self.backend is None or step <= self.sent:
            return
        finite = {k: float(v) for k, v in values.items() if _number(v)}
        self._tried(self._show, step, finite)

    def close(self) -> None:
        """Flush. Says how many calls failed when there was more than the one told already."""
        if self.backend is not None and self.started:
            self._tried(self.backend.close)
        if self.failures > 1:
            self.say(f"tracker {self.name}: {self.failures} calls failed; log.jsonl has every step")
        self.backend = None

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        assert self.backend is not None
        if not self.started:
            self.backend.start(step)
            self.started = True
        self.backend.log(step, values)
        if not self.backend.purges:  # a few bytes a step, so that a killed run knows, too
            self.mark.write_text(str(step))
        self.sent = step

    def _tried(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:  # whatever a tracker raises must not end a training run
            self.failures += 1
            if self.failures == 1:
                line = (str(error).strip().splitlines() or [type(error).__name__])[0]
                self.say(f"tracker {self.name} failed, training goes on: {line}")


def open_tracker(
    name: str, folder: Path, run_name: str, config: Config, say: Say = print
) -> Tracker:
    """The tracker `name`, writing under `folder`/NAME; `none` takes everything and does nothing.

    The same run name and config (JSON values) continue the same run; other settings begin another.
    Raises UserError with the line that installs a missing library, and for an unknown name.
    """
    if name == "none":
        return Tracker(name, folder, None, say)
    if name not in BACKENDS:
        raise unknown_name("tracker", name, ["none", *BACKENDS], where="tracker")
    identity = f"{run_name}-{digest(dict(config))[:6]}"
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    backend = BACKENDS[name](place, identity, config)
    return Tracker(name, place / f"{identity}.step", backend, say)


def require_tracker(name: str) -> None:
    """Raise UserError when the library of tracker `name` is not installed, with its pip line.

    Imports it; trackio takes its folder then, so this is not for a process that trains later.
    """
    if name != "none":
        _imported(LIBRARIES[name], name)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _last_step(mark: Path) -> int:
    """The last step shown by an earlier process; 0 when that is not known."""
    try:
        return int(mark.read_text())
    except (OSError, ValueError):
        return 0


def _imported(module: str, name: str) -> Any:
    """An optional library. Raises UserError with the pip line when it or a part is absent."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"tracker = {name!r} needs a package that is not installed ({error}): "
            f"pip install {name}",
            where="tracker",
        ) from None


class _TensorBoard:
    """Event files. TensorBoard drops what it held from the step on that is resumed at."""

    purges = True

    def __init__(self, folder: Path, identity: str, config: Config) -> None:
        self.module = _imported(LIBRARIES["tensorboard"], "tensorboard")
        self.folder, self.config = folder / identity, config

    def start(self, step: int) -> None:
        first = step if step > 1 else None
        self.writer: Any = self.module.SummaryWriter(str(self.folder), purge_step=first)
        lines = "\n".join(f"    {key} = {value}" for key, value in self.config.items())
        self.writer.add_text("settings", lines, step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)

    def close(self) -> None:
        self.writer.close()


class _Trackio:
    """A local SQLite file; `TRACKIO_DIR=RUN/trackers/trackio trackio show` displays it.

    The library reads its folder when it is imported, so a process writes to one folder only.
    """

    purges = False

    def __init__(self, folder: Path, identity: str, config: Config) -> None:
        os.environ["TRACKIO_DIR"] = str(folder.resolve())
        self.module = _imported(LIBRARIES["trackio"], "trackio")
        self.identity, self.config = identity, config

    def start(self, step: int) -> None:
        with redirect_stdout(io.StringIO()):  # it greets on stdout, which is the program's own
            self.module.init(
                project=PROJECT, name=self.identity, config=dict(self.config), resume="allow",
                embed=False, auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.module.log(dict(values), step=step)

    def close(self) -> None:
        with redirect_stdout(io.StringIO()):
            self.module.finish()


class _Wandb:
    """Offline files (`wandb sync --append` sends them), unless the user set WANDB_MODE."""

    purges = False

    def __init__(self, folder: Path, identity: str, config: Config) -> None:
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_SILENT", "true")
        self.module = _imported(LIBRARIES["wandb"], "wandb")
        self.folder, self.identity, self.config = folder, identity, config

    def start(self, step: int) -> None:
        self.run: Any = self.module.init(
            project=PROJECT, name=self.identity, id=self.identity, resume="allow",
            dir=str(self.folder), config=dict(self.config),
        )  # fmt: skip

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


BACKENDS: dict[str, Callable[[Path, str, Config], Backend]] = {
    "tensorboard": _TensorBoard,
    "trackio": _Trackio,
    "wandb": _Wandb,
}
