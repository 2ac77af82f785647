"""Courtesies go, medical content stays."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.data.construct.dialogue import tidy, tidy_text

COURTESIES = [
    "Hi, welcome to Healthcare Magic.",
    "Thanks for your query.",
    "Thank you for contacting us.",
    "I have gone through your question and understand your concern.",
    "Hope I have answered your question.",
    "Let me know if you have any further questions.",
    "Kind regards, Dr. Anna Lee.",
    "Wish you good health.",
    "For more information consult a neurologist online --> <link>",
    "感谢您的咨询。",
    "祝您健康！",
    "祝宝宝早日康复！",
    "希望我的回答对您有帮助。",
    "如果您还有其他问题，随时都可以向我咨询。",
    "请关注我们的公众号。",
    "咨询电话：010-12345678。",
    "谢谢医生的耐心解答！",
]
CONTENT = [
    "Take one tablet twice a day.",
    "Let me know if you have any fever.",
    "Thank you for the news about your diabetes.",
    "Hope is not a treatment for sepsis.",
    "Take care of the wound and keep it dry.",
    "I am diabetic and I will travel.",
    "If you have any bleeding, call 911 at once.",
    "Regards the dose, 5 mg is enough.",
    "Good luck charms do not lower blood pressure.",
    "建议您多喝水，注意休息。",
    "希望您能按时服药。",
    "祝您手术顺利，注意伤口。",
    "如果有发热，请及时就医。",
    "如有问题，请拨打120。",
    "感谢信任，请按时复查血糖。",
    "关注血压变化。",
]


@pytest.mark.parametrize("text", COURTESIES)
def test_a_courtesy_goes(text: str) -> None:
    content, counts = tidy_text(text)
    assert content == ""
    assert counts


@pytest.mark.parametrize("text", CONTENT)
def test_content_stays_as_it_is(text: str) -> None:
    assert tidy_text(text) == (text, {})


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Hi doctor, my knee hurts.", "my knee hurts."),
        ("Dear Dr. Smith, my son coughs. Thanks.", "my son coughs."),
        ("您好，请注意休息。祝您健康！", "请注意休息。"),
        ("病情分析：你好，这是胃炎。", "病情分析：这是胃炎。"),
        ("不客气，记得复查。", "记得复查。"),
        ("Rest now. Thanks. Dr. Anna Lee, MD.", "Rest now."),
        ("Drink. Thanks. doctor stop the drug.", "Drink. doctor stop the drug."),
        ("One.\n\nHope this helps.\n\nTwo.", "One.\n\nTwo."),
    ],
)
def test_only_the_courtesy_of_a_turn_goes(text: str, left: str) -> None:
    assert tidy_text(text)[0] == left


def test_acknowledgements_go_only_with_a_courtesy() -> None:
    assert tidy_text("好的。") == ("好的。", {})
    assert tidy_text("好的。谢谢医生。") == ("", {"thanks": 1, "acknowledgement": 1})
    assert tidy_text("Okay. Thanks. It still hurts.")[0] == "Okay. It still hurts."


def test_a_name_that_answers_a_question_stays() -> None:
    assert tidy_text("Doctor Helm.") == ("Doctor Helm.", {})


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_content_between_courtesies_is_never_cut(picks: list[tuple[bool, int]]) -> None:
    english = COURTESIES[:9], CONTENT[:9]
    chosen = [(polite, english[0 if polite else 1][n]) for polite, n in picks]
    content, _ = tidy_text(" ".join(text for _, text in chosen))
    assert content == " ".join(text for polite, text in chosen if not polite)


@given(st.text(alphabet="abcdefg ijklm 胃炎头痛。，.!?\n0123456789", max_size=200))
@settings(max_examples=300, deadline=None)
def test_a_text_without_a_listed_phrase_is_unchanged(text: str) -> None:
    assert tidy_text(text) == (text, {})


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["user", "assistant"]),
            st.lists(st.sampled_from(COURTESIES + CONTENT), min_size=1, max_size=3),
        ),
        max_size=8,
    )
)
@settings(max_examples=200, deadline=None)
def test_no_turn_is_empty_and_nothing_is_made_up(turns: list[tuple[str, list[str]]]) -> None:
    messages = [{"role": role, "content": " ".join(parts)} for role, parts in turns]
    out, counts = tidy(messages)
    assert all(m["content"].strip() for m in out)
    before = iter("".join(m["content"] for m in messages))
    after = "".join("".join(m["content"].split()) for m in out)
    assert all(letter in before for letter in after), "what is left is in the text, in its order"
    gone = counts["turn:courtesy_only"] + counts["turn:joined"]
    assert len(out) == len(messages) - gone


def test_turns_of_courtesies_go_and_neighbours_join() -> None:
    messages = [
        {"role": "user", "content": "Hi doctor, I cough."},
        {"role": "assistant", "content": "Rest for a day."},
        {"role": "user", "content": "Thank you very much!"},
        {"role": "assistant", "content": "Drink water too. Take care."},
        {"role": "user", "content": "好的，谢谢医生。"},
        {"role": "assistant", "content": "不客气！祝您健康！"},
    ]
    out, counts = tidy(messages)
    assert out == [
        {"role": "user", "content": "I cough."},
        {"role": "assistant", "content": "Rest for a day.\nDrink water too."},
    ]
    assert counts["turn:courtesy_only"] == 3
    assert counts["turn:joined"] == 1


def test_the_user_still_opens() -> None:
    messages = [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Where does it hurt?"},
        {"role": "user", "content": "My knee."},
    ]
    assert tidy(messages)[0] == messages


def test_a_conversation_of_courtesies_only_is_empty() -> None:
    messages = [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello!"}]
    out, counts = tidy(messages)
    assert out == []
    assert counts["turn:courtesy_only"] == 2


@pytest.mark.parametrize(
    "piece", ["祝早日", "希望我的", "thank you for your help ", "Hi, ", "如果有"]
)
def test_long_repetitions_take_no_time(piece: str) -> None:
    start = time.monotonic()
    tidy_text(piece * 3000 + "x")
    tidy_text((piece + "One. ") * 3000)
    assert time.monotonic() - start < 5
