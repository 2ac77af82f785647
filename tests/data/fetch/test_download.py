"""Downloads that are cut, killed, refused and changed under way; the bytes are invented."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medexpert.data import download
from medexpert.data.catalogue import Origin, SourceEntry
from medexpert.data.checksums import LOCK
from medexpert.data.download import Patience
from medexpert.data.fetch import fetch
from medexpert.records import UserError

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
Server = Any  # of conftest.py
Make = Callable[..., SourceEntry]
QUICK = Patience(timeout=0.5, tries=3, pause=0.01, longest=0.02, every=0.0)
BODY = bytes(range(256)) * 800  # 204,800 bytes


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def get(folder: Path, **changes: Any) -> list[Path]:
    return fetch("demo", folder, **{"say": lambda line: None, "patience": QUICK, **changes})


def start(server: Server, make: Make, folder: Path, at: int, **origin: Any) -> None:
    """Leave a download that stopped after `at` bytes."""
    server.files["/a"] = BODY
    server.cut = [at] * 3
    make(Origin("demo/a.bin", url=f"{server.address}/a", **origin))
    with pytest.raises(UserError, match="the connection was cut"):
        get(folder, patience=Patience(0.5, 1, 0.01, 0.01))
    server.cut = []
    assert (folder / "demo" / "a.bin.partial").stat().st_size == at
    server.asked.clear()


def test_an_interrupted_download_asks_for_the_rest_only(
    server: Server, make: Make, tmp_path: Path
) -> None:
    start(server, make, tmp_path, 100_000)
    told: list[str] = []
    get(tmp_path, say=told.append)
    assert [(h["range"], h["if-range"]) for _, h in server.asked] == [("bytes=100000-", '"one"')]
    assert (tmp_path / "demo" / "a.bin").read_bytes() == BODY
    assert "demo/a.bin: continues at 100.0 kB" in told


def test_a_cut_connection_is_taken_up_again(server: Server, make: Make, tmp_path: Path) -> None:
    server.files["/a"] = BODY
    server.cut = [50_000, 30_000, 1, 1, 1, 20_000]  # progress: the count of tries starts anew
    make(Origin("demo/a.bin", url=f"{server.address}/a", sha256=sha(BODY)))
    get(tmp_path)
    asked = ["", *(f"bytes={n}-" for n in (50_000, 80_000, 80_001, 80_002, 80_003, 100_003))]
    assert server.ranges_asked() == asked


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(0, 60_000), max_size=5), ranges=st.booleans())
def test_cuts_anywhere_give_the_same_bytes(
    cuts: list[int], ranges: bool, server: Server, make: Make, tmp_path: Path
) -> None:
    folder = tmp_path / sha(repr((cuts, ranges)).encode())[:8]
    server.files["/a"], server.cut, server.ranges = BODY, list(cuts), ranges
    make(Origin("demo/a.bin", url=f"{server.address}/a"))
    (file,) = get(folder, patience=Patience(0.5, 12, 0.0, 0.0))
    assert file.read_bytes() == BODY


def test_a_killed_fetch_continues(server: Server, make: Make, tmp_path: Path) -> None:
    server.files["/a"], server.wait, server.piece = BODY, 0.05, 4096
    code = (
        "import sys; from medexpert.data import catalogue as c\n"
        "from medexpert.data.fetch import fetch\n"
        "o = c.Origin('demo/a.bin', url=sys.argv[1])\n"
        "c.SOURCES['demo'] = c.SourceEntry('demo', 'knowledge', 'en', 'MIT', 'documents',"
        " origin=(o,))\n"
        "fetch('demo', sys.argv[2])\n"
    )
    address = f"{server.address}/a"
    child = subprocess.Popen([sys.executable, "-c", code, address, str(tmp_path)])
    partial = tmp_path / "demo" / "a.bin.partial"
    until = time.monotonic() + 30
    while not (partial.exists() and partial.stat().st_size > 20_000):
        assert time.monotonic() < until
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    here = partial.stat().st_size
    assert 0 < here < len(BODY)
    server.wait, server.piece = 0.0, 1 << 16
    make(Origin("demo/a.bin", url=address, sha256=sha(BODY)))
    get(tmp_path)
    assert server.ranges_asked() == ["", f"bytes={here}-"]


def test_a_file_that_changed_on_the_server_starts_over(
    server: Server, make: Make, tmp_path: Path
) -> None:
    start(server, make, tmp_path, 100_000)
    server.etag, server.files["/a"] = '"two"', BODY[::-1]
    told: list[str] = []
    (file,) = get(tmp_path, say=told.append)
    assert file.read_bytes() == BODY[::-1]
    assert any("starts over" in line for line in told)


def test_a_server_that_gives_no_parts_starts_over(
    server: Server, make: Make, tmp_path: Path
) -> None:
    start(server, make, tmp_path, 100_000)
    server.ranges = False
    (file,) = get(tmp_path)
    assert file.read_bytes() == BODY


def test_without_a_version_a_part_is_taken_only_when_the_checksum_is_known(
    server: Server, make: Make, tmp_path: Path
) -> None:
    server.etag = ""
    start(server, make, tmp_path / "unknown", 100_000)
    get(tmp_path / "unknown")
    assert server.ranges_asked() == [""]
    start(server, make, tmp_path / "known", 100_000, sha256=sha(BODY))
    get(tmp_path / "known")
    assert server.ranges_asked() == ["bytes=100000-"]


def test_more_than_the_server_has_starts_over(server: Server, make: Make, tmp_path: Path) -> None:
    start(server, make, tmp_path, 100_000)
    partial = tmp_path / "demo" / "a.bin.partial"
    partial.write_bytes(BODY + b"more")
    (file,) = get(tmp_path)
    assert file.read_bytes() == BODY


def test_another_files_partial_is_not_continued(server: Server, make: Make, tmp_path: Path) -> None:
    start(server, make, tmp_path, 100_000)
    server.files["/b"] = b"b" * 150_000
    make(Origin("demo/a.bin", url=f"{server.address}/b"))
    (file,) = get(tmp_path)
    assert file.read_bytes() == b"b" * 150_000


def test_a_file_of_another_size_is_not_downloaded(
    server: Server, make: Make, tmp_path: Path
) -> None:
    server.files["/a"] = BODY
    make(Origin("demo/a.bin", url=f"{server.address}/a", sha256=sha(b"x"), bytes=1))
    with pytest.raises(UserError, match=r"/a: the file has changed: 204,800 bytes, expected 1$"):
        get(tmp_path)


def test_no_such_file_is_not_tried_again(server: Server, make: Make, tmp_path: Path) -> None:
    make(Origin("demo/a.bin", url=f"{server.address}/a"))
    with pytest.raises(UserError, match=r"/a: the server answers 404 Not Found$"):
        get(tmp_path)
    assert len(server.asked) == 1


def test_a_busy_server_is_tried_again(server: Server, make: Make, tmp_path: Path) -> None:
    server.files["/a"], server.statuses = BODY, [503, 429]
    make(Origin("demo/a.bin", url=f"{server.address}/a"))
    told: list[str] = []
    get(tmp_path, say=told.append)
    assert "503 Service Unavailable; try 2 of 3 in 0 s" in told
    server.statuses = [500, 500, 500]
    make(Origin("demo/b.bin", url=f"{server.address}/a"))
    with pytest.raises(UserError, match=r"cannot get it from 127.0.0.1:\d+ \(500 Internal"):
        get(tmp_path)


def test_a_silent_server_is_given_up(server: Server, make: Make, tmp_path: Path) -> None:
    server.files["/a"], server.silent = BODY, 0.6
    make(Origin("demo/a.bin", url=f"{server.address}/a"))
    began = time.monotonic()
    with pytest.raises(UserError, match="no answer in time"):
        get(tmp_path, patience=Patience(0.1, 2, 0.01, 0.01))
    assert time.monotonic() - began < 5


def test_no_network_is_one_line(server: Server, make: Make, tmp_path: Path) -> None:
    make(Origin("demo/a.bin", url="http://127.0.0.1:1/a"))
    line = (
        r"^http://127.0.0.1:1/a: cannot get it from 127.0.0.1:1 \(Connection refused\); what has "
        r"come is kept: .* use a copy with --from PATH$"
    )
    with pytest.raises(UserError, match=line):
        get(tmp_path)


def test_a_web_page_is_not_a_file(server: Server, make: Make, tmp_path: Path) -> None:
    server.files["/a"], server.kind = b"<html>log in</html>", "text/html; charset=utf-8"
    make(Origin("demo/a.bin", url=f"{server.address}/a"))
    with pytest.raises(UserError, match="the server answers with a web page, not the file"):
        get(tmp_path)


def test_a_full_disk_is_told_before(
    server: Server, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/a"] = BODY
    make(Origin("demo/a.bin", url=f"{server.address}/a"))
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"needs 204\.8 kB, the disk has 1\.0 kB free"):
        get(tmp_path)


def hub(server: Server, monkeypatch: pytest.MonkeyPatch, body: bytes, linked: str) -> str:
    path = "/datasets/org/set/resolve/main/data/a.parquet"
    server.redirect[path] = f"{server.address}/cdn"
    server.headers[path] = {"X-Linked-Etag": f'"{linked}"', "X-Repo-Commit": "c0ffee"}
    server.files["/cdn"] = body
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    return path


def test_a_token_goes_to_the_hub_only(
    server: Server,
    serving: Callable[..., Any],
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = hub(server, monkeypatch, BODY, sha(BODY))
    monkeypatch.setenv("HF_TOKEN", "secret")
    make(Origin("demo/a.parquet", hub="org/set", path="data/a.parquet"))
    with serving(files={"/cdn": BODY}) as other:
        server.redirect[path] = f"{other.address}/cdn"
        get(tmp_path)
    assert server.asked[0][1]["authorization"] == "Bearer secret"
    assert "authorization" not in other.asked[0][1]
    assert "secret" not in (tmp_path / LOCK).read_text()


def test_the_hub_may_be_gated_or_forbidden(
    server: Server, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    make(Origin("demo/a.parquet", hub="org/set", path="data/a.parquet"))
    server.statuses = [401]
    with pytest.raises(UserError, match="401 Unauthorized: accept the data set's terms on its hub"):
        get(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set: org/set is not asked for"):
        get(tmp_path)
