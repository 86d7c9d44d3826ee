import pytest

from tests.messages import assert_facts, missing_facts, raises_facts


def test_a_fact_is_found_as_whole_words_only():
    message = "r.yaml:12: stages.sft.steps: found 20,\n expected an integer of 1 or more"
    assert missing_facts(message, "r.yaml:12", "stages.sft.steps", 20, "found 20, expected") == []
    assert missing_facts(message, 2, "stage", "teps", 120) == ["2", "stage", "teps", "120"]


def test_a_missing_fact_fails_and_shows_the_message():
    with pytest.raises(AssertionError, match=r"lacks .'clip'.: found gamma"):
        assert_facts("found gamma", "gamma", "clip")


def test_the_error_and_its_facts_are_both_required():
    with raises_facts(ValueError, "beta", 1.5) as caught:
        raise ValueError("beta: 1.5 is larger than 1")
    assert isinstance(caught.value, ValueError)
    with pytest.raises(AssertionError, match="lacks"), raises_facts(ValueError, "gamma"):
        raise ValueError("beta")
    with pytest.raises(KeyError), raises_facts(ValueError, "beta"):
        raise KeyError("beta")
