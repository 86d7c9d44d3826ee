from pathlib import Path

import pytest
from pydantic import ValidationError

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.config import LanguageReward
from gemsmith.rl.rewards.kinds.language import LONGEST_SAMPLE, prose
from tests.messages import raises_facts

DATA = Path(__file__).parents[4].parent / "shared" / "data"
MGSM = DATA / "mgsm"
GERMAN, FRENCH = "Wie viele Eier legen die Enten am Tag?", "Combien d'œufs les canes pondent-elles par jour ?"
PROGRAM = "```python\ndef eggs_of_the_ducks(mornings):\n    return [each for each in mornings]\n```"


def scores(stage: Stage, prompts: list[str], completions: list[str], columns=None, **config: object):
    stage.rewards = {"it": LanguageReward(kind="language", **config)}  # type: ignore[arg-type]
    with open_rewards(["it"], stage) as rewards:
        return rewards.score(prompts, completions, columns or {}).each["it"]


def test_it_is_one_in_the_language_of_the_prompt_and_zero_in_another(stage: Stage):
    completions = ["Die Enten legen sechzehn Eier.", "The ducks lay sixteen eggs a day.", FRENCH]
    assert scores(stage, [GERMAN] * 3, completions) == [1.0, 0.0, 0.0]
    assert scores(stage, [FRENCH] * 3, completions) == [0.0, 0.0, 1.0]


def test_the_language_may_be_one_for_all_or_stand_in_a_column(stage: Stage):
    assert scores(stage, ["?", "?"], [GERMAN, FRENCH], expect="de") == [1.0, 0.0]
    columns = {"tongue": ["fr", "fr", None, ""]}
    assert scores(stage, ["?"] * 4, [GERMAN, FRENCH] * 2, columns, language="tongue") == [0.0, 1.0, None, None]


def test_it_is_none_where_prompt_or_completion_are_too_short_to_tell(stage: Stage):
    assert scores(stage, ["Hallo!", GERMAN], [GERMAN, "sechzehn Eier"]) == [None, None]
    letters = "Enten legen am Tag Eier"  # 19 letters if the last is removed
    assert scores(stage, [GERMAN] * 2, [letters[:-1], letters + "n"]) == [None, 1.0]


@pytest.mark.parametrize(
    "no_prose",
    [
        PROGRAM,
        PROGRAM.removesuffix("```"),
        PROGRAM.removeprefix("```python\n").removesuffix("\n```"),
        r"\[ \text{the eggs of the ducks} = \frac{16}{\text{mornings}} \] \(the + eggs + of + the + ducks\)",
        "$the + eggs + of + the + ducks$ `the eggs of the ducks every day`",
        "16 + 3 = 19, 4 * 19 = 76, 1st, 2nd and 3rd",
        "https://example.org/the/eggs/of/the/ducks/of/janet",
    ],
)
def test_programs_formulas_numbers_and_addresses_are_in_no_language(stage: Stage, no_prose: str):
    assert scores(stage, [GERMAN], [no_prose]) == [None]
    assert scores(stage, [GERMAN], [no_prose + "\n```\n" * (no_prose.count("```") % 2) + "\n" + GERMAN]) == [1.0]


def test_prices_and_marked_up_prose_are_prose():
    for text in ("An egg is $ and a duck is $ or more", "## The **ducks** (of Janet)", "- they lay many [eggs](x)"):
        assert prose(text.replace("$", "$2")).split() == text.split()


@pytest.mark.parametrize("unit", ["```", "$", "$a", r"\(", r"\[", r"\begin{", "<", "`", "(a", "a", "_", "**", "]("])
def test_a_hostile_completion_does_not_hold_up_the_batch(stage: Stage, unit: str):
    hostile = unit * (LONGEST_SAMPLE // len(unit))  # a pattern of more than linear time takes five seconds or more
    assert scores(stage, [GERMAN] * 2, [hostile, GERMAN], time_limit=4.0)[1] == 1.0


def test_what_cannot_be_is_refused(stage: Stage):
    with raises_facts(ValidationError, "both `expect`", "`language` (a column)"):
        LanguageReward(kind="language", expect="de", language="tongue")
    with pytest.raises(ValidationError, match="expect"):
        LanguageReward(kind="language", expect="German")
    with raises_facts(UserError, "reward it (language)", "'xx'", "ISO 639-1", "de"):
        scores(stage, ["?"], [GERMAN], expect="xx")
    with raises_facts(UserError, "sample 0", "column 'tongue'", "'German'", "ISO 639-1"):
        scores(stage, ["?"], [GERMAN], {"tongue": ["German"]}, language="tongue")
    with raises_facts(UserError, "column 'tongue'", "found level", "`columns`"):
        scores(stage, ["?"], [GERMAN], {"level": [1]}, language="tongue")
    with raises_facts(RunError, "reward it (language)", "time_limit of 1e-09 s", "sample 0"):
        scores(stage, [GERMAN], [GERMAN], time_limit=1e-9)


@pytest.mark.skipif(not MGSM.is_dir(), reason="shared/data/mgsm is not on this machine")
def test_questions_in_11_languages_are_in_their_own_language_and_in_no_other(stage: Stage):
    """All 250 questions gave, for 2750 texts in their own language, 2732 times 1, 18 None (14 Chinese) and no 0."""
    questions = {
        path.stem[-2:]: [line.split("\t")[0] for line in path.read_text("utf-8").split("\n") if line][:50]
        for path in sorted(MGSM.glob("mgsm_*.tsv"))
    }
    own = [score for asked in questions.values() for score in scores(stage, asked, asked)]
    assert len(own) == 11 * 50
    assert own.count(0.0) == 0
    assert own.count(None) <= 10
    turned = list(questions.values())[1:] + list(questions.values())[:1]
    other = [s for asked, said in zip(questions.values(), turned, strict=True) for s in scores(stage, asked, said)]
    assert other.count(1.0) == 0
    assert other.count(None) <= 10
