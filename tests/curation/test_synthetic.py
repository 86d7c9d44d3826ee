import random
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import SyntheticDemonstrations
from gemsmith.curation.example import Example
from gemsmith.curation.synthetic import check_styles, integer, synthesise

PROMPTS = [Example(prompt=f"{a} + {b} =", answer=str(a + b)) for a in range(50) for b in range(50)]


def number(text: str | None) -> int:
    return int(re.findall(r"-?\d+", text or "")[-1])


def made(config: SyntheticDemonstrations, seed: int = 0, copies: int = 1) -> Iterator[tuple[Example, int]]:
    """Every made example with its true number."""
    for example in PROMPTS:
        for copy in synthesise(example, config, seed, copies):
            yield copy, int(example.answer or "")


def test_demonstrations_are_right_as_often_as_asked_and_else_off_by_up_to_the_spread():
    distances = [number(e.demonstration) - true for e, true in made(SyntheticDemonstrations(right=0.3, spread=4))]
    assert distances.count(0) / len(distances) == pytest.approx(0.3, abs=0.03)
    wrong = [distance for distance in distances if distance]
    assert set(wrong) == {-4, -3, -2, -1, 1, 2, 3, 4}
    for distance in set(wrong):
        assert wrong.count(distance) / len(wrong) == pytest.approx(1 / 8, abs=0.03)


@pytest.mark.parametrize(("right", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_all_or_none_may_be_right(right: float, share: float):
    answers = [number(e.demonstration) == true for e, true in made(SyntheticDemonstrations(right=right))]
    assert sum(answers) / len(answers) == share


def test_the_chosen_answer_is_always_nearer_and_half_of_the_time_right():
    pairs = [(abs(number(e.chosen) - t), abs(number(e.rejected) - t)) for e, t in made(SyntheticDemonstrations())]
    assert all(chosen < rejected <= 9 for chosen, rejected in pairs)
    assert sum(chosen == 0 for chosen, _ in pairs) / len(pairs) == pytest.approx(0.5, abs=0.03)


def test_with_spread_one_every_pair_has_a_right_answer():
    pairs = {(number(e.chosen) - t, abs(number(e.rejected) - t)) for e, t in made(SyntheticDemonstrations(spread=1))}
    assert pairs == {(0, 1)}


def test_the_style_tells_nothing_about_being_right():
    config = SyntheticDemonstrations(styles=["{answer}", "= {answer}", "The answer is {answer}."])
    styled: dict[str, list[bool]] = {}
    for example, true in made(config):
        style = re.sub(r"-?\d+", "N", example.demonstration or "")
        styled.setdefault(style, []).append(number(example.demonstration) == true)
    assert set(styled) == {"N", "= N", "The answer is N."}
    for right in styled.values():
        assert len(right) / len(PROMPTS) == pytest.approx(1 / 3, abs=0.04)
        assert sum(right) / len(right) == pytest.approx(0.5, abs=0.06)


def test_a_draw_depends_on_seed_prompt_and_copy_and_on_nothing_else():
    config = SyntheticDemonstrations(copies=3)
    first = {e.prompt: list(synthesise(e, config, 0, 3)) for e in PROMPTS}
    shuffled = random.Random(1).sample(PROMPTS, len(PROMPTS))
    assert {e.prompt: list(synthesise(e, config, 0, 3)) for e in shuffled} == first
    assert {e.prompt: list(synthesise(e, config, 1, 3)) for e in PROMPTS} != first
    assert all(list(synthesise(e, config, 0, 2)) == first[e.prompt][:2] for e in PROMPTS)
    assert sum(len({copy.demonstration for copy in copies}) > 1 for copies in first.values()) > len(PROMPTS) / 2


def test_nothing_but_completions_is_made():
    example = replace(PROMPTS[7], system="s", task="t", columns={"level": 1})
    (copy,) = synthesise(example, SyntheticDemonstrations(), 0, 1)
    assert replace(copy, demonstration=None, chosen=None, rejected=None) == example


@pytest.mark.parametrize(
    ("answer", "value"), [("72", 72), (" -1,080 ", -1080), ("7.5", None), ("#### 72", None), ("", None), (None, None)]
)
def test_an_integer_is_read_or_refused(answer: str | None, value: int | None):
    assert integer(answer) == value


@pytest.mark.parametrize(("style", "words"), [("{anwser}", "anwser"), ("{answer", "cannot be filled"), ("72", "show")])
def test_a_style_that_cannot_show_the_answer_is_refused(style: str, words: str):
    with pytest.raises(UserError, match=f"data sums: style .*{words}"):
        check_styles(SyntheticDemonstrations(styles=[style]), "sums")
