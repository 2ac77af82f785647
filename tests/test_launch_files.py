"""The launch files: they parse, and their own commands make two "nodes" of this machine meet."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import medexpert
from medexpert.launch import GRACE

LAUNCH = Path(__file__).resolve().parents[1] / "launch"
TRAINED = """
import sys, torch, torch.distributed as world
world.init_process_group("gloo")
total = torch.tensor([world.get_rank() + 1.0])
world.all_reduce(total)
line = f"{sys.argv[1:]} rank {world.get_rank()} of {world.get_world_size()} sum {total.item()}"
open(f"{sys.argv[0]}.{world.get_rank()}", "w").write(line)
world.destroy_process_group()
"""
"""Stands for `medexpert train`: proves that the processes found each other, and what they got."""


def job() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    service, found = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    assert service["kind"] == "Service"
    assert service["metadata"]["name"] == found["spec"]["template"]["spec"]["subdomain"]
    return dict(found)


def test_the_job_is_indexed_and_of_one_size() -> None:
    found = job()
    spec = found["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    settings = {entry["name"]: entry["value"] for entry in container["env"]}
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(settings["NODES"])
    assert container["resources"]["limits"]["nvidia.com/gpu"] == settings["GPUS"]
    grace = spec["template"]["spec"]["terminationGracePeriodSeconds"]
    assert "TORCH_ELASTIC_SHUTDOWN_TIMEOUT" not in settings
    assert grace > GRACE
    assert (LAUNCH.parent / settings["RECIPE"]).is_file()
    # A policy for failed pods needs it; and the pre-empted must not use up the retries.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")


def test_the_batch_script_is_bash_and_tells_how_it_is_used() -> None:
    script = LAUNCH / "slurm.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert done.returncode != 0
    assert "usage: sbatch launch/slurm.sbatch STAGE RECIPE" in done.stderr
    (seconds,) = re.findall(r"^#SBATCH --signal=TERM@(\d+)$", script.read_text(), re.MULTILINE)
    assert int(seconds) > GRACE


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a package `medexpert` whose command stands for ours, and commands for PATH."""
    (tmp_path / "medexpert").mkdir()
    ours = str(Path(medexpert.__file__).parent)
    (tmp_path / "medexpert" / "__init__.py").write_text(f"__path__.append({ours!r})\n")
    (tmp_path / "medexpert" / "__main__.py").write_text(TRAINED)
    (tmp_path / "bin").mkdir()
    commands = {
        "python": f'exec {sys.executable} "$@"',
        "scontrol": "echo localhost; echo other",
        # One task a node, all on this machine.
        "srun": 'echo "srun $1 $2" >&2; shift 2; for node in 0 1; do "$@" & done; wait -n; wait -n',
    }
    for name, line in commands.items():
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\nset -e\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def surroundings(place: Path, **more: str) -> dict[str, str]:
    path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1", **more}


def found_each_other(place: Path, arguments: list[str]) -> None:
    written = sorted((place / "medexpert").glob("__main__.py.*"))
    assert [path.read_text() for path in written] == [
        f"{arguments} rank {rank} of 2 sum 3.0" for rank in range(2)
    ]


def free_port() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.enable_socket
def test_two_slurm_nodes_meet(place: Path) -> None:
    environment = surroundings(
        place, SLURM_NNODES="2", SLURM_JOB_NODELIST="n[0-1]", SLURM_JOB_ID="7",
        SLURM_CPUS_PER_TASK="1", GPUS_PER_NODE="1", RENDEZVOUS_PORT=free_port(),
    )  # fmt: skip
    arguments = ["adapt", "recipe.toml", "--set", "seed=1"]
    done = subprocess.run(
        ["bash", str(LAUNCH / "slurm.sbatch"), *arguments],
        env=environment, capture_output=True, text=True, timeout=120, cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "srun --kill-on-bad-exit=1 --cpus-per-task=1\n" in done.stderr
    found_each_other(place, ["train", *arguments])


@pytest.mark.slow
@pytest.mark.enable_socket
def test_two_pods_meet(place: Path) -> None:
    (container,) = job()["spec"]["template"]["spec"]["containers"]
    command = container["args"][0].replace(
        "medexpert-0.medexpert:29400", f"localhost:{free_port()}"
    )
    pods = [
        subprocess.Popen(
            [*container["command"], command], cwd=place, stderr=subprocess.PIPE, text=True,
            env=surroundings(
                place, NODES="2", GPUS="1", STAGE="adapt", RECIPE="recipe.toml",
                JOB_COMPLETION_INDEX=str(index),
            ),
        )
        for index in range(2)
    ]  # fmt: skip
    for pod in pods:
        _, errors = pod.communicate(timeout=120)
        assert pod.returncode == 0, errors[-2000:]
    found_each_other(place, ["train", "adapt", "recipe.toml"])


@pytest.mark.slow
@pytest.mark.enable_socket
def test_a_node_that_waits_for_the_others_ends_when_asked(place: Path) -> None:
    port = free_port()
    node = subprocess.Popen(
        [
            sys.executable, "-m", "medexpert.launch", "--nnodes", "2", "--rdzv-backend", "c10d",
            "--rdzv-id", "waits", "--rdzv-endpoint", f"localhost:{port}", "-m", "medexpert",
        ],
        cwd=place, stderr=subprocess.PIPE, text=True, env=surroundings(place),
    )  # fmt: skip
    try:
        for _ in range(1200):  # until it holds the rendezvous
            with socket.socket() as probe:
                if probe.connect_ex(("localhost", int(port))) == 0:
                    break
            assert node.poll() is None
            time.sleep(0.1)
        node.send_signal(signal.SIGTERM)
        _, told = node.communicate(timeout=60)
    finally:
        node.kill()
    # Its own end, not the signal's (-15): process 1 of a container gets only what it handles.
    assert node.returncode == 128 + signal.SIGTERM, told
    assert "Traceback" not in told, told
