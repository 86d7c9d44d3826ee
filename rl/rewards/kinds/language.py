"""Language reward: 1 if the completion is in the expected language, 0 if it is in another."""

import re
import time
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.config import LanguageReward
from gemsmith.rl.rewards.reward import Columns, sample
from gemsmith.sandboxes.instructions.language import LONGEST_SAMPLE, is_written_in

LETTERS = 20
"""Fewest letters of a text whose language is identified. Of MGSM's questions in 11 languages, 98.9% are recognised as
their language when cut to 20 letters, and 96.4% when cut to 15."""
SURE = 0.7
"""Lowest probability at which a prompt's language is accepted. Of the questions cut to 20 letters, 66% reach 0.7, all
of them correctly; 80% reach 0.5, 0.8% of them wrongly."""
_NO_PROSE = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)"  # fenced code, even if the fence is not closed
    r"|`[^`\n]*`"
    r"|\$\$.*?(?:\$\$|\Z)|\\\[.*?(?:\\\]|\Z)|\\\(.*?(?:\\\)|\Z)"  # formulas
    r"|\$(?=[^\s$])[^$\n]*(?<=\S)\$(?!\d)"  # not prices: "$2 and $3" has a space before the second sign
    r"|\\begin\{.*?(?:\\end\{\w*\*?\}|\Z)|\\[a-zA-Z]+|<[^<>\n]*>|\bhttps?://\S*",
    re.DOTALL,
)
_SIGNS = frozenset("=(){}[]<>;_+*/\\|&^%#@~")
_MOST_SIGNS = 0.08
"""Largest share of `_SIGNS` in a line of prose; a line with more counts as code."""
_STATEMENT = re.compile(
    r"(?:return|import|break|continue|pass|raise|yield|from \S+ import|print)\b"
    r"|(?:def|class|for|while|if|elif|else|try|except|with)\b.*:$"
)


class Language:
    """Language reward based on py3langid, applied to prose only: code, formulas, numbers and URLs are removed.

    The score is None if the prompt or the completion has fewer than `LETTERS` letters of prose, if the probability of
    the prompt's language is below `SURE`, or if the row's column is empty. A completion counts as written in a language
    that is at least half as probable as the most probable one, as for the instruction `language:response_language`.
    """

    def __init__(self, name: str, config: LanguageReward, stage: Stage) -> None:
        self._label = f"reward {name} (language)"
        self._config = config
        if config.expect is not None and config.expect not in _identifier().labels:
            raise UserError(f"{self._label}: {_unknown(config.expect)}")

    def score(self, prompts: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """See `Reward.score`."""
        deadline = time.monotonic() + self._config.time_limit
        scores: list[float | None] = []
        for index, completion in enumerate(completions):
            if time.monotonic() > deadline:
                raise RunError(
                    f"{self._label} did not finish within its time_limit of {self._config.time_limit:g} s; it reached "
                    f"{sample(index, prompts, completions)}; raise the reward's `time_limit`."
                )
            wanted = self._wanted(index, prompts, completions, columns)
            text = prose(completion)
            scores.append(float(is_written_in(text, wanted)) if wanted and _letters(text) >= LETTERS else None)
        return scores

    def close(self) -> None:
        """See `Reward.close`."""

    def _wanted(self, index: int, prompts: list[str], completions: list[str], columns: Columns) -> str | None:
        """Return the code of the language expected of a completion, or None."""
        if self._config.expect is not None:
            return self._config.expect
        if self._config.language is None:
            return language_of(prompts[index])
        if self._config.language not in columns:
            raise UserError(
                f"{self._label}: the data has no column {self._config.language!r} with the language (found "
                f"{', '.join(sorted(columns))}); add it to the data section's `columns`."
            )
        code = columns[self._config.language][index]
        if code is None or code == "":
            return None
        if code not in _identifier().labels:
            raise UserError(
                f"{self._label}, {sample(index, prompts, completions)}: column {self._config.language!r}: "
                f"{_unknown(code)}"
            )
        return str(code)


def language_of(text: str) -> str | None:
    """Return the code of a text's language, or None if it has too little prose or is ambiguous."""
    text = prose(text)
    if _letters(text) < LETTERS:
        return None
    code, probability = _identifier().rank(text)[0]
    return str(code) if probability >= SURE else None


def prose(text: str) -> str:
    """Return the start of a text without code, formulas, mark-up, URLs and words with digits."""
    lines = [line for line in _NO_PROSE.sub(" ", text[:LONGEST_SAMPLE]).split("\n") if _is_prose(line)]
    return re.sub("[A-Za-z0-9_]+", lambda word: word[0] if word[0].isalpha() else " ", " ".join(lines))


def _is_prose(line: str) -> bool:
    """Return True if a line is not code: few signs, not counting Markdown's at its ends and around words."""
    line = line.strip()
    if _STATEMENT.match(line):
        return False
    line = re.sub(r"\*\*|\]\([^()]*\)|\(\w[^()]{2,}\)", "", line.lstrip("#*+->| "))
    return sum(letter in _SIGNS for letter in line) <= _MOST_SIGNS * len(line)


def _letters(text: str) -> int:
    return sum(letter.isalpha() for letter in text)


def _unknown(code: object) -> str:
    return f"found language {code!r}, expected an ISO 639-1 code among {', '.join(_identifier().labels)}."


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
