"""Sources fetched from a server on this machine, or taken from a copy; the bytes are invented."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medexpert.data import catalogue
from medexpert.data.catalogue import BenchmarkEntry, Origin, SourceEntry
from medexpert.data.checksums import LOCK, Lock, measure
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


def test_a_file_is_fetched_recorded_and_not_asked_for_again(
    server: Server, make: Make, tmp_path: Path
) -> None:
    server.files["/a"] = BODY
    make(Origin("demo/a.bin", url=f"{server.address}/a"))
    told: list[str] = []
    assert get(tmp_path, say=told.append) == [tmp_path / "demo" / "a.bin"]
    assert (tmp_path / "demo" / "a.bin").read_bytes() == BODY
    row = json.loads((tmp_path / LOCK).read_text())["demo/a.bin"]
    assert row == {"sha256": sha(BODY), "bytes": len(BODY), "from": f"{server.address}/a"}
    assert told[0] == "demo: licence: MIT"
    assert re.search(r"of 204\.8 kB \(\d+%\), [\d.]+ \wB/s, \d+ s left", told[1])
    assert told[-1] == f"demo/a.bin: 204.8 kB, checksum unknown, recorded in {LOCK}"
    get(tmp_path, say=told.append)
    assert told[-1] == "demo/a.bin: here already, unchanged"
    assert len(server.asked) == 1
    assert not list(tmp_path.rglob("*.partial*"))


def test_a_licence_outside_the_default_mix_is_told(
    server: Server, make: Make, tmp_path: Path
) -> None:
    server.files["/a"] = BODY
    make(Origin("demo/a.bin", url=f"{server.address}/a"), licence="CC BY-NC 4.0")
    told: list[str] = []
    get(tmp_path, say=told.append)
    assert told[0] == "demo: licence: CC BY-NC 4.0 (outside the default mix)"


def test_wrong_checksum_names_both_and_keeps_the_file_aside(
    server: Server, make: Make, tmp_path: Path
) -> None:
    server.files["/a"] = BODY
    make(Origin("demo/a.bin", url=f"{server.address}/a", sha256=sha(b"other")))
    line = f"a.bin: wrong SHA-256: expected {sha(b'other')}, got {sha(BODY)}; kept aside as a.bin.b"
    with pytest.raises(UserError, match=line):
        get(tmp_path)
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"a.bin.bad"}
    make(Origin("demo/a.bin", url=f"{server.address}/a", blob=measure_blob(BODY)))
    get(tmp_path)
    assert server.ranges_asked() == ["", ""]
    make(Origin("demo/b.bin", url=f"{server.address}/a", blob="0" * 40))
    with pytest.raises(UserError, match=f"wrong git blob id: expected {'0' * 40}, got"):
        get(tmp_path)


def measure_blob(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def test_the_recorded_checksum_is_enforced(server: Server, make: Make, tmp_path: Path) -> None:
    server.files["/a"] = BODY
    make(Origin("demo/a.bin", url=f"{server.address}/a"))
    (file,) = get(tmp_path)
    file.write_bytes(b"altered")
    line = f"wrong SHA-256 recorded in {LOCK}: expected {sha(BODY)}, got .*delete it to fetch it ag"
    with pytest.raises(UserError, match=line):
        get(tmp_path)
    assert file.read_bytes() == b"altered"
    file.unlink()
    server.files["/a"] = b"a new edition"
    with pytest.raises(UserError, match=f"wrong SHA-256 recorded in {LOCK}: .*aside as a.bin.bad"):
        get(tmp_path)


def baseline(server: Server) -> None:
    names = [f"pubmed26n000{i}.xml.gz" for i in (1, 2, 3)]
    links = "".join(f'<a href="{n}">{n}</a> <a href="{n}.md5">md5</a>\n' for n in names)
    server.files["/baseline/"] = f'<a href="../">up</a>\n{links}'.encode()
    for name in names:
        server.files[f"/baseline/{name}"] = name.encode() * 100
        md5 = hashlib.md5(name.encode() * 100).hexdigest()
        server.files[f"/baseline/{name}.md5"] = f"MD5({name})= {md5}\n".encode()


def test_numbered_files_with_their_published_md5(
    server: Server, make: Make, tmp_path: Path
) -> None:
    baseline(server)
    url = f"{server.address}/baseline/pubmed*n*.xml.gz"
    make(Origin("medline/pubmed*n*.xml.gz", url=url, md5_suffix=".md5"))
    told: list[str] = []
    found = get(tmp_path, only="*n000[12]*", say=told.append)
    assert [file.name for file in found] == ["pubmed26n0001.xml.gz", "pubmed26n0002.xml.gz"]
    assert "medline/pubmed26n0002.xml.gz (2 of 2): 2.0 kB, verified (MD5)" in told
    assert len(get(tmp_path)) == 3
    with pytest.raises(UserError, match=r"no file of 'demo' matches 'x'; allowed: .*0001.*0003"):
        get(tmp_path, only="x")
    server.files["/baseline/pubmed26n0003.xml.gz.md5"] = b"MD5 = " + b"0" * 32
    (tmp_path / "medline" / "pubmed26n0003.xml.gz").unlink()
    with pytest.raises(UserError, match=f"wrong MD5: expected {'0' * 32}, got "):
        get(tmp_path)
    server.files["/baseline/pubmed26n0003.xml.gz.md5"] = b"none"
    with pytest.raises(UserError, match=r"n0003.xml.gz.md5: holds no MD5"):
        get(tmp_path)
    server.files["/baseline/"] = b"empty"
    with pytest.raises(UserError, match=r"baseline/: no file pubmed\*n\*.xml.gz is listed here"):
        get(tmp_path)


def hub(server: Server, monkeypatch: pytest.MonkeyPatch, body: bytes, linked: str) -> str:
    path = "/datasets/org/set/resolve/main/data/a.parquet"
    server.redirect[path] = f"{server.address}/cdn"
    server.headers[path] = {"X-Linked-Etag": f'"{linked}"', "X-Repo-Commit": "c0ffee"}
    server.files["/cdn"] = body
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    return path


def test_the_hub_states_its_checksum(
    server: Server, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub(server, monkeypatch, BODY, sha(BODY))
    make(Origin("demo/a.parquet", hub="org/set", path="data/a.parquet"))
    told: list[str] = []
    get(tmp_path, say=told.append)
    assert told[-1] == "demo/a.parquet: 204.8 kB, verified (SHA-256)"
    assert json.loads((tmp_path / LOCK).read_text())["demo/a.parquet"]["commit"] == "c0ffee"
    hub(server, monkeypatch, BODY[1:], sha(BODY))
    make(Origin("demo/b.parquet", hub="org/set", path="data/a.parquet"))
    with pytest.raises(UserError, match="wrong SHA-256"):
        get(tmp_path)


def test_a_small_file_of_the_hub_has_its_blob_id(
    server: Server, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/datasets/org/set/resolve/v1%2Fx/a.json"] = b"[]"
    server.etag = f'"{measure_blob(b"[]")}"'
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    make(Origin("demo/a.json", hub="org/set", path="a.json", revision="v1/x"))
    told: list[str] = []
    get(tmp_path, say=told.append)
    assert told[-1].endswith("verified (git blob id)")


def test_a_member_of_an_archive(server: Server, make: Make, tmp_path: Path) -> None:
    packed = tmp_path / "x.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("deep/train.jsonl", "{}\n")
    server.files["/x"] = packed.read_bytes()
    outer = Origin("demo/x.zip", url=f"{server.address}/x")
    make(outer, Origin("demo/train.jsonl", archive="demo/x.zip", member="deep/train.jsonl"))
    data = tmp_path / "data"
    assert [file.name for file in get(data)] == ["x.zip", "train.jsonl"]
    assert (data / "demo" / "train.jsonl").read_text() == "{}\n"
    make(outer, Origin("demo/b.jsonl", archive="demo/x.zip", member="deep/b.jsonl"))
    with pytest.raises(
        UserError, match=r"x.zip: it does not hold deep/b.jsonl; allowed: deep/train"
    ):
        get(data)
    with pytest.raises(UserError, match=r"x.zip: demo/b.jsonl is taken out of it: fetch it too"):
        get(tmp_path / "other", only="b.jsonl")
    make(Origin("demo/bad.zip", url=f"{server.address}/x"), Origin("demo/c", archive="demo/bad.zip",
                                                                  member="c"))  # fmt: skip
    server.files["/x"] = b"PK not a zip"
    with pytest.raises(UserError, match=r"bad.zip: a damaged or cut-short archive"):
        get(data)


def test_a_local_copy_is_verified_and_taken(make: Make, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    (copies / "a.bin").write_bytes(BODY)
    make(Origin("demo/a.bin", url="http://127.0.0.1:1/a", sha256=sha(BODY)))
    told: list[str] = []
    (file,) = get(tmp_path / "data", local=copies, say=told.append)
    assert os.stat(file).st_ino == os.stat(copies / "a.bin").st_ino
    assert told[-1] == "demo/a.bin: 204.8 kB, verified (SHA-256)"
    assert get(tmp_path / "data", local=copies / "a.bin") == [file]
    (copies / "a.bin").unlink()
    (copies / "demo").mkdir()
    (copies / "demo" / "a.bin.gz").write_bytes(gzip.compress(BODY))
    (again,) = get(tmp_path / "two", local=copies)
    assert again.read_bytes() == BODY
    make(Origin("demo/a.bin", url="http://127.0.0.1:1/a", sha256=sha(b"x")))
    with pytest.raises(UserError, match=r"a.bin.gz: wrong SHA-256: expected .*it was not used"):
        get(tmp_path / "three", local=copies)
    (copies / "demo" / "a.bin.gz").write_bytes(gzip.compress(BODY)[:-20])
    with pytest.raises(UserError, match=r"a.bin.gz: a damaged or cut-short gzip file"):
        get(tmp_path / "three", local=copies)
    (copies / "demo" / "a.bin.gz").unlink()
    with pytest.raises(UserError, match=r"copies: a.bin is not here; allowed: .*demo/a.bin, "):
        get(tmp_path / "three", local=copies)
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        get(tmp_path / "three", local=tmp_path / "nowhere")


def test_a_copy_by_hand_of_what_cannot_be_fetched(make: Make, tmp_path: Path) -> None:
    make(files=("demo/part-*.jsonl.gz",), url="https://example.org")
    line = r"no file of 'demo' can be fetched by name; get a copy by hand \(see https://example.org"
    with pytest.raises(UserError, match=line):
        get(tmp_path)
    copies = tmp_path / "copies"
    copies.mkdir()
    with pytest.raises(UserError, match=r"copies: no file of 'demo' here; allowed: demo/part-\*"):
        get(tmp_path / "data", local=copies)
    for number in (0, 1):
        (copies / f"part-{number}.jsonl.gz").write_bytes(gzip.compress(b"{}\n"))
    told: list[str] = []
    found = get(tmp_path / "data", local=copies, say=told.append)
    assert [file.name for file in found] == ["part-0.jsonl.gz", "part-1.jsonl.gz"]
    assert told[-1].endswith(f"checksum unknown, recorded in {LOCK}")
    entry = catalogue.find("demo")
    assert catalogue.locate(entry, tmp_path / "data") == [str(file) for file in found]


def test_a_file_put_there_by_hand_is_held_to_its_published_md5(
    server: Server, make: Make, tmp_path: Path
) -> None:
    baseline(server)
    url = f"{server.address}/baseline/pubmed*n*.xml.gz"
    make(Origin("medline/pubmed*n*.xml.gz", url=url, md5_suffix=".md5"))
    (tmp_path / "medline").mkdir()
    file = tmp_path / "medline" / "pubmed26n0001.xml.gz"
    file.write_bytes(b"other")
    with pytest.raises(UserError, match=r"wrong MD5: .*delete it to fetch it again"):
        get(tmp_path)
    file.write_bytes(file.name.encode() * 100)
    told: list[str] = []
    get(tmp_path, only="*0001*", say=told.append)
    assert told[-1] == "medline/pubmed26n0001.xml.gz: here already, verified (MD5)"


def test_a_benchmark_of_the_same_name_is_fetched_too(
    server: Server, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files.update({"/a": b"a", "/b": b"b"})
    train = Origin("demo/a.bin", url=f"{server.address}/a")
    test = Origin("demo/b.bin", url=f"{server.address}/b")
    benchmark = BenchmarkEntry("demo", "en", "MIT", "mcq", origin=(train, test))
    monkeypatch.setitem(catalogue.BENCHMARKS, "demo", benchmark)
    assert [file.name for file in get(tmp_path / "benchmark")] == ["a.bin", "b.bin"]
    make(train)
    assert [file.name for file in get(tmp_path / "both")] == ["a.bin", "b.bin"]
    assert len(server.asked) == 4


def test_nothing_to_fetch_and_unknown_names(tmp_path: Path) -> None:
    for name in ("starter-qa-en", "trialgen"):
        with pytest.raises(UserError, match="comes with the program: there is nothing to fetch"):
            fetch(name, tmp_path, say=lambda line: None)
    with pytest.raises(UserError, match=r"unknown source 'medqad'.*did you mean 'medquad'"):
        fetch("medqad", tmp_path)


def test_a_damaged_lock_and_another_fetch(make: Make, tmp_path: Path) -> None:
    make(Origin("demo/a.bin", url="http://127.0.0.1:1/a"))
    (tmp_path / LOCK).write_text('{"a": 1}')
    with pytest.raises(UserError, match=f"{LOCK}: is damaged: delete it, then fetch again"):
        get(tmp_path)
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another fetch is writing into this folder"):
        get(tmp_path)
    os.close(handle)
    with pytest.raises(UserError, match="is damaged"):
        Lock(tmp_path)


def test_measure_reads_packed_and_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(BODY))
    found = measure(path, unpack=True)
    assert (found.sha256, found.blob, found.bytes) == (sha(BODY), measure_blob(BODY), len(BODY))
    assert measure(path).sha256 == sha(path.read_bytes())
    assert found.md5 == hashlib.md5(BODY).hexdigest()
