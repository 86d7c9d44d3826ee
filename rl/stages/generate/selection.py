"""The best of several completions of a prompt: rejection sampling by rewards, and what becomes of the others."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Fate = Literal["kept", "unfinished", "empty", "without a reward", "below at_least", "duplicate", "beyond keep"]


@dataclass(frozen=True)
class Completion:
    """One completion of a prompt.

    Attributes:
        text: without control tokens.
        finished: it came to its end of turn.
        reward: weighted sum of the rewards; None: none of them applied to it.
        rewards: each as it came.
        tokens: its length, with the end of turn.
    """

    text: str
    finished: bool
    reward: float | None
    rewards: dict[str, float | None]
    tokens: int

    @property
    def judged(self) -> bool:
        """Whether it is an answer that the rewards can place among others."""
        return self.finished and bool(self.text.strip()) and self.reward is not None


def fates(drawn: Sequence[Completion], keep: int, at_least: float | None) -> list[Fate]:
    """What becomes of each completion of one prompt.

    Of those that ended, say something and score enough, the `keep` best are kept, of equal ones the one drawn first.
    Two texts that differ in white space alone are duplicates.
    """
    found: list[Fate] = [_refused(completion, at_least) or "kept" for completion in drawn]
    left = [i for i, fate in enumerate(found) if fate == "kept"]
    seen: set[str] = set()
    for i in sorted(left, key=lambda i: -(drawn[i].reward or 0.0)):
        text = normalised(drawn[i].text)
        if text in seen:
            found[i] = "duplicate"
        elif len(seen) == keep:
            found[i] = "beyond keep"
        else:
            seen.add(text)
    return found


def worse_than(reward: float, drawn: Sequence[Completion]) -> Completion | None:
    """The worst answer among the judged ones, the first drawn of equals, if it scored less than `reward`."""
    below = [one for one in drawn if one.judged and one.reward is not None and one.reward < reward]
    return min(below, key=lambda one: one.reward or 0.0, default=None)


def tally(drawn: Sequence[Completion], found: Sequence[Fate]) -> Counter[str]:
    """Sums over one prompt's completions, to be added over prompts and read by `metrics`.

    `best` and `mean` are of the judged completions' rewards, as is `spread`, the prompts that have some.
    """
    rewards = [one.reward for one in drawn if one.judged and one.reward is not None]
    scored = [one.reward for one in drawn if one.reward is not None]
    sums = Counter({f"fate/{fate}": count for fate, count in Counter(found).items()})
    sums.update(prompts=1, samples=len(drawn), tokens=sum(one.tokens for one in drawn), answered=int("kept" in found))
    sums.update(accepted=sum(fate in ("kept", "duplicate", "beyond keep") for fate in found))
    sums.update({"scored": len(scored), "reward": sum(scored)})  # type: ignore[dict-item]
    if rewards:
        sums.update({"judged": 1, "best": max(rewards), "mean": sum(rewards) / len(rewards)})  # type: ignore[dict-item]
    return sums


def metrics(sums: Counter[str]) -> dict[str, float]:
    """What is said of generated answers.

    `acceptance` is the share of all completions that ended and scored enough, `answered` the share of prompts with an
    answer kept, `reward` the mean of all completions. `reward_best` is the mean over prompts of the best reward among
    their answers, `reward_mean` that of the mean reward among the same. `ended` is the share that came to an end,
    `duplicates` that of the accepted ones which say the same as one that is kept, `length` in tokens.
    """
    found = {
        "acceptance": sums["accepted"] / sums["samples"],
        "answered": sums["answered"] / sums["prompts"],
        "ended": 1 - sums["fate/unfinished"] / sums["samples"],
        "duplicates": sums["fate/duplicate"] / max(sums["accepted"], 1),
        "length": sums["tokens"] / sums["samples"],
    }
    if sums["scored"]:
        found["reward"] = sums["reward"] / sums["scored"]
    if sums["judged"]:
        found |= {"reward_best": sums["best"] / sums["judged"], "reward_mean": sums["mean"] / sums["judged"]}
    return found


def normalised(text: str) -> str:
    """The text with its white space made equal."""
    return " ".join(text.split())


def _refused(completion: Completion, at_least: float | None) -> Fate | None:
    if not completion.finished:
        return "unfinished"
    if not completion.text.strip():
        return "empty"
    if completion.reward is None:
        return "without a reward"
    return "below at_least" if at_least is not None and completion.reward < at_least else None
