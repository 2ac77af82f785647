"""Answers on disk: nothing is paid twice, and a damaged one is asked again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from endpoint import Endpoint, raw
from medexpert.engines.base import PromptError
from medexpert.engines.http import HttpEngine
from medexpert.records import UserError

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
Opened = Callable[..., HttpEngine]


def test_a_second_run_pays_nothing(endpoint: Endpoint, opened: Opened, tmp_path: Path) -> None:
    first = opened(cache=str(tmp_path), price_in=1.0, price_out=1.0)
    prompts = ["one", "two", "one"]
    made = first.complete(prompts, max_tokens=4)
    rows = first.choice_logprobs(["Q: x\nA:"], [" yes", " no"])
    assert first.usage().cost > 0
    again = opened(cache=str(tmp_path), price_in=1.0, price_out=1.0)
    assert again.complete(prompts, max_tokens=4) == made
    assert again.choice_logprobs(["Q: x\nA:"], [" yes", " no"]) == rows
    assert endpoint.posts() == []
    used = again.usage()
    assert (used.cost, used.prefilled_tokens) == (0.0, 0)
    assert used.prompt_tokens == first.usage().prompt_tokens
    assert used.generated_tokens == first.usage().generated_tokens
    assert again.facts()["cache"] == {"hits": 5, "misses": 0, "bad": 0}


def test_what_makes_another_request(endpoint: Endpoint, opened: Opened, tmp_path: Path) -> None:
    engine = opened(cache=str(tmp_path))
    engine.complete(["x"], max_tokens=4)
    engine.complete(["x"], max_tokens=4, seed=9)  # greedy: the seed changes nothing
    assert len(endpoint.posts()) == 1
    engine.complete(["x"], max_tokens=5)
    engine.complete(["x"], max_tokens=4, stop=["\n"])
    engine.complete(["x"], max_tokens=4, temperature=1.0, seed=1)
    engine.complete(["x"], max_tokens=4, temperature=1.0, seed=2)
    engine.complete(["x", "x"], max_tokens=4, temperature=1.0, seed=1)  # its second x is new
    assert len(endpoint.posts()) == 6
    endpoint.models = ("tiny", "other")
    opened(model="other", cache=str(tmp_path)).complete(["x"], max_tokens=4)
    assert len(endpoint.posts()) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"key": 1}', "digit"])
def test_a_corrupted_entry_is_a_miss_and_counted(
    endpoint: Endpoint, opened: Opened, tmp_path: Path, damage: bytes | str
) -> None:
    engine = opened(cache=str(tmp_path))
    (made,) = engine.complete(["x"], max_tokens=4)
    (file,) = tmp_path.rglob("*.json")
    if isinstance(damage, str):
        damage = file.read_bytes().replace(b"said of", b"laid of")
    file.write_bytes(damage)
    assert engine.complete(["x"], max_tokens=4) == [made]
    assert engine.facts()["cache"] == {"hits": 0, "misses": 2, "bad": 1}
    assert engine.complete(["x"], max_tokens=4) == [made]  # and it was written anew
    assert engine.facts()["cache"]["hits"] == 1


def test_bad_answers_are_not_kept(endpoint: Endpoint, opened: Opened, tmp_path: Path) -> None:
    engine = opened(cache=str(tmp_path))
    endpoint.faults = [raw(b'{"choices": []}')]
    with pytest.raises(PromptError):
        engine.complete(["x"], max_tokens=4)
    assert list(tmp_path.rglob("*.json")) == []
    assert engine.complete(["x"], max_tokens=4)[0].text == " said of it"
    assert not list(tmp_path.rglob("*.partial"))


def test_what_was_answered_before_a_failure_is_kept(
    endpoint: Endpoint, opened: Opened, tmp_path: Path
) -> None:
    engine = opened(cache=str(tmp_path), concurrency=1)
    with pytest.raises(PromptError):
        engine.complete(["a", "b", "word " * 300, "c"], max_tokens=4)
    endpoint.asked.clear()
    engine.complete(["a", "b"], max_tokens=4)
    # A request that was cancelled on its way ("c") may reach the endpoint's record late.
    assert [post["prompt"] for post in endpoint.posts() if post["prompt"] != "c"] == []


def test_a_cache_that_cannot_be_written(endpoint: Endpoint, opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((UserError, OSError), match=r"file"):
        opened(cache=str(tmp_path / "file")).complete(["x"], max_tokens=4)
