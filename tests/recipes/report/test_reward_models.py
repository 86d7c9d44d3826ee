"""The report on reward models: parts of the pairs, members' starts, and the line between the two best members."""

import json
from typing import Any

import pytest

from gemsmith.recipes.report import write_report
from gemsmith.recipes.report.reward_models import observation_1_sentence


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.02, "high": mean + 0.02}


def warm(run: Any, **more: Any) -> str:
    """The page, with these fields in warm.json; a reading of its text alone."""
    path = run.stage("warm") / "output" / "warm.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    return write_report(run.path).read_text()


def member(number: int, accuracy: float, **more: Any) -> dict[str, Any]:
    settings = {"learning_rate": 1e-4, "dropout": 0.05, "seed": 0, "kept": True}
    return {"member": number, **settings, "accuracy": interval(accuracy), **more}


def point(rate: float, mean: float, line: float) -> dict[str, Any]:
    return {"rate": rate, "accuracy": interval(mean), "line": line}


def test_accuracy_on_parts_of_the_pairs_stands_beside_that_of_each_model(whole_run):
    def parts(accuracy: float) -> dict[str, Any]:
        subset = {"accuracy": interval(accuracy), "pairs": 1234}
        return {"by_task": {"<sums>": subset}, "chosen_longer": {**subset, "pairs": 77}, "chosen_shorter": None}

    members = [member(0, 0.7, **parts(0.6)), member(1, 0.7)]
    page = warm(whole_run, members=members, average={"accuracy": interval(0.8), **parts(0.85)}, ensemble=None)
    assert "<td>task &lt;sums&gt;</td><td>1,234</td><td>85.0%<small>83.0% to 87.0%</small></td><td>60.0%" in page
    assert "<td>chosen is longer</td><td>77</td>" in page and "chosen is shorter" not in page
    assert "<td>n/a</td></tr>" in page[page.index("task &lt;sums&gt;") :]  # of the member without parts


def test_a_warm_stage_that_knows_no_parts_shows_no_table_of_them(whole_run):
    page = write_report(whole_run.path).read_text()
    assert "Accuracy on parts of the pairs" not in page and "start in the SFT run" not in page


def test_members_that_start_from_steps_of_one_run_say_which(whole_run):
    page = warm(whole_run, members=[member(0, 0.7, start=200), member(1, 0.7, start=None)])
    assert "<th>start in the SFT run</th>" in page
    assert "<td>member 1</td><td>step 200</td>" in page and "<td>member 2</td><td>last step</td>" in page
    assert "<td><b>average of weights</b></td><td></td><td></td><td></td><td>88.4%</td>" in page


def test_the_line_between_two_members_is_drawn_from_the_better_to_the_other(whole_run):
    points = [point(rate, 0.75, 0.7) for rate in (0.25, 0.5, 0.75)]
    found = {"members": [1, 0], "points": points}
    page = warm(whole_run, members=[member(0, 0.69), member(1, 0.71)], connectivity=found)
    figure = page[page.index("Accuracy between member 2 and member 1") :]
    figure = figure[: figure.index("</figure>")]
    assert figure.count("<circle") == 5 and figure.count('class="chord"') == 1
    assert "<title>71.0% 69.0% to 73.0%</title>" in figure
    assert "holds within the intervals: of 3, none is entirely below the line, and 3 entirely above it." in page


@pytest.mark.parametrize(
    ("means", "words"),
    [
        (
            (0.69, 0.70, 0.71),
            "holds within the intervals: of 3, none is entirely below the line, and none is entirely above it.",
        ),
        ((0.69, 0.73, 0.71), "of 3, none is entirely below the line, and 1 entirely above it."),  # 0.73 - 0.02 > 0.7
        ((0.67, 0.73, 0.67), "does not hold: at 0.25, 0.75 the whole interval is below the line."),  # 0.67 + 0.02 < 0.7
    ],
)
def test_observation_1_is_told_as_far_as_the_intervals_go(means: tuple[float, ...], words: str):
    points = [point(rate, mean, 0.7) for rate, mean in zip((0.25, 0.5, 0.75), means, strict=True)]
    assert observation_1_sentence(points).endswith(words)
