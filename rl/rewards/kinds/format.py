"""Format reward: the share of the configured checks that a completion passes."""

import json
import time
from collections.abc import Callable
from typing import Any

import regex

from gemsmith.contracts.errors import RunError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.config import FormatReward
from gemsmith.rl.rewards.reward import Columns, sample

PATIENCE = 1.0
"""Time limit of the pattern for one completion, in seconds; a completion that exceeds it does not match."""
BOX = r"\boxed{"


class Format:
    """Format reward in [0, 1]; each configured check (pattern, JSON, box) has the same weight.

    A completion on which the pattern exceeds `PATIENCE` does not match, and the stage reports it: a completion can make
    a backtracking pattern run almost forever, and must not gain from that.
    """

    def __init__(self, name: str, config: FormatReward, stage: Stage) -> None:
        self._label = f"reward {name} (format)"
        self._config, self._stage = config, stage
        self._overdue = 0
        self._demands: list[Callable[[str], bool]] = []
        if config.pattern is not None:
            self._pattern = regex.compile(config.pattern)
            self._demands.append(self._matches)
        if config.json_:
            self._demands.append(lambda text: is_json(text, config.keys))
        if config.boxed:
            self._demands.append(has_one_box)

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """See `Reward.score`."""
        deadline = time.monotonic() + self._config.time_limit
        self._overdue = 0
        scores: list[float | None] = []
        for index, completion in enumerate(completions):
            if time.monotonic() > deadline:
                raise RunError(
                    f"{self._label} did not finish within its time_limit of {self._config.time_limit:g} s; it reached "
                    f"{sample(index, prompts, completions)}; simplify its `pattern`, or raise its `time_limit`."
                )
            scores.append(sum(demand(completion) for demand in self._demands) / len(self._demands))
        if self._overdue:
            self._stage.say(
                f"{self._label}: the pattern took longer than {PATIENCE:g} s on {self._overdue} of {len(completions)} "
                "completions, which count as not matching; simplify `pattern`."
            )
        return scores

    def close(self) -> None:
        """See `Reward.close`."""

    def _matches(self, text: str) -> bool:
        match = self._pattern.fullmatch if self._config.whole else self._pattern.search
        try:
            return match(text, timeout=PATIENCE) is not None
        except TimeoutError:
            self._overdue += 1
            return False


def is_json(text: str, keys: list[str]) -> bool:
    """Return True if the whole text is one standard JSON value (no NaN), and an object with all `keys` if given."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return not keys or (isinstance(value, dict) and all(key in value for key in keys))


def has_one_box(text: str) -> bool:
    r"""Return True if the text has exactly one \boxed{...} with closed braces and non-empty content."""
    if text.count(BOX) != 1:
        return False
    begin = end = text.index(BOX) + len(BOX)
    depth = 1
    while depth and end < len(text):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 2 if text[end] == "\\" else 1  # an escaped brace does not change the depth
    return depth == 0 and text[begin : end - 1].strip() != ""


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not valid JSON")
