"""The lines of an ablation's table: what was measured, and what must not be shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medexpert.evaluate.ablation import Trial, lines


@pytest.fixture
def trial(tmp_path: Path, evaluate: Callable[..., Any], fakes: Any) -> Callable[..., Trial]:
    """A variant whose folder holds a finished evaluation, of these settings or of earlier ones."""

    def make(name: str, failed: str = "") -> Trial:
        made = Trial(name, 0, tmp_path / name, "base", ("direct",), failed)
        evaluate(made.folder("direct"), engine=fakes.engine(name))
        return made

    return make


def test_a_variant_is_compared_with_the_reference(trial: Callable[..., Trial]) -> None:
    one, other = lines([trial("a"), trial("b")])
    assert one.accuracy is not None
    assert one.difference is None
    assert other.difference is not None
    assert other.holm == other.difference.p


def test_what_lies_in_the_folder_of_a_failed_variant_is_not_its_result(
    trial: Callable[..., Trial],
) -> None:
    _, other = lines([trial("a"), trial("b", "the disk is full")])
    assert (other.accuracy, other.missing) == (None, "b seed 0 failed: the disk is full")
    one, other = lines([trial("a", "the disk is full"), trial("b")])
    assert one.accuracy is None
    assert other.accuracy is not None
    assert (other.difference, other.untested) == (None, "a seed 0 failed: the disk is full")
