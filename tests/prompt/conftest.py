"""Chat templates and questions for the prompt room's tests."""

from __future__ import annotations

import pytest

from medexpert.prompt.template import ChatFormat
from medexpert.records import Question

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] +"
    " '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def smollm2() -> ChatFormat:
    return ChatFormat(SMOLLM2, "<|im_start|>", "<|im_end|>")


@pytest.fixture
def walking() -> Question:
    return Question(
        id="1", question="Does walking help?", choices=("yes", "no", "maybe"), answer="yes",
        contexts=("Half of 90 adults walked.", "Walkers improved."), long_answer="It helps.",
    )  # fmt: skip


@pytest.fixture
def chinese() -> Question:
    return Question(
        id="2", question="步行有用吗？", choices=("yes", "no", "maybe"), answer="yes",
        contexts=("步行者好转。",), lang="zh",
    )  # fmt: skip
