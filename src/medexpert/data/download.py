"""One address to one file over HTTP: resumed, retried, checked. All sockets of this room are here.

A download goes to `FILE.partial` beside its place, with what the server said of the file in
`FILE.partial.json`. A run that was killed continues there as long as the server still has the same
file (entity tag, date and size); else it starts over. RFC 9110, sections 13.1.5 and 14.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from medexpert._version import __version__
from medexpert.manifest import disk_errors, write_json
from medexpert.records import UserError

Say = Callable[[str], None]
HUB = "https://huggingface.co"
_BLOCK = 1 << 18
_PASSING = (408, 416, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds: for a silent server (`timeout`), before the next try (`pause`,
    doubled each time up to `longest`), between progress lines (`every`). `tries` is how many
    connections in a row may bring no new byte."""

    timeout: float = 60.0
    tries: int = 6
    pause: float = 1.0
    longest: float = 60.0
    every: float = 5.0


@dataclass(frozen=True)
class Answer:
    """What a server says of a file: entity tag, date, full size (-1 if it does not tell).

    `linked` is the checksum that the hub publishes (SHA-256, or for a small file its git blob
    id), `commit` the commit that a hub revision stood for.
    """

    etag: str = ""
    modified: str = ""
    length: int = -1
    linked: str = ""
    commit: str = ""

    def same(self, other: Answer) -> bool:
        """Whether two answers speak of the same bytes."""
        return (self.etag, self.modified, self.length) == (other.etag, other.modified, other.length)


def hub_address(hub: str, revision: str, path: str) -> str:
    """Where a file of a hub data set is served. Raises UserError when the hub may not be asked."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise UserError(f"HF_HUB_OFFLINE is set: {hub} is not asked for; use a copy with --from")
    return f"{_hub()}/datasets/{hub}/resolve/{quote(revision, safe='')}/{quote(path)}"


def _hub() -> str:
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def size_text(count: float) -> str:
    """Bytes for a reader: "12.3 MB" (MB = 10^6 bytes)."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def small_file(address: str, patience: Patience, limit: int) -> bytes:
    """A small file in memory (an index, a checksum). Raises UserError as :func:`download`."""
    tries = _Tries(address, patience, lambda line: None)
    while True:
        try:
            with _open(address, patience.timeout, {}) as (_, response):
                content: bytes = response.read(limit + 1)
        except (OSError, HTTPException) as error:
            tries.failed(error)
        else:
            if len(content) > limit:
                raise UserError(f"is larger than {size_text(limit)}", where=address)
            return content


def download(
    address: str,
    target: Path,
    *,
    label: str,
    expected: int,
    verified: bool,
    say: Say,
    patience: Patience,
) -> tuple[Path, Answer]:
    """(`target`.partial filled to its end, what the server says of it), by as many tries as needed.

    `expected` is the size in bytes that the file must have, 0 if unknown; `verified` tells that
    its checksum is known, so that a part may be taken from a server that names no version.

    Raises UserError: no network, no such file, another size, a full disk, a web page instead.
    """
    partial = partial_file(target)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    one = _Transfer(address, target, label, expected, verified, say, patience)
    tries = _Tries(address, patience, say)
    while True:
        before = _size(partial)
        try:
            answer = one.run()
            if answer.length in (-1, _size(partial)):
                return partial, answer
            raise HTTPException(f"the connection was cut at {size_text(_size(partial))}")
        except (OSError, HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 416:
                forget(target)  # more is here than the server's file has
            if _size(partial) > before:
                tries.done = 0
            tries.failed(error)


def partial_file(target: Path) -> Path:
    """Where a file lies while it is not complete and verified."""
    return target.with_name(target.name + ".partial")


def forget(target: Path) -> None:
    """Remove what is kept of an unfinished download."""
    partial_file(target).unlink(missing_ok=True)
    _state_file(target).unlink(missing_ok=True)


def _state_file(target: Path) -> Path:
    return target.with_name(target.name + ".partial.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@dataclass
class _Transfer:
    address: str
    target: Path
    label: str
    expected: int
    verified: bool
    say: Say
    patience: Patience

    def run(self) -> Answer:
        """One connection: ask for the rest of the file and append it, or start over."""
        partial = partial_file(self.target)
        before = self._state()
        here = _size(partial) if before else 0
        if before and here == before.length:
            return before
        with _open(self.address, self.patience.timeout, self._range(here, before)) as (now, answer):
            start = _start(answer)
            if start and (start != here or not before or not now.same(before)):
                forget(self.target)
                raise HTTPException("the server gave another part, or part of another file")
            self._check(now, answer.headers.get_content_type())
            if here and not start:
                self.say(f"{self.label}: starts over (no part of the same file is to be had)")
            elif start:
                self.say(f"{self.label}: continues at {size_text(start)}")
            with disk_errors(self.target):
                if not start:
                    forget(self.target)
                    write_json(
                        _state_file(self.target), {"address": self.address, "answer": asdict(now)}
                    )
                sink = partial.open("ab")
            with sink:
                self._pour(answer, sink, start, now.length)
        return now

    def _state(self) -> Answer | None:
        """What the server said when the download began; None if it was another address."""
        try:
            row = json.loads(_state_file(self.target).read_text("utf-8"))
            return Answer(**row["answer"]) if row["address"] == self.address else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _range(self, here: int, before: Answer | None) -> dict[str, str]:
        if not here or before is None:
            return {}
        strong = before.etag if not before.etag.startswith("W/") else ""
        mark = strong or before.modified
        if not mark and not self.verified:
            return {}
        return {"Range": f"bytes={here}-"} | ({"If-Range": mark} if mark else {})

    def _check(self, answer: Answer, kind: str) -> None:
        if kind == "text/html" and self.target.suffix not in (".html", ".htm"):
            raise UserError("the server answers with a web page, not the file", where=self.address)
        if self.expected and answer.length not in (-1, self.expected):
            raise UserError(
                f"the file has changed: {answer.length:,} bytes, expected {self.expected:,}",
                where=self.address,
            )
        free = shutil.disk_usage(self.target.parent).free
        if answer.length - _size(partial_file(self.target)) > free:
            raise UserError(
                f"needs {size_text(answer.length)}, the disk has {size_text(free)} free",
                where=str(self.target),
            )

    def _pour(self, response: Any, sink: IO[bytes], start: int, length: int) -> None:
        began = told = time.monotonic()
        done = start
        while block := response.read1(_BLOCK):
            with disk_errors(self.target):
                sink.write(block)
            done += len(block)
            now = time.monotonic()
            if now - told >= self.patience.every:
                told, rate = now, (done - start) / max(now - began, 1e-9)
                self.say(f"{self.label}: {_progress(done, length, rate)}")


def _progress(done: int, length: int, rate: float) -> str:
    """ "1.2 MB of 8.0 MB (15 %), 0.4 MB/s, 17 s left"; without a size, what is known."""
    if length < 0:
        return f"{size_text(done)}, {size_text(rate)}/s"
    left = (length - done) / max(rate, 1.0)
    clock = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
    return (
        f"{size_text(done)} of {size_text(length)} ({done / max(length, 1):.0%}), "
        f"{size_text(rate)}/s, {clock} left"
    )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, keeps the hub's facts on the way, lets no token leave the first host."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        self.facts |= _hub_facts(headers)
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise UserError("the server redirects to an unencrypted address", where=req.full_url)
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            new.remove_header("Authorization")
        return new


def _hub_facts(headers: Any) -> dict[str, str]:
    found = {
        "linked": headers.get("X-Linked-Etag", "").strip('"'),
        "commit": headers.get("X-Repo-Commit", ""),
    }
    return {key: value for key, value in found.items() if value}


@contextmanager
def _open(address: str, timeout: float, headers: Mapping[str, str]) -> Iterator[tuple[Answer, Any]]:
    """A connection and what the server says of the file. Raises OSError, HTTPException."""
    redirects = _Redirects()
    request = urllib.request.Request(address, headers={
        "User-Agent": f"medexpert/{__version__}", "Accept-Encoding": "identity", **headers,
    })  # fmt: skip
    if address.startswith(f"{_hub()}/") and (token := os.environ.get("HF_TOKEN")):
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.build_opener(redirects).open(request, timeout=timeout) as response:
        got = response.headers
        total = got.get("Content-Length", "")
        if response.status == 206:
            total = got.get("Content-Range", "").rpartition("/")[2]
        facts = {**redirects.facts, **_hub_facts(got)}
        etag, modified = got.get("ETag", ""), got.get("Last-Modified", "")
        length = int(total) if total.isdigit() else -1
        yield Answer(etag, modified, length, **facts), response


def _start(response: Any) -> int:
    """The first byte of an answer: 0 for a whole file, -1 for a part that is not described."""
    if response.status != 206:
        return 0
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


@dataclass
class _Tries:
    """Counts connections in a row that brought nothing, and waits longer after each."""

    address: str
    patience: Patience
    say: Say
    done: int = 0

    def failed(self, error: Exception) -> None:
        """Wait before the next try. Raises UserError when there is to be none."""
        self.done += 1
        why = _reason(error)
        if isinstance(error, urllib.error.HTTPError) and error.code not in _PASSING:
            raise UserError(f"the server answers {why}{self._hint(error.code)}", where=self.address)
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise UserError(f"not trusted ({why})", where=self.address)
        nowhere = isinstance(cause, socket.gaierror | ConnectionRefusedError)
        if self.done >= (min(2, self.patience.tries) if nowhere else self.patience.tries):
            host = urlsplit(self.address).netloc
            raise UserError(
                f"cannot get it from {host} ({why}); what has come is kept: check the network and "
                "run the same command again, or use a copy with --from PATH",
                where=self.address,
            )
        pause = min(self.patience.pause * 2 ** (self.done - 1), self.patience.longest)
        self.say(f"{why}; try {self.done + 1} of {self.patience.tries} in {pause:.0f} s")
        time.sleep(pause)

    def _hint(self, code: int) -> str:
        if code in (401, 403) and self.address.startswith(f"{_hub()}/"):
            return ": accept the data set's terms on its hub page, then set HF_TOKEN"
        return ""


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}"
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)[:200]
