"""The report's watch for reward hacking, on a stage whose control falls in one of two runs."""

from typing import Any

from gemsmith.recipes.report import write_report


def rows(*falling: int, learnt: str = "reward", control: str = "control/right") -> list[dict[str, Any]]:
    """Two runs of two iterations of 40 steps; the control rises, but falls in these runs of the second iteration."""
    return [
        {"step": step, "iteration": iteration, "run": run, "reward": 0.5, "kl_to_initial": step / 10}
        | {learnt: step / 40, control: (50 - step if run in falling and iteration else step) / 50}
        for iteration in range(2)
        for run in range(2)
        for step in range(1, 41)
    ]


def html(run: Any, metrics: list[dict[str, Any]]) -> str:
    run.write(run.stage("aligned") / "metrics.jsonl", metrics)
    return write_report(run.path).read_text()


def test_a_control_that_parts_is_told_with_its_run_and_marked(whole_run):
    page = html(whole_run, rows(1))
    sentence = "Control right diverges from the reward at KL 0.25 (step 3): it fell from 0.95 to 0.23 while the reward "
    # Of the first and the last four steps: 1 - 2.5 / 50, 1 - 38.5 / 50, 2.5 / 40, 38.5 / 40.
    assert sentence + "rose from 0.0625 to 0.963 (iteration 2, run 2; the same in 1 of 4 trainings)." in page
    assert page.count('class="parting c1"') == 2  # in the panel of the reward and of the control
    assert page.count(">step 3<") == 1
    assert "Reward and controls against KL, iteration 1" in page
    assert "KL to the iteration&#x27;s start, nats" in page


def test_the_figure_stands_without_a_word_where_nothing_parts(whole_run):
    page = html(whole_run, rows())
    assert "Reward and controls against KL, iteration 2" in page
    assert 'class="parts"' not in page and 'class="parting' not in page
    drawn = page[page.index("<figcaption>Reward and controls") :]
    assert drawn[: drawn.index("</figure>")].count('<path class="line') == 4  # two runs, two panels


def test_a_stage_without_controls_or_whose_control_is_never_known_has_no_figure(whole_run):
    assert "against KL, iteration" not in html(whole_run, rows(1, control="reward/right"))
    without = [row | {"control/right": None} for row in rows(1)]
    assert "against KL, iteration" not in html(whole_run, without)


def test_what_is_learnt_is_judged_and_the_sum_as_it_came_where_a_reward_is_normalised(whole_run):
    shaped = rows(1, learnt="reward_learnt")
    config = {"id": "aligned", "kind": "warp", "inner": {"rewards": ["near"]}}
    stage = {"id": "aligned", "kind": "warp", "status": "finished", "seconds": 1.0, "inputs": [], "config": config}
    whole_run.write(whole_run.stage("aligned") / "stage.json", stage)
    recipe = whole_run.path / "recipe.yaml"
    recipe.write_text("name: trial\nrewards: {near: {kind: math, normalise: none, clip: [0, 1]}}\n")
    assert 'class="parts"' in html(whole_run, shaped)
    recipe.write_text("name: trial\nrewards: {near: {kind: math, normalise: batch}}\n")
    assert 'class="parts"' not in html(whole_run, shaped)  # `reward` stays at 0.5
