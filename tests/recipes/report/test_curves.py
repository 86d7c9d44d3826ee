"""The choice of training metrics that the report draws."""

from gemsmith.recipes.report.curves import chosen_metrics


def test_the_report_draws_controls_beside_the_rewards_and_no_panels_of_their_spread():
    row = {"reward": 1, "reward/a": 1, "reward/a_std": 1, "reward/a_counted": 1, "control/c": 1, "length": 3}
    assert chosen_metrics([row, row]) == ["reward", "reward/a", "control/c", "length"]
