"""The whole path on a tiny model: completes, skips, reruns what changed, survives kill -9."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from medexpert import launch, manifest
from medexpert.check import evaluation_problems, evaluation_tokens
from medexpert.pipeline import Pipeline
from medexpert.publish import publish
from medexpert.recipe import load
from medexpert.records import UserError


def run(path: Path, lines: list[str], *overrides: str) -> Pipeline:
    pipeline = Pipeline(load(path, overrides), lines.append)
    pipeline.run(pipeline.steps())
    return pipeline


def weights(folder: Path) -> dict[str, str]:
    return {
        stage: manifest.sha256_file(folder / stage / "model" / "model.safetensors")
        for stage in ("knowledge", "instruct", "adapt")
    }


@pytest.mark.slow
def test_a_run_completes_skips_and_reruns_only_what_changed(recipe: Callable[..., Path]) -> None:
    path, lines = recipe(), list[str]()
    pipeline = run(path, lines)
    root = pipeline.root
    for point in ("base", "knowledge", "instruct", "adapt"):
        result = json.loads((root / "evaluate" / point / "direct" / "result.json").read_text())
        assert result["n"] == 6
        assert json.loads((root / "evaluate" / point / "heldout.json").read_text())
    assert (root / "adapt" / "adapter" / "adapter_config.json").is_file()
    assert not (root / "adapt" / "state").exists()
    assert (root / "report" / "report.html").stat().st_size > 10_000
    first = weights(root)
    publishes_no_text(root, path.parent / "shared")
    stamps = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}

    lines.clear()
    run(path, lines)
    assert all("skipped" in line for line in lines), lines
    changed = {p.name for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp}
    assert changed <= {"recipe.json", ".lock"}

    lines.clear()
    run(path, lines, "instruct.learning_rate=5e-4")
    told = "\n".join(lines)
    for name in ("data", "evaluate base direct", "knowledge", "evaluate knowledge direct"):
        assert f"{name}: complete and unchanged, skipped" in lines, told
    for name in ("instruct: done", "adapt: done", "evaluate adapt direct: done", "report: done"):
        assert name in told
    second = weights(root)
    assert second["knowledge"] == first["knowledge"]
    assert second["instruct"] != first["instruct"]
    assert second["adapt"] != first["adapt"]

    lines.clear()
    run(path, lines, "instruct.learning_rate=5e-4", "knowledge.checkpoint_every=7")
    assert all("skipped" in line for line in lines), lines


def publishes_no_text(root: Path, out: Path) -> None:
    """What `report --publish` copies: numbers and labels, no question, no document, no path."""
    published = publish(root, out, command="medexpert run x", say=lambda line: None)
    assert {"machine.json", "recipe.json", "result.json", "predictions.jsonl", "report.html",
            "log.jsonl", "heldout.json"} <= {file.name for file in published}  # fmt: skip
    text = "\n".join(file.read_text("utf-8") for file in published)
    assert str(root) not in text
    examples = [json.loads(line) for line in (root / "data" / "adapt.jsonl").open()]
    heldout = [json.loads(line) for line in (root / "data" / "heldout.jsonl").open()]
    shown = json.loads((root / "evaluate" / "base" / "direct" / "examples.json").read_text())
    private = [*(e["fields"]["question"] for e in examples), *(d["text"][:60] for d in heldout)]
    assert shown
    assert not [line for line in [*private, *(e["question"] for e in shown)] if line in text]


def test_a_file_of_ones_own_is_the_benchmark_of_a_recipe(
    recipe: Callable[..., Path], tmp_path: Path
) -> None:
    mine, lines = tmp_path / "mine.jsonl", list[str]()
    rows = [
        {"id": f"q{k}", "question": f"Which number is {k}?", "answer": k % 4,
         "choices": [f"number {k}", f"about {k + 1}", "none of these", "every one"]}
        for k in range(8)
    ]  # fmt: skip
    mine.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [f"evaluate.task='file:{mine}'", "evaluate.protocol='question-only'",
                "evaluate.points=['base']", "knowledge.enabled=false",
                "instruct.enabled=false"]  # fmt: skip

    def measured(*overrides: str) -> Pipeline:
        lines.clear()
        pipeline = Pipeline(load(recipe(), [*settings, *overrides]), lines.append)
        steps = [pipeline.data_step(), *pipeline.evaluation_steps("base"), pipeline.report_step()]
        pipeline.run(steps)
        return pipeline

    assert evaluation_problems(load(recipe(), settings)) == []
    assert evaluation_tokens(load(recipe(), settings)) > 0
    root = measured("evaluate.limit=0").root
    place = root / "evaluate" / "base" / "direct"
    result = json.loads((place / "result.json").read_text())
    assert (result["task"], result["n"], result["labels"]) == ("file:mine.jsonl", 8, "letters")
    page = (root / "report" / "report.md").read_text("utf-8")
    assert "recall D %" in page
    assert "answered A/B/C/D" in page
    assert "| base | direct | question-only | 8 |" in page
    assert "Macro-F1:" not in page.split("## Stage by stage")[0]
    published = publish(root, tmp_path / "out", command="medexpert run x", say=lines.append)
    text = "\n".join(file.read_text("utf-8") for file in published)
    assert not [row for row in rows if row["question"] in text or row["choices"][0] in text]
    measured("evaluate.limit=0")
    assert all("skipped" in line for line in lines), lines
    mine.write_text(json.dumps(rows[0]) + "\n")
    measured("evaluate.limit=0")
    assert json.loads((place / "result.json").read_text())["n"] == 1
    (line,) = evaluation_problems(load(recipe(), ["evaluate.task='file:/no/such'"]))
    assert line == "evaluate.task: /no/such: no such file"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_minus_nine_in_every_step_ends_byte_equal(recipe: Callable[..., Path]) -> None:
    whole = run(recipe("whole"), []).root
    path = recipe("cut")
    cut = path.with_suffix("")
    for moment in (
        "data: started", "evaluate base direct: started", "evaluate base held-out text: started",
        "knowledge 1/", "evaluate knowledge direct: started", "instruct 1/", "adapt 1/",
        "report: started",
    ):  # fmt: skip
        assert kill_at(path, moment), f"never reached {moment!r}"
    run(path, [])
    assert weights(cut) == weights(whole)
    for point in ("base", "knowledge", "instruct", "adapt"):
        one, two = (root / "evaluate" / point / "direct" for root in (whole, cut))
        assert (one / "predictions.json").read_bytes() == (two / "predictions.json").read_bytes()
        a, b = (json.loads((root / "result.json").read_text()) for root in (one, two))
        assert (a["accuracy"], a["macro_f1"], a["n"]) == (b["accuracy"], b["macro_f1"], b["n"])
    left = [p for p in cut.rglob("*partial*")]
    assert not left, left


def start(path: Path) -> tuple[subprocess.Popen[str], IO[str]]:
    """`medexpert run` in a process of its own, and its progress lines as they come."""
    process = subprocess.Popen(
        [sys.executable, "-m", "medexpert", "run", str(path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        # A test run started in the background hands on an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    return process, process.stderr


def kill_at(path: Path, moment: str) -> bool:
    """Start `medexpert run`, and SIGKILL it when a progress line says `moment`."""
    process, lines = start(path)
    reached = False
    for line in lines:
        if moment in line:
            os.kill(process.pid, signal.SIGKILL)
            reached = True
            break
    lines.close()
    process.wait()
    return reached


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", ["data: started", "evaluate base direct: started", "knowledge 1/"]
)
def test_ctrl_c_is_one_line_and_exit_130(recipe: Callable[..., Path], moment: str) -> None:
    path = recipe()
    process, lines = start(path)
    rest: list[str] = []
    sent = False
    for line in lines:
        rest.append(line)
        if not sent and moment in line:
            sent = True
            process.send_signal(signal.SIGINT)
    assert process.wait() == 130, rest
    assert "Traceback" not in "".join(rest)
    assert "run the same command to continue" in rest[-1]


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_continues_later(
    recipe: Callable[..., Path], tmp_path: Path
) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(mount)], capture_output=True
    )
    if made.returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        path = recipe()
        command = [
            sys.executable,
            "-m",
            "medexpert",
            "run",
            str(path),
            "--set",
            f"output={mount}/r",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert "the disk is full" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=50m", str(mount)], check=True)
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.slow
def test_a_missing_or_damaged_model_file_reruns_that_stage(recipe: Callable[..., Path]) -> None:
    path, lines = recipe(), list[str]()
    root = run(path, lines).root
    before = weights(root)
    (root / "instruct" / "model" / "model.safetensors").unlink()
    lines.clear()
    run(path, lines)
    assert "knowledge: complete and unchanged, skipped" in lines
    assert "instruct: started" in lines
    assert weights(root) == before


def test_two_runs_in_one_folder_are_refused(recipe: Callable[..., Path]) -> None:
    pipeline = Pipeline(load(recipe()), print)
    holder = rf"another medexpert \(process {os.getpid()} on {os.uname().nodename}, or"
    with pipeline.locked(), pytest.raises(UserError, match=holder):
        Pipeline(load(recipe()), print).run([])


def test_the_processes_of_a_stage_keep_the_folder_when_the_run_is_killed(
    recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.Popen
    children: list[subprocess.Popen[bytes]] = []

    def begun(command: list[str], **how: Any) -> Any:
        waiting = [sys.executable, "-c", "input()"]
        children.append(real(waiting, stdin=subprocess.PIPE, **how))
        return SimpleNamespace(wait=lambda: 0)

    reader, writer = os.pipe()
    os.set_inheritable(writer, True)  # as what a library opens may be
    one, other = (Pipeline(load(recipe()), print) for _ in range(2))
    with one.locked(), monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", begun)
        launch.train("knowledge", one.root, 2, one._kept)
    try:
        os.close(writer)
        assert select.select([reader], [], [], 60)[0]  # it has ended: they have nothing else
        with pytest.raises(UserError, match=r"another medexpert .* works here"):
            other.run([])
    finally:
        children[0].communicate(b"\n")
        os.close(reader)
    other.run([])


def test_a_file_system_without_locks_is_one_line(
    recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*given: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", none)
    with pytest.raises(UserError, match=r"no locks \(Function not implemented; Lustre: mount"):
        Pipeline(load(recipe()), print).run([])


def test_a_stage_without_its_inputs_says_what_to_run(recipe: Callable[..., Path]) -> None:
    pipeline = Pipeline(load(recipe()), print)
    with pytest.raises(UserError, match="no finished data here: run `medexpert data RECIPE`"):
        pipeline.run([pipeline.stage_step("knowledge")])
    with pytest.raises(UserError, match="run `medexpert train knowledge RECIPE`"):
        pipeline.run([pipeline.stage_step("instruct")])


def test_a_stage_alone_refuses_what_other_settings_left(recipe: Callable[..., Path]) -> None:
    path = recipe()
    pipeline = Pipeline(load(path), print)
    with pytest.raises(UserError, match=r"data is not complete .* run `medexpert data RECIPE`"):
        pipeline.require_inputs("knowledge")
    pipeline.run([pipeline.data_step()])
    pipeline.require_inputs("knowledge")
    with pytest.raises(UserError, match=r"knowledge is not complete .*`medexpert train knowledge"):
        pipeline.require_inputs("instruct")
    changed = Pipeline(load(path, ["data.replay_share=0.3"]), print)
    with pytest.raises(UserError, match="data is not complete for these settings"):
        changed.require_inputs("knowledge")


def test_every_manifest_of_a_run_holds_the_recipe_and_the_versions(
    recipe: Callable[..., Path],
) -> None:
    pipeline = Pipeline(load(recipe()), print)
    pipeline.run([pipeline.data_step()])
    entry = manifest.verify(pipeline.root / "data")
    assert entry["resolved_recipe"] == pipeline.recipe.model_dump(mode="json")
    assert entry["recipe_hash"] == pipeline.recipe.hash()
    assert {"commit", "python", "torch"} <= set(entry["versions"])


def test_a_source_of_another_role_makes_held_out_results_stale(
    recipe: Callable[..., Path],
) -> None:
    path = recipe()
    pipeline = Pipeline(load(path), print)
    pipeline.run([pipeline.data_step()])
    key = pipeline.evaluation_steps("base")[-1].key()
    path.write_text(path.read_text().replace('role = "replay"', 'role = "train"'))
    assert Pipeline(load(path), print).evaluation_steps("base")[-1].key() != key


def test_a_stage_switched_off_is_left_out(recipe: Callable[..., Path]) -> None:
    pipeline = Pipeline(load(recipe(), ["knowledge.enabled=false"]), print)
    names = [step.name for step in pipeline.steps()]
    assert "knowledge" not in names
    assert pipeline.parent("instruct") == "base"
    assert pipeline.parent("adapt") == "instruct"
