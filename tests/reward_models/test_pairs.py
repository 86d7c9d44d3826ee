from itertools import permutations

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.curation.example import Example
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.text.chat import completion_ids, prompt_ids
from gemsmith.reward_models.pairs import PairSplit, both_sides, split_pairs
from tests.messages import raises_facts

TOKENIZER = tiny_policy().tokenizer


def example(prompt: str, chosen: str | None, rejected: str | None) -> Example:
    return Example(prompt=prompt, system=None, answer=None, demonstration=None, chosen=chosen, rejected=rejected,
                   task=None, columns={})  # fmt: skip


def split(examples: list[Example], share: float = 0.2, limit: int = 100, seed: int = 0) -> PairSplit:
    return split_pairs(
        examples, TOKENIZER, name="pairs", max_length=40, share=share, limit=limit, seed=seed
    )  # fmt: skip


def test_pairs_are_conversations_with_their_end_of_turn():
    found = split([example("1 + 1 =", "2", "3"), example("1 + 2 =", "3", "4")])
    (pair,) = (pair for pair in found.train + found.held_out if pair.prompt == "1 + 1 =")
    prompt = prompt_ids(TOKENIZER, [{"role": "user", "content": "1 + 1 ="}])
    assert list(pair.chosen_ids) == prompt + completion_ids(TOKENIZER, "2")
    assert list(pair.rejected_ids) == prompt + completion_ids(TOKENIZER, "3")
    assert (pair.prompt_tokens, pair.lengths) == (len(prompt), (len(pair.chosen_ids) - len(prompt),) * 2)
    assert both_sides([pair]) == [pair.chosen_ids, pair.rejected_ids]


def test_held_out_prompts_are_whole_seeded_and_independent_of_order():
    examples = [example(f"{number}", f"{copy} yes", "no") for number in range(50) for copy in range(3)]
    found = split(examples)
    assert len({pair.prompt for pair in found.held_out}) == 10 and len(found.held_out) == 30 and len(found.train) == 120
    assert not {pair.prompt for pair in found.train} & {pair.prompt for pair in found.held_out}
    assert {pair.prompt for pair in split(examples[::-1]).held_out} == {pair.prompt for pair in found.held_out}
    assert {pair.prompt for pair in split(examples, seed=1).held_out} != {pair.prompt for pair in found.held_out}
    assert len({pair.prompt for pair in split(examples, limit=4).held_out}) == 4


def test_prompts_that_differ_in_white_space_stay_together():
    for first, second, third in permutations(["1 +  1", "1 + 1 ", "2 + 2"]):
        found = split([example(prompt, "yes", "no") for prompt in (first, second, third)], share=0.5)
        assert not {pair.prompt for pair in found.train} & {pair.prompt for pair in found.held_out}


def test_what_cannot_teach_is_dropped_and_counted():
    examples = [example(f"{number}", "yes", "no") for number in range(5)]
    examples += [example("a", "w" * 50, "no"), example("b", "same", "same"), example("c", "x", None)]
    examples += [example("d", " ", "no"), example("e", "yes", ""), example("f", "", "")]
    found = split(examples)
    assert found.dropped == {"empty side": 3, "too long": 1, "chosen equals rejected": 1}
    assert len(found.train) + len(found.held_out) == 5


def test_data_without_usable_pairs_is_the_users_fault():
    with raises_facts(UserError, "data.pairs", "no preference pairs", "`chosen`"):
        split([example("a", None, "no")])
    with raises_facts(UserError, "data.pairs", "1 prompts", "1 pairs are longer", "max_length = 40"):
        split([example("a", "yes", "no"), example("b", "w" * 50, "no")])


def with_gap(prompt: str, gap: object) -> Example:
    return Example(prompt=prompt, chosen="yes", rejected="no", columns={"gap": gap}, where=f"line {prompt}")


def split_with(examples: list[Example], margin: str | None) -> PairSplit:
    return split_pairs(
        examples, TOKENIZER, name="pairs", max_length=40, share=0.2, limit=100, seed=0, margin=margin
    )  # fmt: skip


def test_margins_come_from_their_column():
    found = split_with([with_gap("1", 0), with_gap("2", 1.5)], "gap")
    assert {pair.prompt: pair.margin for pair in found.train + found.held_out} == {"1": 0.0, "2": 1.5}
    found = split_with([with_gap("1", 0), with_gap("2", 1.5)], None)
    assert {pair.margin for pair in found.train + found.held_out} == {0.0}


@pytest.mark.parametrize("gap", [-0.5, "3", None, True, float("nan"), float("inf")])
def test_a_margin_that_is_no_number_is_the_users_fault(gap: object):
    with raises_facts(UserError, "data.pairs", "margin 'gap'", "line 2", repr(gap), ">= 0"):
        split_with([with_gap("1", 1), with_gap("2", gap)], "gap")


def test_a_margin_that_the_data_does_not_hand_on_is_the_users_fault():
    with raises_facts(UserError, "data.pairs", "column 'score'", "margin", "found gap", "`columns`"):
        split_with([with_gap("1", 1), with_gap("2", 1)], "score")
