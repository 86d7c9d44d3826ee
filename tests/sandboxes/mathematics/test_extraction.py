import pytest

from gemsmith.sandboxes.mathematics.extraction import find_answer, stated_answer


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
        ("12 + 60 = 72", "12 + 60 = 72", "last line"),
        ("I add them.\n= 72", "72", "last line"),
        ("I add them.\ntotal = 72", "total = 72", "last line"),
        ("<think>The answer is 5.</think>6", "6", "whole"),
        (r"\boxed{5} or \boxed{6}", "5, 6", "boxed"),
        (r"$\boxed{5}$, $\boxed{6}$ and $\boxed{7}$", "5, 6, 7", "boxed"),
        (r"\boxed{5}, no: \boxed{6}", "6", "boxed"),
        (r"\boxed{5}, \boxed{5}", "5", "boxed"),
        ("The answer is $5$ or $6$.", "$5$ or $6$", "marked"),
        ("So $x = 4$ or $x = 5$", "x = 4, x = 5", "dollars"),
        ("The answer is 18 because 9 * 2 is 18.", "18", "marked"),
        ("The answer is 12, not 13.", "12", "marked"),
        ("The answer is:\n\\[ 18 \\]", "18", "marked"),
        ("## Final Answer\n\n18", "18", "marked"),
        ("#### Step 1: add\n12 + 6\n#### 18", "18", "marked"),
        ("The correct answer to the question is therefore **18** apples.", "18 apples", "marked"),
        ("Die Antwort lautet 18.", "18", "marked"),
        ("La respuesta final es 18.", "18", "marked"),
        ("Réponse : 18", "18", "marked"),
        ("答えは１８ドルです。", "18ドルです", "marked"),
        ("Ответ — 18.", "18", "marked"),
        ("Ответ: -18", "-18", "marked"),
        ("Jibu ni 18.", "18", "marked"),
        ("ধাপে ধাপে উত্তর: 5 + 13 = 18। উত্তর হল ১৮।", "১৮", "marked"),
        ("సమాధానం 18.", "18", "marked"),
        ("คำตอบคือ 18", "18", "marked"),
        ("答案是 18。", "18", "marked"),
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
        "<think>72</think>",
        "<think>The answer is 72.</think><think>72",
        "Let x = 72",
        "#### Step 72: add",
    ],
)
def test_a_completion_that_commits_itself_to_nothing_has_no_answer(completion: str):
    assert find_answer(completion) is None


@pytest.mark.parametrize(
    ("truth", "answer"),
    [
        ("72", "72"),
        ("####７２", "72"),
        ("48/2 = <<48/2=24>>24\n#### 1,080", "1,080"),
        (r"so \boxed{3}", "3"),
        ("$x^2$", "x^2"),
    ],
)
def test_a_ground_truth_states_its_answer(truth: str, answer: str):
    assert stated_answer(truth) == answer


def test_two_boxes_far_apart_take_no_longer_than_two_boxes():
    found = find_answer("\\boxed{1}" + " " * 90_000 + "\\boxed{2}")
    assert found is not None
    assert found.text == "2"
