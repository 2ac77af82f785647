"""The token store: what was written comes back bit for bit, and half a store is none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medexpert import manifest
from medexpert.train import store as store_module
from medexpert.train.batches import IGNORE, Account, Piece, document_pieces
from medexpert.train.rows import Measured, Plan
from medexpert.train.store import Store, build_store, count_lines, open_store

IDS = st.integers(0, 2**31 - 1)


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    size = draw(st.integers(1, 12))
    inputs = draw(st.lists(IDS, min_size=size, max_size=size))
    targets = draw(st.lists(st.one_of(st.just(IGNORE), IDS), min_size=size, max_size=size))
    breaks = draw(st.sets(st.integers(1, size - 1))) if size > 1 else set()
    numbers = st.floats(allow_nan=False, width=64)
    reference = draw(st.lists(numbers, min_size=len(breaks) + 1, max_size=len(breaks) + 1))
    return Piece(
        np.asarray(inputs, np.int32), np.asarray(targets, np.int32),
        prefix=draw(st.integers(0, size)), task=draw(st.integers(0, 5)),
        breaks=tuple(sorted(breaks)), reference=tuple(reference if draw(st.booleans()) else ()),
    )  # fmt: skip


def same(a: Piece, b: Piece) -> bool:
    plain = [(p.prefix, p.task, p.breaks, p.reference) for p in (a, b)]
    return (
        plain[0] == plain[1]
        and a.inputs.tobytes() == b.inputs.tobytes()
        and a.targets.tobytes() == b.targets.tobytes()
    )


def some(count: int, size: int = 5) -> Iterator[Piece]:
    for number in range(count):
        ids = np.arange(number, number + size, dtype=np.int32)
        yield Piece(ids, ids + 1)


def quiet(line: str) -> None:
    pass


@given(st.lists(pieces(), max_size=12), st.sampled_from([1, 7, 1 << 20]))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_store_gives_back_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[Piece], buffer: int
) -> None:
    monkeypatch.setattr(store_module, "BUFFER", buffer)
    build_store(iter(written), tmp_path / "tokens", "k", quiet)
    found = open_store(tmp_path / "tokens", "k")
    assert found is not None
    assert len(found) == len(written)
    assert all(same(a, b) for a, b in zip(found, written, strict=True))
    assert found.lengths.tolist() == [len(p) for p in written]
    assert found.target_counts.tolist() == [int((p.targets != IGNORE).sum()) for p in written]
    assert found.tasks.tolist() == [p.task for p in written]
    assert found.tokens == found.account.tokens == sum(len(p) for p in written)
    for piece in found:
        assert (piece.inputs.dtype, piece.targets.dtype) == (np.int32, np.int32)


def test_it_reads_as_a_sequence_and_cannot_be_written_to(tmp_path: Path) -> None:
    found = build_store(some(4), tmp_path / "tokens", "k", quiet)
    assert isinstance(found, Measured)
    assert same(found[-1], found[3])
    assert [p.inputs[0] for p in found[1:3]] == [1, 2]
    with pytest.raises(IndexError):
        found[4]
    with pytest.raises(ValueError, match="read-only"):
        found[0].inputs[0] = 5
    opened = np.load(tmp_path / "tokens" / "inputs.npy", allow_pickle=False)
    assert opened.shape == (20,)


def test_another_key_is_another_store(tmp_path: Path) -> None:
    build_store(some(4), tmp_path / "tokens", "k", quiet)
    assert open_store(tmp_path / "tokens", "other") is None
    assert open_store(tmp_path / "nothing", "k") is None
    assert len(build_store(some(2), tmp_path / "tokens", "other", quiet)) == 2
    assert open_store(tmp_path / "tokens", "k") is None


def test_the_account_comes_back_with_the_store(tmp_path: Path) -> None:
    class Letters:
        def more(self, text: str) -> list[int]:
            return [ord(c) for c in text]

        start = more

    account = Account()
    texts = ["abc", "d" * 40, "e"]
    read = document_pieces(texts, Letters(), 2, 16, account, cap=10)
    build_store(read, tmp_path / "tokens", "k", quiet, account)
    found = open_store(tmp_path / "tokens", "k")
    assert found is not None
    assert found.account == account
    assert (account.items, account.not_read, account.split_tokens) == (2, 1, 40)


def test_damage_is_seen_and_told(tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    build_store(some(50), folder, "k", quiet)
    path = folder / "targets.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    lines: list[str] = []
    assert open_store(folder, "k", lines.append) is None
    assert "damaged" in lines[0]
    assert "targets.npy" in lines[0]
    path.write_bytes(content[:-4])
    assert open_store(folder, "k", lines.append, checksums=False) is None
    (folder / manifest.MANIFEST).unlink()
    assert open_store(folder, "k") is None


def test_a_failed_reading_leaves_the_store_that_was_there(tmp_path: Path) -> None:
    def failing() -> Iterator[Piece]:
        yield from some(3)
        raise RuntimeError("bad line")

    build_store(some(4), tmp_path / "tokens", "k", quiet)
    with pytest.raises(RuntimeError, match="bad line"):
        build_store(failing(), tmp_path / "tokens", "new", quiet)
    assert [p.name for p in tmp_path.iterdir()] == ["tokens"]
    found = open_store(tmp_path / "tokens", "k")
    assert found is not None
    assert len(found) == 4


def test_progress_tells_rate_and_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SAY_EVERY", 0.0)
    account = Account()
    lines: list[str] = []

    def read() -> Iterator[Piece]:
        for piece in some(4):
            account.items += 1
            account.add(piece)
            yield piece

    build_store(read(), tmp_path / "tokens", "k", lines.append, account, items=4)
    assert len(lines) == 5
    assert "10 in 2 pieces" in lines[1]
    assert "50% read, ETA 0:00:0" in lines[1]
    assert "tokens/s" in lines[-1]
    assert "ETA" not in lines[-1]


def test_lines_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("{}\n" * 7, "utf-8")
    assert count_lines(tmp_path / "a") == 7


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from medexpert.train import store
from medexpert.train.batches import Piece
store.BUFFER = 64
def read():
    for n in range(200):
        if n == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        ids = np.arange(n, n + 5, dtype=np.int32)
        yield Piece(ids, ids + 1)
store.build_store(read(), Path(sys.argv[1]), "k", print)
"""


def test_a_killed_run_leaves_no_store_and_the_next_one_makes_it(tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), "150"],
        env={**os.environ, "PYTHONPATH": str(Path(store_module.__file__).parents[2])},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert (tmp_path / "tokens.partial").is_dir()
    assert open_store(folder, "k") is None
    found = build_store(some(200), folder, "k", quiet)
    assert len(found) == 200
    assert [p.name for p in tmp_path.iterdir()] == ["tokens"]


def test_a_plan_over_a_store_feeds_the_same_as_over_a_list(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    held = [p for n in range(60) for p in some(1, int(rng.integers(2, 20)))]
    found = build_store(iter(held), tmp_path / "tokens", "k", quiet)

    def fed(source: list[Piece] | Store) -> list[bytes]:
        plan = Plan(
            source, capacity=32, epochs=2, max_tokens=0, rows_per_step=4, seed=1, shuffle=True
        )
        return [
            batch.inputs.numpy().tobytes() + batch.targets.numpy().tobytes()
            for step in range(plan.steps)
            for batch in plan.batches(step, 2, 0)
        ]

    assert fed(held) == fed(found)


@pytest.mark.slow
def test_memory_is_bounded_whatever_is_written(tmp_path: Path) -> None:
    """200 MB of tokens pass through a process that grows by far less."""
    import resource

    block = np.arange(1 << 14, dtype=np.int32)
    build_store((Piece(block, block) for _ in range(100)), tmp_path / "warm", "k", quiet)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    many = (Piece(block + n, block) for n in range(1500))
    found = build_store(many, tmp_path / "tokens", "k", quiet)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    assert sum(f.stat().st_size for f in found.folder.iterdir()) > 190e6
    assert grown < 60
