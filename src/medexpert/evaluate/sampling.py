"""Which questions a limit takes. Files are often sorted (PubMedQA's official test by its answers,
others by subject), so the first ones are not a fair part of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, TypeVar

RULE = "smallest SHA-256 of the id"


class Named(Protocol):
    """Anything with an id."""

    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Named)


def sample(items: Sequence[Item], limit: int) -> list[Item]:
    """The `limit` items whose ids have the smallest SHA-256, in their own order; 0 = all.

    The same for every model, strategy and seed, and a smaller limit takes a part of a larger one.
    """
    if not limit or limit >= len(items):
        return list(items)
    order = sorted(range(len(items)), key=lambda at: _digest(items[at].id))
    return [items[at] for at in sorted(order[:limit])]


def of_limit(limit: int) -> str | int:
    """What a key holds of a limit: another rule takes other questions. No limit is 0 as ever, so
    that finished work stays finished."""
    return f"{limit} by {RULE}" if limit else 0


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
