"""Checks that the rewards of a stage fit together and fit its rows: gates must exist, and each row needs a reward."""

from collections.abc import Iterable, Mapping, Sequence

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.planning import CheckContext
from gemsmith.contracts.suggestions import did_you_mean
from gemsmith.curation.example import Example
from gemsmith.rl.rewards.config import CodeReward, RewardConfig


def gate_fault(terms: Mapping[str, RewardConfig]) -> tuple[str, str] | None:
    """Find the first reward whose gate is missing or part of a cycle.

    Returns:
        The name of the reward and the fault, or None if all gates are valid.
    """
    for name in terms:
        path = [name]
        while (gate := terms[path[-1]].gate) is not None:
            if gate not in terms:
                others = [other for other in terms if other != path[-1]]
                expected = (
                    f"expected another reward that the stage learns from: {', '.join(others) or '(there are none)'}"
                )
                return path[-1], f'found "{gate}", {expected}{did_you_mean(gate, others)}'
            path.append(gate)
            if gate in path[:-1]:
                cycle = " -> ".join(path[path.index(gate) :])
                return gate, f"found a cycle, {cycle}; expected a chain of gates that ends"
    return None


def turns_fault(term: RewardConfig) -> str | None:
    """Return the reason why a stage with several turns cannot learn from a reward, or None if it can."""
    if not isinstance(term, CodeReward):
        return "expected kind code, because `turns` above 1 shows the policy which tests failed"
    if term.shaped or term.partial:
        setting = "partial" if term.partial else "normalise, clip or gate"
        return f"found {setting}, expected none of them, because with `turns` above 1 the rewards are 1, -1 and -0.2"
    return None


def check_gates_of(names: Sequence[str], context: CheckContext) -> None:
    """Add a fault to `context` for the first invalid gate among the named rewards; see `gate_fault`."""
    if fault := gate_fault({name: context.rewards[name] for name in names}):
        context.add_to_recipe(("rewards", fault[0], "gate"), f"stage {context.id}: {fault[1]}")


def check_gates(terms: Mapping[str, RewardConfig], stage: str) -> None:
    """Raise a UserError for the first invalid gate; see `gate_fault`."""
    if fault := gate_fault(terms):
        name, text = fault
        raise UserError(f"stage {stage}: rewards.{name}.gate: {text}")


def check_routes(terms: Mapping[str, RewardConfig], examples: Iterable[Example], stage: str, data: str) -> None:
    """Raise a UserError if no reward scores a row; it names the row's task and the tasks of the rewards."""
    for example in examples:
        if not any(term.applies_to(example.task) for term in terms.values()):
            what = "without a task" if example.task is None else f'of task "{example.task}"'
            where = f" ({example.where})" if example.where else ""
            tasks = "; ".join(f"{name} scores {', '.join(term.tasks or [])}" for name, term in terms.items())
            raise UserError(
                f"stage {stage}: a row of data.{data} {what}{where} has no reward: {tasks}. Add its task to a reward's "
                "`tasks`, or remove `tasks` from a reward that should score every row."
            )
