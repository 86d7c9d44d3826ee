"""The gold check: run every reference answer of a recipe's data through the rewards that use it. Needs no model."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.curation.example import Example, unique_prompts
from gemsmith.curation.load import DataSplit, load_data
from gemsmith.recipes.checks.routes import check_rows
from gemsmith.recipes.pipeline.generated import asked
from gemsmith.recipes.pipeline.pipeline import Pipeline
from gemsmith.rl.rewards.config import CodeReward, InstructionsReward, MathReward, RefusalReward, RewardConfig
from gemsmith.rl.rewards.kinds.code import open_verifier
from gemsmith.rl.rewards.kinds.refusal import Refusal, refuses
from gemsmith.rl.rewards.reward import shortened
from gemsmith.sandboxes.code.records import NoTestsError, Problem, RecordError, read_record
from gemsmith.sandboxes.instructions.registry import instructions
from gemsmith.sandboxes.mathematics.verifier import MathVerifier
from gemsmith.sandboxes.verdict import Status, Verdict

Judged = list[tuple[Example, Verdict]]


@dataclass(frozen=True)
class GoldCheck:
    """One reward's verdicts on the gold answers of one data section.

    Attributes:
        data: name of the section.
        reward: name of the reward.
        checked: number of gold answers.
        without: number of distinct prompts without a gold answer.
        failures: the examples whose gold answer is not right, each with the reason.
    """

    data: str
    reward: str
    checked: int
    without: int
    failures: list[tuple[Example, str]]


def check_gold(pipeline: Pipeline, say: Callable[[str], None] = lambda line: None) -> list[GoldCheck]:
    """Judge the gold answers of every data section with each reward of `JUDGES` that a stage uses on it.

    A reward judges only the rows of its `tasks`. First, `routes.check_rows` checks that each row has a reward in its
    stage; its notes are passed to `say`.

    Args:
        pipeline: the checked recipe.
        say: prints one line of progress.

    Raises:
        UserError: the data cannot be read, a row has no reward, or no stage uses a reward of a kind in `JUDGES`.
    """

    @functools.cache
    def load(section: str) -> DataSplit:
        return load_data(asked(pipeline.data[section]), name=section, seed=pipeline.seed, root=pipeline.root)

    for note in check_rows([node.config for node in pipeline.nodes], pipeline.rewards, load):
        say(note)
    pairs = dict.fromkeys(
        (section, reward)
        for node in pipeline.nodes
        for section in node.data
        for reward in node.rewards
        if type(pipeline.rewards[reward]) in JUDGES
    )
    if not pairs:
        raise UserError(
            "the recipe has no gold answers to check: no stage uses a reward of kind math, code, instructions or "
            "refusal"
        )
    examples: dict[str, list[Example]] = {}
    checks = []
    for section, reward in pairs:
        if section not in examples:
            split = load(section)
            examples[section] = unique_prompts([*split.train, *split.test])
        config = pipeline.rewards[reward]
        own = [example for example in examples[section] if config.applies_to(example.task)]
        say(f"data {section}: {len(own)} prompts, by reward {reward}")
        judge = JUDGES[type(config)]
        judged = judge(reward, config, own)
        failures = [(example, _fault(verdict)) for example, verdict in judged if verdict.status is not Status.RIGHT]
        checks.append(GoldCheck(section, reward, len(judged), len(own) - len(judged), failures))
    return checks


def _mathematics(name: str, config: MathReward, examples: Sequence[Example]) -> Judged:
    answers = [(example, _column(example, config.answer)) for example in examples]
    given = [(example, str(answer)) for example, answer in answers if answer not in (None, "")]
    texts = [answer for _, answer in given]
    with MathVerifier(time_limit=min(5.0, config.time_limit)) as verifier:
        return list(zip([example for example, _ in given], verifier.verify(texts, texts), strict=True))


def _code(name: str, config: CodeReward, examples: Sequence[Example]) -> Judged:
    """Judge programs; the gold answer is the record's own reference solution, else the section's `answer`."""
    judged: Judged = []
    asked: list[tuple[Example, Problem, str]] = []
    for example in examples:
        row = {**example.columns, "answer": example.answer, "task": example.task, "system": example.system}
        try:
            problem = read_record(row, config.format, config.tests)
        except NoTestsError:
            continue
        except RecordError as error:
            judged.append((example, Verdict(0.0, Status.UNPARSABLE, None, f"its tests cannot be read: {error}", 0.0)))
            continue
        gold = problem.gold if problem.gold is not None else example.answer
        if gold:
            asked.append((example, problem, gold))
    with open_verifier(name, config) as verifier:
        verdicts = verifier.verify([gold for _, _, gold in asked], [problem for _, problem, _ in asked])
    return judged + [(example, verdict) for (example, _, _), verdict in zip(asked, verdicts, strict=True)]


def _instructions(name: str, config: InstructionsReward, examples: Sequence[Example]) -> Judged:
    """Check that the `answer` of each row with instructions follows all of them."""
    given = [example for example in examples if example.answer and example.columns.get(config.instructions)]
    judged: Judged = []
    for example in given:
        fields = example.columns.get(config.kwargs)
        try:
            asked = instructions(example.columns[config.instructions], fields)
        except UserError as error:
            judged.append((example, Verdict(0.0, Status.UNPARSABLE, None, str(error), 0.0)))
            continue
        failed = [one.kind.id for one in asked if not one.followed(str(example.answer), config.strict)]
        judged.append((example, _verdict(not failed, f"does not follow {', '.join(failed)}")))
    return judged


def _refusals(name: str, config: RefusalReward, examples: Sequence[Example]) -> Judged:
    """Check that the `answer` of each labelled row refuses if it should, and only then."""
    given = [example for example in examples if example.answer and example.columns.get(config.label) is not None]
    columns = {config.label: [example.columns[config.label] for example in given]}
    prompts, answers = [example.prompt for example in given], [str(example.answer) for example in given]
    scores = Refusal(name, config).score(prompts, answers, columns) if given else []
    judged = zip(given, scores, strict=True)
    return [
        (example, _verdict(score == 1, f"refuses: {refuses(str(example.answer))}"))
        for example, score in judged
        if score is not None
    ]


def _verdict(right: bool, fault: str) -> Verdict:
    return Verdict(float(right), Status.RIGHT if right else Status.WRONG, None, "" if right else fault, 0.0)


JUDGES: dict[type[RewardConfig], Callable[[str, Any, Sequence[Example]], Judged]] = {
    MathReward: _mathematics,
    CodeReward: _code,
    InstructionsReward: _instructions,
    RefusalReward: _refusals,
}
"""Function that judges gold answers, by reward class; only for rewards that need nothing but the row."""


def _column(example: Example, name: str) -> Any:
    return example.columns[name] if name in example.columns else getattr(example, name, None)


def _fault(verdict: Verdict) -> str:
    return f"{verdict.status.replace('_', ' ')}: {verdict.reason}"


def report_gold(checks: Sequence[GoldCheck]) -> Iterator[str]:
    """Yield the lines of a report: one for each gold answer that fails, and one for each check.

    Raises:
        RunError: a gold answer is not right; raised after all lines.
        UserError: the data has no gold answer at all.
    """
    for check in checks:
        for example, fault in check.failures:
            yield f"{example.where}: {fault} (prompt {shortened(example.prompt)})"
        without = f", {check.without} prompts without one" if check.without else ""
        yield (
            f"data {check.data} by reward {check.reward}: {check.checked} gold answers checked, "
            f"{len(check.failures)} not right{without}"
        )
    if not any(check.checked for check in checks):
        raise UserError("the data has no gold answers: map `answer`, or name the columns with the reference solutions")
    if failed := sum(len(check.failures) for check in checks):
        raise RunError(f"{failed} of {sum(check.checked for check in checks)} gold answers are not right; see above")
