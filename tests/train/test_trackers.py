"""Trackers: named, local, continued without doubled steps, and never the end of a training run."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
import types
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from medexpert.records import UserError
from medexpert.train import trackers
from medexpert.train.trackers import Tracker, open_tracker

CONFIG = {"seed": 1, "stage": {"learning_rate": 0.1}}


def test_none_takes_everything_and_writes_nothing(tmp_path: Path) -> None:
    tracker = open_tracker("none", tmp_path, "run", {})
    tracker.log(1, {"loss": 1.0})
    tracker.close()
    assert not list(tmp_path.iterdir())


def test_an_unknown_tracker_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"unknown tracker 'tensorbord'.*did you mean 'tensorboard'"
    ):
        open_tracker("tensorbord", tmp_path, "run", {})


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_missing_library_is_one_line_with_the_pip_line(
    name: str, tmp_path: Path, monkeypatch: Any
) -> None:
    real = builtins.__import__

    def absent(module: str, *rest: Any, **more: Any) -> Any:
        if module.split(".")[0] == name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(module, *rest, **more)

    for loaded in [m for m in sys.modules if m.split(".")[0] == name or "utils.tensorboard" in m]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(
        UserError, match=f"tracker = '{name}' needs .*pip install {name}$"
    ) as caught:
        open_tracker(name, tmp_path, "run", {})
    assert len(str(caught.value).splitlines()) == 1


class Fake(types.ModuleType):
    """Stands for trackio and wandb: remembers what it was told, fails at the steps in `bad`."""

    def __init__(self, name: str, bad: tuple[int, ...] = ()) -> None:
        super().__init__(name)
        self.calls: list[tuple[Any, ...]] = []
        self.bad = bad

    def init(self, **settings: Any) -> Fake:
        print("a greeting")
        self.calls.append(("init", settings))
        return self

    def log(self, values: Mapping[str, float], step: int) -> None:
        if step in self.bad:
            raise RuntimeError(f"server gone\nat step {step}")
        self.calls.append((step, dict(values)))

    def finish(self) -> None:
        self.calls.append(("finish",))

    @property
    def steps(self) -> list[Any]:
        return [call[0] for call in self.calls if isinstance(call[0], int)]


@pytest.fixture(params=["trackio", "wandb"])
def fake(request: Any, monkeypatch: Any) -> Fake:
    module = Fake(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    for variable in ("TRACKIO_DIR", "WANDB_MODE", "WANDB_SILENT"):
        monkeypatch.setenv(variable, "")  # so that what is set here is taken back afterwards
        monkeypatch.delenv(variable)
    return module


def feed(tracker: Tracker, *steps: int) -> None:
    for step in steps:
        tracker.log(step, {"loss": 1 / step, "learning_rate": 0.1})


def test_every_finite_number_arrives_and_the_run_ends(
    fake: Fake, tmp_path: Path, capsys: Any
) -> None:
    tracker = open_tracker(fake.__name__, tmp_path, "demo-knowledge", CONFIG)
    tracker.log(1, {"loss": 2.0, "grad_norm": float("inf"), "event": "step", "done": True})
    tracker.log(2, {"loss": 1.5})
    tracker.close()
    first, *rest = fake.calls
    assert rest == [(1, {"loss": 2.0}), (2, {"loss": 1.5}), ("finish",)]
    assert first[1]["name"].startswith("demo-knowledge-")
    assert first[1]["config"] == CONFIG
    assert tracker.failures == 0
    if fake.__name__ == "trackio":
        assert capsys.readouterr().out == ""


def test_a_continued_run_shows_no_step_twice(fake: Fake, tmp_path: Path) -> None:
    feed(open_tracker(fake.__name__, tmp_path, "run", CONFIG), 1, 2, 3)  # killed: never closed
    again = open_tracker(fake.__name__, tmp_path, "run", CONFIG)
    feed(again, 2, 3, 4)
    again.close()
    assert fake.steps == [1, 2, 3, 4]
    names = {call[1]["name"] for call in fake.calls if call[0] == "init"}
    assert len(names) == 1


def test_other_settings_begin_another_run(fake: Fake, tmp_path: Path) -> None:
    feed(open_tracker(fake.__name__, tmp_path, "run", CONFIG), 1, 2)
    feed(open_tracker(fake.__name__, tmp_path, "run", {**CONFIG, "seed": 2}), 1, 2)
    assert fake.steps == [1, 2, 1, 2]
    assert len({call[1]["name"] for call in fake.calls if call[0] == "init"}) == 2


def test_a_failing_tracker_is_told_once_and_counted(fake: Fake, tmp_path: Path) -> None:
    said: list[str] = []
    fake.bad = (2, 3)
    tracker = open_tracker(fake.__name__, tmp_path, "run", CONFIG, said.append)
    feed(tracker, 1, 2, 3, 4)
    tracker.close()
    assert fake.steps == [1, 4]
    assert tracker.failures == 2
    assert said == [
        f"tracker {fake.__name__} failed, training goes on: server gone",
        f"tracker {fake.__name__}: 2 calls failed; log.jsonl has every step",
    ]


def test_wandb_is_offline_unless_the_user_said_otherwise(
    fake: Fake, tmp_path: Path, monkeypatch: Any
) -> None:
    if fake.__name__ != "wandb":
        assert fake.__name__ == "trackio"
        open_tracker("trackio", tmp_path, "run", {})
        assert trackers.os.environ["TRACKIO_DIR"] == str(tmp_path.resolve() / "trackio")
        return
    open_tracker("wandb", tmp_path, "run", {})
    assert trackers.os.environ["WANDB_MODE"] == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    open_tracker("wandb", tmp_path, "run", {})
    assert trackers.os.environ["WANDB_MODE"] == "online"


def test_tensorboard_files_hold_each_step_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = open_tracker("tensorboard", tmp_path, "run", CONFIG)
    for step in (1, 2, 3):
        first.log(step, {"loss": float(step)})
    first.close()
    again = open_tracker("tensorboard", tmp_path, "run", CONFIG)  # from the checkpoint of step 1
    for step in (2, 3, 4):
        again.log(step, {"loss": 10.0 * step})
    again.close()
    assert first.failures == again.failures == 0
    (place,) = (tmp_path / "tensorboard").iterdir()
    events = EventAccumulator(str(place)).Reload().Scalars("loss")
    assert [(e.step, e.value) for e in events] == [(1, 1.0), (2, 20.0), (3, 30.0), (4, 40.0)]


TRACKIO = """
import json, sys
from pathlib import Path
from medexpert.train.trackers import open_tracker
folder = Path(sys.argv[1])
for steps in ((1, 2, 3), (2, 3, 4)):
    tracker = open_tracker("trackio", folder, "run", {"seed": 1})
    for step in steps:
        tracker.log(step, {"loss": 1.0 / step})
    tracker.close()
    assert tracker.failures == 0
from trackio.sqlite_storage import SQLiteStorage
(name,) = SQLiteStorage.get_runs("medexpert")
rows = SQLiteStorage.get_logs("medexpert", name)
print(json.dumps([[row["step"], row["loss"]] for row in rows]))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is not installed")
def test_trackio_database_holds_each_step_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRACKIO, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[s, 1.0 / s] for s in (1, 2, 3, 4)]
    assert list((tmp_path / "trackio").rglob("*.db"))
