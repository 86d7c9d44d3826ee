"""The language reward: 1 where the completion is in the language that is wanted, 0 where it is in another one."""

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
"""A text with fewer letters is too short to tell. Of MGSM's questions in 11 languages, cut to 20 letters, 98.9% are
found to be written in their language, and cut to 15, 96.4%."""
SURE = 0.7
"""Probability that the language of a prompt must have. Of the questions cut to 20 letters, 66% reach it, each of them
rightly; with 0.5 it is 80%, 0.8% of them wrongly."""
_NO_PROSE = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)"  # programs, also where a fence is not closed
    r"|`[^`\n]*`"
    r"|\$\$.*?(?:\$\$|\Z)|\\\[.*?(?:\\\]|\Z)|\\\(.*?(?:\\\)|\Z)"  # formulas
    r"|\$(?=[^\s$])[^$\n]*(?<=\S)\$(?!\d)"  # prices are none: a formula does not end with a space, as in "$2 and $3"
    r"|\\begin\{.*?(?:\\end\{\w*\*?\}|\Z)|\\[a-zA-Z]+|<[^<>\n]*>|\bhttps?://\S*",
    re.DOTALL,
)
_SIGNS = frozenset("=(){}[]<>;_+*/\\|&^%#@~")
_MOST_SIGNS = 0.08
"""Share of such signs in a line of prose; a line with more is one of a program."""
_STATEMENT = re.compile(
    r"(?:return|import|break|continue|pass|raise|yield|from \S+ import|print)\b"
    r"|(?:def|class|for|while|if|elif|else|try|except|with)\b.*:$"
)


class Language:
    """Languages as py3langid tells them; what counts as a language is prose: no programs, formulas, numbers, addresses.

    None where the prompt or the completion has fewer than `LETTERS` letters of prose, where the prompt's language is
    less likely than `SURE`, and where a row's column is empty. A completion counts as written in a language that is at
    least half as likely as the likeliest, as for the instruction `language:response_language`.
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
                    f"{self._label} was not done within its time_limit of {self._config.time_limit:g} s, before "
                    f"{sample(index, prompts, completions)}; raise the reward's `time_limit`."
                )
            wanted = self._wanted(index, prompts, completions, columns)
            text = prose(completion)
            scores.append(float(is_written_in(text, wanted)) if wanted and _letters(text) >= LETTERS else None)
        return scores

    def close(self) -> None:
        """See `Reward.close`."""

    def _wanted(self, index: int, prompts: list[str], completions: list[str], columns: Columns) -> str | None:
        """Code of the language in which a completion should be, or None."""
        if self._config.expect is not None:
            return self._config.expect
        if self._config.language is None:
            return language_of(prompts[index])
        if self._config.language not in columns:
            raise UserError(
                f"{self._label} reads the language from column {self._config.language!r}, which the data does not have "
                f"(it has {', '.join(sorted(columns))}); add it to the data's `columns`."
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
    """Code of a text's language; None where it has too little prose to tell."""
    text = prose(text)
    if _letters(text) < LETTERS:
        return None
    code, probability = _identifier().rank(text)[0]
    return str(code) if probability >= SURE else None


def prose(text: str) -> str:
    """The start of a text without programs, formulas, mark-up, addresses and words with digits."""
    lines = [line for line in _NO_PROSE.sub(" ", text[:LONGEST_SAMPLE]).split("\n") if _is_prose(line)]
    return re.sub("[A-Za-z0-9_]+", lambda word: word[0] if word[0].isalpha() else " ", " ".join(lines))


def _is_prose(line: str) -> bool:
    """Whether a line has few of a program's signs, but for Markdown's at its ends and around words."""
    line = line.strip()
    if _STATEMENT.match(line):
        return False
    line = re.sub(r"\*\*|\]\([^()]*\)|\(\w[^()]{2,}\)", "", line.lstrip("#*+->| "))
    return sum(letter in _SIGNS for letter in line) <= _MOST_SIGNS * len(line)


def _letters(text: str) -> int:
    return sum(letter.isalpha() for letter in text)


def _unknown(code: object) -> str:
    return f"{code!r} is none of the language codes (ISO 639-1) that can be told: {', '.join(_identifier().labels)}."


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
