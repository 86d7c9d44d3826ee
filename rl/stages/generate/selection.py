"""Rejection sampling: select the best completions of a prompt by rewards, with a reason for each rejected one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Fate = Literal["kept", "unfinished", "empty", "without a reward", "below at_least", "duplicate", "beyond keep"]


@dataclass(frozen=True)
class Completion:
    """One completion of a prompt.

    Attributes:
        text: the text without control tokens.
        finished: True if it ended with an end-of-turn token.
        reward: weighted sum of the rewards; None if no reward applied to it.
        rewards: value of each reward, neither weighted nor normalised.
        tokens: length in tokens, with the end-of-turn token.
    """

    text: str
    finished: bool
    reward: float | None
    rewards: dict[str, float | None]
    tokens: int

    @property
    def judged(self) -> bool:
        """True if it is finished, not empty and scored, so that it can be ranked."""
        return self.finished and bool(self.text.strip()) and self.reward is not None


def fates(drawn: Sequence[Completion], keep: int, at_least: float | None) -> list[Fate]:
    """Return the fate of each completion of one prompt: "kept", or the reason why it was dropped.

    Candidates are finished, not empty, scored, and not below `at_least`. The `keep` best of them are kept; ties are
    broken by sampling order. Texts that differ only in white space are duplicates.
    """
    result: list[Fate] = [_refused(completion, at_least) or "kept" for completion in drawn]
    left = [i for i, fate in enumerate(result) if fate == "kept"]
    seen: set[str] = set()
    for i in sorted(left, key=lambda i: -(drawn[i].reward or 0.0)):
        text = normalised(drawn[i].text)
        if text in seen:
            result[i] = "duplicate"
        elif len(seen) == keep:
            result[i] = "beyond keep"
        else:
            seen.add(text)
    return result


def worse_than(reward: float, drawn: Sequence[Completion]) -> Completion | None:
    """Return the judged answer with the lowest reward, if that is below `reward`; the first sampled among equals."""
    worse = [other for other in drawn if other.judged and other.reward is not None and other.reward < reward]
    return min(worse, key=lambda other: other.reward or 0.0, default=None)


def tally(drawn: Sequence[Completion], outcomes: Sequence[Fate]) -> Counter[str]:
    """Return sums over one prompt's completions, which the caller adds over prompts and passes to `metrics`.

    `best` and `mean` are the maximum and the mean reward of the judged completions; `judged` is 1 if there are any.
    """
    rewards = [sample.reward for sample in drawn if sample.judged and sample.reward is not None]
    scored = [sample.reward for sample in drawn if sample.reward is not None]
    sums = Counter({f"fate/{fate}": count for fate, count in Counter(outcomes).items()})
    sums.update(
        prompts=1, samples=len(drawn), tokens=sum(sample.tokens for sample in drawn), answered=int("kept" in outcomes)
    )
    sums.update(accepted=sum(fate in ("kept", "duplicate", "beyond keep") for fate in outcomes))
    sums.update({"scored": len(scored), "reward": sum(scored)})  # type: ignore[dict-item]
    if rewards:
        sums.update({"judged": 1, "best": max(rewards), "mean": sum(rewards) / len(rewards)})  # type: ignore[dict-item]
    return sums


def metrics(sums: Counter[str]) -> dict[str, float]:
    """Return the metrics of generated answers from the sums of `tally`.

    - `acceptance`: share of completions that are candidates in `fates`, duplicates and surplus ones included.
    - `answered`: share of prompts with at least one kept answer.
    - `ended`: share of completions that are finished.
    - `duplicates`: share of the accepted completions that repeat a kept one.
    - `length`: mean length in tokens.
    - `reward`: mean reward of all scored completions.
    - `reward_best`, `reward_mean`: means over prompts of the best and the mean reward of the judged completions.
    """
    values = {
        "acceptance": sums["accepted"] / sums["samples"],
        "answered": sums["answered"] / sums["prompts"],
        "ended": 1 - sums["fate/unfinished"] / sums["samples"],
        "duplicates": sums["fate/duplicate"] / max(sums["accepted"], 1),
        "length": sums["tokens"] / sums["samples"],
    }
    if sums["scored"]:
        values["reward"] = sums["reward"] / sums["scored"]
    if sums["judged"]:
        values |= {"reward_best": sums["best"] / sums["judged"], "reward_mean": sums["mean"] / sums["judged"]}
    return values


def normalised(text: str) -> str:
    """Return the text with each run of white space replaced by one space."""
    return " ".join(text.split())


def _refused(completion: Completion, at_least: float | None) -> Fate | None:
    if not completion.finished:
        return "unfinished"
    if not completion.text.strip():
        return "empty"
    if completion.reward is None:
        return "without a reward"
    return "below at_least" if at_least is not None and completion.reward < at_least else None
