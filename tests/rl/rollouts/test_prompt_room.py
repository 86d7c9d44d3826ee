from gemsmith.contracts.errors import UserError
from gemsmith.rl.rollouts.prompt_room import with_room
from tests.messages import raises_facts


def kept(prompts: list[str], said: list[str]) -> list[str]:
    return with_room(prompts, len, data="sums", max_length=8, max_tokens=5, say=said.append, whose="held-out prompt")


def test_prompts_up_to_the_room_that_a_completion_leaves_are_kept_and_the_others_are_counted():
    said: list[str] = []
    assert kept(["a", "abc", "abcd", "abcde"], said) == ["a", "abc"]  # 8 - 5 = 3 tokens
    assert said == ["data.sums: dropped 2 held-out prompts longer than 3 tokens"]


def test_nothing_is_said_where_all_prompts_fit():
    said: list[str] = []
    assert kept(["a", "abc"], said) == ["a", "abc"] and said == []


def test_prompts_that_are_all_too_long_are_an_error_that_names_the_two_settings():
    with raises_facts(UserError, "data.sums", "held-out prompt", "max_length - sampling.max_tokens = 8 - 5 = 3 tokens"):
        kept(["abcd"], [])
