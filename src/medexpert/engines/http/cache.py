"""Answers of an endpoint on disk, so that nothing is paid twice.

One file an answer, named by the SHA-256 of (address, model, path, request) and written atomically.
It holds the request too, so that a person can see what was asked, and a checksum of the answer. No
header is kept, so no key can be in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

from medexpert.manifest import disk_errors
from medexpert.records import canonical_json


class ResponseCache:
    """`hits`, `misses` and `corrupted` count what `get` found; a corrupted entry is a miss too."""

    def __init__(self, folder: Path, *, address: str, model: str) -> None:
        self.folder = folder
        self._base = {"address": address, "model": model}
        self.hits = self.misses = self.corrupted = 0

    def _key(self, path: str, body: dict[str, Any]) -> str:
        return _sha256({**self._base, "path": path, "request": body})

    def file(self, path: str, body: dict[str, Any]) -> Path:
        """Where the answer to this request lies."""
        key = self._key(path, body)
        return self.folder / key[:2] / f"{key}.json"

    def get(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The stored answer, or None."""
        file = self.file(path, body)
        try:
            entry = json.loads(file.read_bytes())
            answer = entry["answer"]
            sound = entry["key"] == self._key(path, body) and entry["sha256"] == _sha256(answer)
        except FileNotFoundError:
            self.misses += 1
            return None
        except (ValueError, KeyError, TypeError):
            sound, answer = False, None
        if not sound or not isinstance(answer, dict):
            self.corrupted += 1
            self.misses += 1
            return None
        self.hits += 1
        return answer

    def put(self, path: str, body: dict[str, Any], answer: dict[str, Any]) -> None:
        """Store an answer. Raises UserError when the disk is full or may not be written."""
        file = self.file(path, body)
        entry = {
            **self._base, "key": self._key(path, body), "path": path, "request": body,
            "sha256": _sha256(answer), "answer": answer,
        }  # fmt: skip
        # Its own name: two runs may store the same answer at the same time.
        partial = file.with_name(f"{file.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")
        with disk_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_bytes(json.dumps(entry).encode("ascii"))
                partial.replace(file)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise


def _sha256(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()
