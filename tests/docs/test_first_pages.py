import re

import pytest

from tests.docs.pages import DOCS, run_steps, steps_of

FAQ = (DOCS / "faq.md").read_text(encoding="utf-8")


def test_the_answers_with_examples_are_right():
    steps = steps_of(FAQ)
    for step in steps:  # a reader takes one of them, alone
        assert run_steps([step]) == [step.expected]
    assert all(step.expected for step in steps)


def test_each_of_the_fifteen_questions_is_answered():
    assert len(re.findall(r"^## .+\?$", FAQ, re.MULTILINE)) == 15


@pytest.mark.filterwarnings("ignore")  # Lightning's and transformers' own
def test_each_habit_has_an_example_that_runs_offline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "first_steps.md").read_text(encoding="utf-8")
    steps = steps_of(text)
    for step in steps:  # a reader takes one of them, alone
        assert run_steps([step]) == [step.expected]
    assert len(steps) == len(re.findall(r"^## ", text, re.MULTILINE)) == 5
