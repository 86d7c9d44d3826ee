"""Whether every row has a reward, and a reward's `tasks` a row: by the recipe where that tells, else by the rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, Protocol

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import StageConfig
from gemsmith.contracts.suggestions import did_you_mean
from gemsmith.curation.config import AnySource, DataConfig, Generated, GeneratedData, Mixture
from gemsmith.curation.example import Example
from gemsmith.evals.config import EvaluateStage
from gemsmith.recipes.schema.faults import Faults, Keys, listed
from gemsmith.rl.algorithms.config import RolloutConfig
from gemsmith.rl.rewards.compatibility import check_routes
from gemsmith.rl.rewards.config import RewardConfig
from gemsmith.rl.stages.distill.config import DistillStage
from gemsmith.rl.stages.generate.config import GenerateStage


@dataclass(frozen=True)
class Scoring:
    """Rewards that score the rows of a data section in a stage: those of which each row needs one, and the others."""

    stage: str
    keys: Keys
    data: str
    needed: tuple[str, ...]
    others: tuple[str, ...]
    prompts: int | None
    learns: bool


class Split(Protocol):
    """The rows of a data section; see `gemsmith.curation.load.DataSplit`."""

    @property
    def train(self) -> list[Example]:
        """Rows to learn on."""

    @property
    def test(self) -> list[Example]:
        """Rows to evaluate on."""


def check_rows(stages: Sequence[StageConfig], rewards: Mapping[str, Any], load: Callable[[str], Split]) -> list[str]:
    """Compare the tasks of the rows with those of the rewards, for these stages; nothing is loaded where none has any.

    Args:
        stages: those to look at.
        rewards: the recipe's rewards by name.
        load: gives the rows of a data section by its name.

    Returns:
        A sentence for each task of a reward that no row has.

    Raises:
        UserError: a row has no reward in its stage, or a task that no row has is nearly one that rows have.
    """
    scorings = [scoring for index, config in enumerate(stages) for scoring in scorings_of(config, index)]
    routed = [scoring for scoring in scorings if any(rewards[name].tasks for name in _names(scoring))]
    tasks = {}
    for scoring in routed:
        split = load(scoring.data)
        tasks[scoring.data] = {example.task for example in [*split.train, *split.test]}
    notes = []
    for reward, task, data, present in _unmatched(routed, rewards, tasks):
        hint = did_you_mean(task, present)
        if hint:
            raise UserError(f"rewards.{reward}.tasks: {_no_row(task, data, present)}{hint}")
        notes.append(f"rewards.{reward}.tasks: {_no_row(task, data, present)}")
    for scoring in routed:
        split = load(scoring.data)
        rows = split.train if scoring.learns else split.test
        if scoring.prompts is None or scoring.prompts >= len(rows):  # else some rows are never asked
            terms = {name: rewards[name] for name in scoring.needed}
            check_routes(terms, rows, scoring.stage, scoring.data)
    return notes


def add_route_faults(
    stages: Sequence[StageConfig], data: Mapping[str, Any], rewards: Mapping[str, Any], faults: Faults
) -> None:
    """The same as far as the recipe tells without its rows; see `stated_tasks`. Adds a fault for each."""
    tasks = {name: stated for name, config in data.items() if (stated := stated_tasks(config)) is not None}
    scorings = [scoring for index, config in enumerate(stages) for scoring in scorings_of(config, index)]
    for reward, task, sections, present in _unmatched(scorings, rewards, tasks):
        keys: Keys = ("rewards", reward, "tasks", rewards[reward].tasks.index(task))
        faults.add(keys, f"{_no_row(task, sections, present)}{did_you_mean(task, present)}")
    for scoring in scorings:
        terms: dict[str, RewardConfig] = {name: rewards[name] for name in scoring.needed}
        for task_there in tasks.get(scoring.data, ()):
            if not any(term.applies_to(task_there) for term in terms.values()):
                have = "have no task" if task_there is None else f'are of task "{task_there}"'
                scored = "; ".join(f"{name} scores {', '.join(term.tasks or [])}" for name, term in terms.items())
                found = f"found no reward for data.{scoring.data}, whose rows {have}: {scored}"
                expected = "expected one whose `tasks` has it, or one without `tasks`"
                faults.add((*scoring.keys, "rewards"), f"{found}; {expected}")


def scorings_of(config: StageConfig, index: int) -> Iterator[Scoring]:
    """What a stage scores: the `index`-th of its recipe."""
    for name, learner in (("", config), ("inner", getattr(config, "inner", None))):
        keys: Keys = ("stages", index, name) if name else ("stages", index)
        if isinstance(learner, RolloutConfig):
            yield Scoring(config.id, keys, learner.data, tuple(learner.rewards), tuple(learner.control), None, True)
        elif isinstance(learner, EvaluateStage):
            yield Scoring(config.id, keys, learner.data, tuple(learner.rewards), (), learner.prompts, False)
        elif isinstance(learner, GenerateStage | DistillStage) and learner.rewards:
            prompts = learner.prompts if isinstance(learner, GenerateStage) else None
            yield Scoring(config.id, keys, learner.data, tuple(learner.rewards), (), prompts, True)


def stated_tasks(config: AnySource | GeneratedData) -> set[str | None] | None:
    """The tasks of a section's rows, where it tells them itself, as a mixture does whose sections all do; else None."""
    if isinstance(config, Generated):
        return stated_tasks(config.section)
    if isinstance(config, Mixture):
        found = {name: stated_tasks(section) for name, section in config.sections.items()}
        known = {name: tasks for name, tasks in found.items() if tasks is not None}
        if len(known) < len(found):
            return None
        return {name if task is None else task for name, tasks in known.items() for task in tasks}
    return {stated_task(config)} if isinstance(config, DataConfig) and tells_its_task(config) else None


def tells_its_task(config: DataConfig) -> bool:
    """Whether the task of every row stands in the section itself: it names one, or none, and asks no column for it."""
    try:
        return config.task is None or all(field is None for _, field, *_ in Formatter().parse(config.task))
    except ValueError:  # it is no template, which is told when it is filled
        return False


def stated_task(config: DataConfig) -> str | None:
    """The task of every row of a section that tells it."""
    return None if config.task is None else "".join(text for text, *_ in Formatter().parse(config.task))


def _unmatched(
    scorings: Sequence[Scoring], rewards: Mapping[str, Any], tasks: Mapping[str, set[str | None]]
) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Each reward and task of it that no row has, with the sections that it scores and the tasks that are there.

    A reward that scores a section whose tasks are not known is left out, as is one that scores nothing.
    """
    for name, reward in rewards.items():
        sections = list(dict.fromkeys(scoring.data for scoring in scorings if name in _names(scoring)))
        if not sections or any(section not in tasks for section in sections):
            continue
        present = sorted({task for section in sections for task in tasks[section] if task is not None})
        for task in reward.tasks or ():
            if task not in present:
                yield name, task, sections, present


def _names(scoring: Scoring) -> tuple[str, ...]:
    return (*scoring.needed, *scoring.others)


def _no_row(task: str, sections: Sequence[str], present: Sequence[str]) -> str:
    where = " or ".join(f"data.{section}" for section in sections)
    return f'found "{task}", which no row of {where} has, expected {listed(present)}'
