"""Names of tasks and strategies as folder names: safe on every file system, and readable back.

`voc:k=3:verdict=generated` is the folder `voc+k=3+verdict=generated`.
"""

from __future__ import annotations

import re

from medexpert.records import UserError

LONGEST = 200
"""Bytes of a folder name: file systems allow 255, and files beside it may have longer names."""
_PLAIN = re.compile(r"[A-Za-z0-9_=,.-]")


def folder_of(name: str) -> str:
    """The folder of a name: ':' becomes '+', any other unusual character %XX a byte.

    Names of letters, digits and - stay as they are. Raises UserError for an empty or too long name.
    """
    if not name:
        raise UserError("an empty name has no folder")
    folder = "".join(map(_written, name))
    if folder[0] == ".":  # hidden, or "." and ".."
        folder = "%2E" + folder[1:]
    if len(folder) > LONGEST:
        raise UserError(
            f"{name[:60]!r}... is too long for a folder name", allowed=f"{LONGEST} bytes"
        )
    return folder


def name_of(folder: str) -> str:
    """The name that :func:`folder_of` made this folder from."""
    raw = re.sub(rb"%([0-9A-F]{2})|\+", _read, folder.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")


def _written(mark: str) -> str:
    if mark == ":":
        return "+"
    if _PLAIN.fullmatch(mark):
        return mark
    return "".join(f"%{byte:02X}" for byte in mark.encode("utf-8", "surrogateescape"))


def _read(found: re.Match[bytes]) -> bytes:
    return b":" if found.group() == b"+" else bytes([int(found.group(1), 16)])
