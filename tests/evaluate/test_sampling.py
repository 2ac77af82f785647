from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from medexpert.evaluate.sampling import of_limit, sample


@dataclass(frozen=True)
class Item:
    id: str


ITEMS = st.lists(st.text(max_size=8), unique=True, max_size=40).map(lambda ids: [*map(Item, ids)])


@given(ITEMS, st.integers(0, 50), st.integers(0, 50), st.randoms())
def test_a_limit_is_a_part_of_a_larger_one_whatever_the_order(
    items: list[Item], one: int, other: int, random: object
) -> None:
    small, large = sorted(((one or len(items)), (other or len(items))))
    found, more = sample(items, small), sample(items, large)
    assert len(found) == min(small, len(items))
    assert set(found) <= set(more)
    assert found == [item for item in items if item in set(found)]
    mixed = list(items)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert set(sample(mixed, small)) == set(found)


def test_a_sorted_file_is_not_taken_from_its_start() -> None:
    labels = {Item(f"{number:05d}"): "yes" if number < 552 else "no" for number in range(1000)}
    share = sum(labels[item] == "yes" for item in sample(list(labels), 100)) / 100
    assert 0.4 < share < 0.7


def test_no_limit_keeps_a_key_and_a_limit_names_its_rule() -> None:
    assert of_limit(0) == 0  # what the keys of work without a limit have always held
    assert of_limit(7) == "7 by smallest SHA-256 of the id"
