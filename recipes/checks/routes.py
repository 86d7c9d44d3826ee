"""Check that every row has a reward and that every task of a reward has a row, from the recipe or from the rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.planning import Keys, Scoring
from gemsmith.contracts.stage import StageConfig
from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.curation.example import Example
from gemsmith.curation.sections import stated_tasks
from gemsmith.recipes.schema.faults import Faults
from gemsmith.rl.rewards.compatibility import check_routes
from gemsmith.rl.rewards.config import RewardConfig


@dataclass(frozen=True)
class PlacedScoring:
    """One scoring of a stage, with its location in the recipe."""

    stage: str
    keys: Keys
    scoring: Scoring


class Split(Protocol):
    """Rows of a data section, as `gemsmith.curation.load.DataSplit` holds them."""

    @property
    def train(self) -> list[Example]:
        """Return the training rows."""

    @property
    def test(self) -> list[Example]:
        """Return the held-out rows."""


def check_rows(stages: Sequence[StageConfig], rewards: Mapping[str, Any], load: Callable[[str], Split]) -> list[str]:
    """Compare the tasks of the rows with the `tasks` of the rewards; loads nothing if no reward has `tasks`.

    Args:
        stages: the stages to check.
        rewards: the recipe's rewards by name.
        load: returns the rows of a data section by its name.

    Returns:
        A sentence for each task of a reward that no row has.

    Raises:
        UserError: a row has no reward in its stage, or a reward's task is probably a misspelling of a row's task.
    """
    scorings = placed_scorings(stages)
    routed = [placed for placed in scorings if any(rewards[name].tasks for name in placed.scoring.names)]
    tasks = {}
    for section in dict.fromkeys(placed.scoring.data for placed in routed):
        split = load(section)
        tasks[section] = {example.task for example in [*split.train, *split.test]}
    notes = []
    for reward, task, data, present in _unmatched(routed, rewards, tasks):
        hint = did_you_mean(task, present)
        if hint:
            raise UserError(f"rewards.{reward}.tasks: {_no_row(task, data, present)}{hint}")
        notes.append(f"rewards.{reward}.tasks: {_no_row(task, data, present)}")
    for placed in routed:
        scoring, split = placed.scoring, load(placed.scoring.data)
        rows = split.train if scoring.learns else split.test
        if scoring.prompts is None or scoring.prompts >= len(rows):  # otherwise some rows are never used
            terms = {name: rewards[name] for name in scoring.needed}
            check_routes(terms, rows, placed.stage, scoring.data)
    return notes


def add_route_faults(
    stages: Sequence[StageConfig], data: Mapping[str, Any], rewards: Mapping[str, Any], faults: Faults
) -> None:
    """Make the checks of `check_rows` without loading data, for the sections whose tasks the recipe states.

    Args:
        stages: the stages to check.
        data: the recipe's data sections by name; see `stated_tasks`.
        rewards: the recipe's rewards by name.
        faults: collects the faults.
    """
    tasks = {name: stated for name, config in data.items() if (stated := stated_tasks(config)) is not None}
    scorings = placed_scorings(stages)
    for reward, task, sections, present in _unmatched(scorings, rewards, tasks):
        keys: Keys = ("rewards", reward, "tasks", rewards[reward].tasks.index(task))
        faults.add(keys, f"{_no_row(task, sections, present)}{did_you_mean(task, present)}")
    for placed in scorings:
        scoring = placed.scoring
        terms: dict[str, RewardConfig] = {name: rewards[name] for name in scoring.needed}
        for task_there in tasks.get(scoring.data, ()):
            if not any(term.applies_to(task_there) for term in terms.values()):
                have = "have no task" if task_there is None else f'are of task "{task_there}"'
                scored = "; ".join(f"{name} scores {', '.join(term.tasks or [])}" for name, term in terms.items())
                found = f"found no reward for data.{scoring.data}, whose rows {have}: {scored}"
                expected = "expected one whose `tasks` has it, or one without `tasks`"
                faults.add((*placed.keys, "rewards"), f"{found}; {expected}")


def placed_scorings(stages: Sequence[StageConfig]) -> list[PlacedScoring]:
    """Return the scorings of all stages, in the order of the recipe."""
    return [
        PlacedScoring(config.id, ("stages", index, *filter(None, [scoring.field])), scoring)
        for index, config in enumerate(stages)
        for scoring in config.scorings()
    ]


def _unmatched(
    scorings: Sequence[PlacedScoring], rewards: Mapping[str, Any], tasks: Mapping[str, set[str | None]]
) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Yield reward, task, scored sections and existing tasks, for each task of a reward that no row has.

    Rewards that score nothing, or a section with unknown tasks, are skipped.
    """
    for name, reward in rewards.items():
        scored = [placed.scoring for placed in scorings]
        sections = list(dict.fromkeys(scoring.data for scoring in scored if name in scoring.names))
        if not sections or any(section not in tasks for section in sections):
            continue
        present = sorted({task for section in sections for task in tasks[section] if task is not None})
        for task in reward.tasks or ():
            if task not in present:
                yield name, task, sections, present


def _no_row(task: str, sections: Sequence[str], present: Sequence[str]) -> str:
    where = " or ".join(f"data.{section}" for section in sections)
    return f'found "{task}", which no row of {where} has, expected {listed(present)}'
