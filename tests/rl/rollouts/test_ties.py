from gemsmith.rl.rollouts.ties import TieWatch


def said_after(*rates: float) -> list[str]:
    said: list[str] = []
    watch = TieWatch(said.append)
    for rate in rates:
        watch.see(rate)
    return said


def test_ties_are_told_once_after_five_steps_with_their_rate_and_what_helps() -> None:
    assert said_after(*[1.0] * 4) == []
    (line,) = said_after(1.0, 0.9, 0.8, 0.7, 0.6, *[1.0] * 20)
    assert line.startswith("80% of the pairs") and "5 steps" in line
    for remedy in ("`partial: true`", "reward model", "`kind: reinforce`"):
        assert remedy in line


def test_half_of_the_pairs_may_tie_and_later_steps_do_not_matter() -> None:
    assert said_after(1.0, 1.0, 0.5, 0.0, 0.0, *[1.0] * 20) == []
