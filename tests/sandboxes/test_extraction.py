import pytest

from sandboxes.extraction import find_answer, stated_answer


@pytest.mark.parametrize(
    ("completion", "answer", "rule"),
    [
        (r"First \boxed{1}, then \boxed{\frac{1}{2}}. The answer is 3. #### 4", r"\frac{1}{2}", "boxed"),
        (r"\boxed{7} and a box that was cut off: \boxed{\frac{1}{", "7", "boxed"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}", "boxed"),
        (r"\boxed{\boxed{3}}", "3", "boxed"),
        ("The answer is 18 dollars per day. Then I checked it.", "18 dollars per day", "marked"),
        ("The final answer is: **72**.", "72", "marked"),
        ("The answer is $x = 5$ because $5 = 5$.", "x = 5", "marked"),
        ("The answer is 3.5.", "3.5", "marked"),
        ("The answer is 3. The answer is 4.", "4", "marked"),
        ("The answer is five.\n#### 5", "5", "marked"),
        ("#### 5\nSo the answer is 6.", "6", "marked"),
        ("24*2=<<24*2=48>>48\n#### 48", "48", "marked"),
        ("He earns $12 for 3 hours and $15 later, so $x = 27$ holds.", "x = 27", "dollars"),
        ("72", "72", "whole"),
        ("-3/4.", "-3/4", "whole"),
        ("yes", "yes", "whole"),
        ("12 + 60 = 72", "72", "last line"),
        ("I add them.\n= 72", "72", "last line"),
        ("I add them.\ntotal = 72", "72", "last line"),
        ("<think>The answer is 5.</think>6", "6", "whole"),
    ],
)
def test_the_answer_is_found_by_the_first_rule_that_applies(completion: str, answer: str, rule: str):
    candidate = find_answer(completion)
    assert candidate is not None
    assert (candidate.text, candidate.rule) == (answer, rule)


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "I do not know, perhaps 72",
        "It is 72 or 73, who can say",
        "<think>The answer is 72.",
        r"\boxed{72",
        "My 2 guesses are 71 = 72",
    ],
)
def test_a_completion_that_commits_itself_to_nothing_has_no_answer(completion: str):
    assert find_answer(completion) is None


@pytest.mark.parametrize(
    ("truth", "answer"),
    [("72", "72"), ("48/2 = <<48/2=24>>24\n#### 1,080", "1,080"), (r"so \boxed{3}", "3"), ("$x^2$", "x^2")],
)
def test_a_ground_truth_states_its_answer(truth: str, answer: str):
    assert stated_answer(truth) == answer
