"""An invented benchmark and what to hide of it; no sentence of it is anyone's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from medexpert.data.quarantine import Quarantine
from medexpert.data.quarantine.index import Builder

Texts = Mapping[str, str]


@dataclass(frozen=True)
class Made:
    """A benchmark item."""

    id: str
    texts: Mapping[str, str]
    ids: Mapping[str, str] = field(default_factory=dict)


VITALS = "His temperature is {a} C ({b} F), pulse is {c}/min, and blood pressure is {d}/{e} mm Hg."
STEM = "Which of the following is the most likely diagnosis in this patient?"
ITEMS = [
    Made(
        "lighthouse",
        {
            "question": "Does nightly lamp polishing delay retinal fatigue among elderly "
            "lighthouse keepers on northern islands?",
            "context": "Forty-one keepers from nine rocks were followed over three winters. Half "
            "polished brass lamps each dusk while the others read almanacs. Contrast thresholds "
            "were charted monthly by a visiting optician who ignored their duties. Salt crust on "
            "the windows was scraped before each session and recorded in grams.",
            "answer": "Polishing postponed the decline by two winters, although keepers who also "
            "fished at dawn gained nothing measurable from it.",
        },
        {"pmid": "99000001"},
    ),
    Made(
        "beekeeper",
        {
            "question": "A beekeeper develops violet streaks along both forearms after moving "
            "hives into a disused chapel. What should be prescribed first?\nCopper "
            "lozenges\nSheepskin mittens\nDiluted vinegar\nNothing at all"
        },
        {"qid": "hive-00017"},
    ),
    Made(
        "zh-kiln",
        {
            "question": "某瓷窑工人连续值夜班三周后出现指尖麻木并伴有金属味觉,首先应当检查的项目是"
            "\n窑内釉料成分\n夜间睡眠时长\n血清锌水平\n步态稳定性",
            "answer": "釉料挥发物经皮吸收后沉积于神经末梢,因此应先分析窑内釉料的成分再做其他检查。",
        },
    ),
    Made("short", {"question": "Is chalk a food?"}),
    *(
        Made(
            f"exam-{n}",
            {
                "question": f"A {20 + n}-year-old {job} comes to the clinic. "
                + VITALS.format(a=36 + n / 10, b=97 + n, c=70 + n, d=110 + n, e=70 + n)
                + f" {sign}. {STEM}\n{job.title()} lung {n}\nHeart of {n} chambers"
            },
        )
        for n, (job, sign) in enumerate(
            [
                ("glazier", "Both knees click whenever barometers fall below their usual mark"),
                ("tanner", "He hears violins only while peeling onions in unlit kitchens"),
                ("printer", "Ink stains migrate from thumbs toward elbows during thunderstorms"),
                ("miller", "Flour makes him sneeze precisely seven times before each meal"),
                ("cooper", "Barrel hoops leave circular rashes that vanish on church holidays"),
                ("weaver", "Colours blur leftward whenever the shuttle changes its direction"),
                ("tinker", "Soldering fumes cause a craving for pickled walnuts by evening"),
                ("ostler", "Horses refuse to stand near him once his hiccups have begun"),
                ("drover", "Long roads shorten his left stride by roughly one hand's breadth"),
            ]
        )
    ),
]


def index_items(items: Sequence[Made], name: str = "invented") -> Quarantine:
    """A quarantine of one benchmark."""
    builder = Builder()
    builder.add(name, list(items))
    return Quarantine(builder.index())


@pytest.fixture(scope="session")
def invented() -> Quarantine:
    """The invented benchmark, indexed."""
    return index_items(ITEMS)


@pytest.fixture(scope="session")
def text_of() -> Callable[..., str]:
    """text_of(item, role) of the invented benchmark."""
    return lambda item, role="question": {one.id: one for one in ITEMS}[item].texts[role]


@pytest.fixture(scope="session")
def indexed() -> Callable[..., Quarantine]:
    """indexed(items, name): a quarantine of other items."""
    return index_items


@pytest.fixture(scope="session")
def made() -> Callable[..., Made]:
    """made(id, texts): an item of one's own."""
    return Made
