"""The stage graph: the references of each stage, their checks, and the order in which stages run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from gemsmith.contracts.planning import Keys
from gemsmith.contracts.stage import OutputKind, StageConfig
from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.curation.config import Mixture
from gemsmith.policy.config import PolicyConfig
from gemsmith.recipes.schema.faults import Faults

Wanted = Literal["policy", "reward_model", "teacher", "answers", "data", "reward"]
OUTPUTS: dict[Wanted, tuple[OutputKind, ...]] = {
    "policy": ("policy",),
    "reward_model": ("reward_model",),
    "teacher": ("policy", "targets"),
    "answers": ("data",),
}
"""Output kinds that a stage may have, by the kind of reference to it; "data" and "reward" refer to recipe sections."""

STAGE_FIELDS = ("policies", "initial", "better", "than")
REWARD_FIELDS = ("rewards", "control", "passes")
DATA_FIELDS = ("data",)


@dataclass(frozen=True)
class Reference:
    """A name in a recipe that refers to a stage, a reward or a data section.

    `liti` selects a point on the line that a `warp` stage keeps, as a rate.
    """

    keys: Keys
    name: str
    wanted: Wanted
    liti: float | None = None


@dataclass(frozen=True)
class Node:
    """A stage with its defaults filled in and all its dependencies, in order of mention with the policy first."""

    config: StageConfig
    inputs: tuple[str, ...]
    data: tuple[str, ...]
    rewards: tuple[str, ...]

    @property
    def id(self) -> str:
        """Return the id of the stage."""
        return self.config.id

    @property
    def kind(self) -> str:
        """Return the kind of the stage, as in the recipe."""
        return self.config.kind


def references(config: BaseModel, keys: Keys = ()) -> Iterator[Reference]:
    """Yield every reference in a configuration, including nested models.

    The field's name decides what it refers to. A policy's `from` and the fields of STAGE_FIELDS name stages (`ID`, or
    `ID@RATE` for a point on a warp stage's line); `rewards`, `control` and `passes` name rewards; `data` names a data
    section; any other `from` names a stage whose output has the kind of the class attribute `refers_to`.
    """
    wanted_by_field: dict[str, Wanted] = {
        **dict.fromkeys(STAGE_FIELDS, "policy"),
        **dict.fromkeys(REWARD_FIELDS, "reward"),
        **dict.fromkeys(DATA_FIELDS, "data"),
    }
    for name, info in type(config).model_fields.items():
        here, value = (*keys, info.alias or name), getattr(config, name)
        if name == "from_" and isinstance(value, str):
            wanted: Wanted = getattr(type(config), "refers_to", "policy")
            yield Reference(here, value, wanted, getattr(config, "liti", None))
        elif isinstance(value, BaseModel):
            yield from references(value, here)
        elif name in wanted_by_field and isinstance(value, str):
            yield _reference(here, value, wanted_by_field[name])
        elif isinstance(value, dict):
            for key, item in value.items():
                if isinstance(item, BaseModel):
                    yield from references(item, (*here, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from references(item, (*here, index))
                elif name in wanted_by_field and isinstance(item, str):
                    yield _reference((*here, index), item, wanted_by_field[name])


def _reference(keys: Keys, name: str, wanted: Wanted) -> Reference:
    if wanted == "policy" and "@" in name:
        with suppress(ValueError):  # a malformed rate is reported later, as an unknown stage
            policy = PolicyConfig.named(name)
            return Reference(keys, str(policy.from_), wanted, policy.liti)
    return Reference(keys, name, wanted)


def build_graph(
    stages: Sequence[StageConfig],
    data: Mapping[str, Any],
    rewards: Mapping[str, Any],
    policy: PolicyConfig | None = None,
    faults: Faults | None = None,
) -> list[Node]:
    """Return the stages in the order to run them: the file's order, unless a stage refers to a later one.

    Args:
        stages: the stages in the order of the file.
        data: the recipe's data sections by name.
        rewards: the recipe's rewards by name.
        policy: policy for stages that do not name one.
        faults: locates fields for messages.

    Raises:
        UserError: two stages have the same id, a name refers to nothing or to the wrong kind of thing, or the graph
            has a cycle.
    """
    faults = faults or Faults()
    _check_ids(stages, faults)
    faults.raise_if_any()
    filled = _fill(stages, policy)
    by_id = {config.id: config for config in filled}
    nodes = {}
    for index, config in enumerate(filled):
        found = list(references(config, ("stages", index)))
        for reference in found:
            _check(reference, by_id, data, rewards, faults)
        _check_once(found, faults)
        named = {"reward": rewards, "data": data}
        used = [named[ref.wanted][ref.name] for ref in found if ref.name in named.get(ref.wanted, ())]
        nodes[config.id] = _node(config, found + [more for section in used for more in references(section)])
    for kind, sections in (("rewards", rewards), ("data", data)):
        for name, section in sections.items():
            if isinstance(section, Mixture):  # its parts are sections themselves and are checked as such
                continue
            for reference in references(section, (kind, name)):
                _check(reference, by_id, data, rewards, faults)
    faults.raise_if_any()
    return _in_order(nodes, faults)


def _node(config: StageConfig, found: list[Reference]) -> Node:
    found = sorted(found, key=lambda reference: "policy" not in reference.keys)

    def names(*wanted: Wanted) -> tuple[str, ...]:
        return tuple(dict.fromkeys(reference.name for reference in found if reference.wanted in wanted))

    return Node(config, names(*OUTPUTS), names("data"), names("reward"))


def _check_ids(stages: Sequence[StageConfig], faults: Faults) -> None:
    first: dict[str, int] = {}
    for index, config in enumerate(stages):
        if config.id in first:
            where = faults.locate(("stages", first[config.id], "id"))
            faults.add(
                ("stages", index, "id"),
                f'found "{config.id}" a second time, expected a unique id (first used at {where})',
            )
        first.setdefault(config.id, index)


def _fill(stages: Sequence[StageConfig], policy: PolicyConfig | None) -> list[StageConfig]:
    """Fill in the recipe's policy and inherited settings for stages that do not set them."""
    filled = [config.with_policy(policy) for config in stages]
    by_id = {config.id: config for config in filled}
    return [config.with_inherited(by_id) for config in filled]


def _check(
    reference: Reference,
    stages: Mapping[str, StageConfig],
    data: Mapping[str, Any],
    rewards: Mapping[str, Any],
    faults: Faults,
) -> None:
    """Add a fault if the reference is unknown, or names a stage with the wrong kind of output."""
    name, wanted = reference.name, reference.wanted
    if wanted in ("data", "reward"):
        known, thing = (data, "data section") if wanted == "data" else (rewards, "reward")
        if name not in known:
            expected = f"expected {listed(known)}{did_you_mean(name, known)}"
            faults.add(reference.keys, f'found the unknown {thing} "{name}", {expected}')
        return
    outputs = OUTPUTS[wanted]
    fitting = [stage for stage, config in stages.items() if config.produces in outputs]
    expected = f"expected a stage whose output is {' or '.join(map(_article, outputs))}: {listed(fitting)}"
    if name not in stages:
        faults.add(reference.keys, f'found the unknown stage "{name}", {expected}{did_you_mean(name, fitting)}')
    elif name not in fitting:
        faults.add(reference.keys, f'found "{name}", whose output is {_article(stages[name].produces)}, {expected}')
    elif reference.liti is not None and not stages[name].keeps_line:
        lines = listed(stage for stage, config in stages.items() if config.keeps_line)
        found = f'found the rate (liti) {reference.liti:g} of "{name}", which keeps no line of policies'
        faults.add(reference.keys, f"{found}, expected a stage that keeps a line: {lines}")


def _check_once(found: Sequence[Reference], faults: Faults) -> None:
    """Add a fault for each name that a list contains twice."""
    seen = set()
    for reference in found:
        place = (reference.keys[:-1], reference.name, reference.liti)
        if isinstance(reference.keys[-1], int) and place in seen:
            more = "; set its `weight` to change how much it counts" if reference.wanted == "reward" else ""
            faults.add(
                reference.keys, f'found "{reference.name}" a second time, expected each {reference.wanted} once{more}'
            )
        seen.add(place)


def _article(output: str) -> str:
    noun = output.replace("_", " ")
    if noun.endswith("s") or noun == "data":
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _in_order(nodes: Mapping[str, Node], faults: Faults) -> list[Node]:
    """Return the stages in topological order; among stages that are ready, the first in the file comes first."""
    ordered: dict[str, Node] = {}
    while len(ordered) < len(nodes):
        ready = (n for n in nodes.values() if n.id not in ordered and all(name in ordered for name in n.inputs))
        following = next(ready, None)
        if following is None:
            path = _cycle({name: node for name, node in nodes.items() if name not in ordered})
            index = list(nodes).index(path[0])
            faults.add(
                ("stages", index), f"found a cycle, {' -> '.join(path)}; expected stages to build on earlier ones"
            )
            faults.raise_if_any()
        assert following is not None
        ordered[following.id] = following
    return list(ordered.values())


def _cycle(stuck: Mapping[str, Node]) -> list[str]:
    """Return one cycle among stages that wait for each other; it starts and ends with the same id.

    In the list, each stage builds on the next one.
    """
    path = [next(iter(stuck))]
    while True:
        following = next(name for name in stuck[path[-1]].inputs if name in stuck)
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)
