"""A recipe that is ready to run: checked, ordered, and each stage with its identity. Imports no torch."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.local import find_local
from gemsmith.contracts.planning import CheckContext, Keys
from gemsmith.contracts.stage import StageConfig
from gemsmith.contracts.suggestions import did_you_mean
from gemsmith.contracts.target import REWARDS, Target, find_target
from gemsmith.curation.config import FileData, PythonData
from gemsmith.policy.config import EngineConfig, PolicyConfig
from gemsmith.recipes.checks.plugins import check_defined, check_signature
from gemsmith.recipes.checks.routes import add_route_faults
from gemsmith.recipes.checks.trainings import check_trainings
from gemsmith.recipes.pipeline.files import names_a_file
from gemsmith.recipes.pipeline.generated import with_prompts
from gemsmith.recipes.pipeline.graph import Node, build_graph
from gemsmith.recipes.pipeline.identity import Settings, identities
from gemsmith.recipes.pipeline.mixtures import with_sections
from gemsmith.recipes.schema.faults import Faults
from gemsmith.recipes.schema.recipe import Recipe
from gemsmith.recipes.schema.source import Source, find_recipe, read_recipe, read_source
from gemsmith.rl.rewards.config import PythonReward

EVERY_CALL = ("answer", "task", "system", "finished", "completion_ids")


@dataclass(frozen=True)
class Pipeline:
    """A checked recipe: all settings of a run, and the text of the recipe."""

    name: str
    seed: int
    root: Path
    nodes: list[Node]
    data: Mapping[str, Any]
    rewards: Mapping[str, Any]
    engine: Any
    document: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    """Location of each stage, such as "file:line: stages.it", for errors that are found later."""
    remarks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What `validate` prints about a stage, by its id; stages without remarks are left out."""
    run: Path | None = None
    """Folder of the run, in which stages that an older version began keep their identity (`for_run`)."""

    @cached_property
    def identities(self) -> dict[str, str]:
        """Return the identity of each stage by its id; computed when it is first used, as it reads local files."""
        settings, run = Settings(self.nodes, self.data, self.rewards, self.engine, self.seed, self.root), self.run
        if run is None:
            return identities(settings)
        return identities(settings, lambda id, identity: (run / _folder(id, identity)).is_dir())

    def for_run(self, run: Path) -> "Pipeline":
        """Return the pipeline as it continues the run in this folder."""
        return replace(self, run=run)

    def folder(self, node: Node) -> str:
        """Return the folder of a stage, relative to the run's folder."""
        return _folder(node.id, self.identities[node.id])

    def targets(self, nodes: Sequence[Node]) -> list[Target]:
        """Return the reward functions that these stages use, with their options."""
        used = dict.fromkeys(name for node in nodes for name in node.rewards)
        plugins = [self.rewards[name] for name in used if isinstance(self.rewards[name], PythonReward)]
        found = [find_target(plugin.target, self.root, REWARDS) for plugin in plugins]
        return [replace(target, options=plugin.options) for target, plugin in zip(found, plugins, strict=True)]


def _folder(id: str, identity: str) -> str:
    return f"stages/{id}-{identity[:8]}"


def open_recipe(argument: str, sets: Sequence[str] = (), schema: type[Recipe] = Recipe) -> Pipeline:
    """Read and check a recipe: its schema, graph, reward functions and local files.

    Args:
        argument: path of a recipe, or the name of a shipped one.
        sets: overrides, such as "stages.sft.steps=10".
        schema: `Recipe`, or a subclass with more kinds of stages.

    Raises:
        UserError: the recipe has a fault; one line for each.
    """
    return open_source(read_source(find_recipe(argument), list(sets)), schema)


def open_source(source: Source, schema: type[Recipe] = Recipe) -> Pipeline:
    """Check a recipe that has been read, and make it ready to run.

    Raises:
        UserError: the recipe has a fault, as for `open_recipe`.
    """
    recipe = read_recipe(source, schema)
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(source.document, text)
    return build_pipeline(
        recipe.stages,
        name=recipe.name,
        seed=recipe.seed,
        root=source.root,
        policy=recipe.policy,
        data=recipe.data,
        rewards=recipe.rewards,
        engine=recipe.engine,
        document=text.getvalue(),
        faults=Faults(source.locate),
    )


def build_pipeline(
    stages: Sequence[StageConfig],
    *,
    name: str,
    root: Path,
    seed: int = 0,
    policy: PolicyConfig | None = None,
    data: Mapping[str, Any] | None = None,
    rewards: Mapping[str, Any] | None = None,
    engine: Any = None,
    document: str = "",
    faults: Faults | None = None,
) -> Pipeline:
    """Check and order stages of any kind, and compute their identities.

    Args:
        stages: the stages in the order of the recipe.
        name: name of the run.
        root: folder for relative paths.
        seed: seed of all random choices.
        policy: policy for stages that do not name one.
        data: data sections by name.
        rewards: rewards by name.
        engine: training engine; None means the defaults.
        document: text of the recipe, stored with the run.
        faults: locates fields for messages.

    Raises:
        UserError: the graph or a reward function's source has a fault, or a local file is missing.
    """
    data, rewards, engine, faults = data or {}, rewards or {}, engine or EngineConfig(), faults or Faults()
    data = with_sections(data, faults)
    nodes = build_graph(stages, data, rewards, policy, faults)
    data = with_prompts(data, nodes)
    for index, config in enumerate(stages):
        _check_models(config, ("stages", index), root, faults)
    if policy is not None:
        _check_models(policy, ("policy",), root, faults)
    for section, config in data.items():
        if isinstance(config, FileData) and not _is_file(find_local(root, config.path)):
            faults.add(("data", section, "path"), f"{_no_file(config.path, root)}, expected {config.format}")
        elif isinstance(config, PythonData):
            try:
                check_defined(find_target(config.target, root))
            except UserError as error:
                faults.add(("data", section, "target"), str(error))
    for reward, config in rewards.items():
        if isinstance(config, PythonReward):
            _check_plugin(reward, config, nodes, data, root, faults)
    by_id = {node.id: node.config for node in nodes}
    remarks = {}
    for index, stage in enumerate(stages):
        config = by_id[stage.id]
        context = CheckContext(config.id, index, by_id, data, rewards, engine, root, faults.add)
        config.check(context)
        check_trainings(config, index, by_id, engine, root, faults)
        if said := config.remarks(context):
            remarks[config.id] = said
    add_route_faults(stages, data, rewards, faults)
    faults.raise_if_any()
    places = {config.id: faults.locate(("stages", index)) for index, config in enumerate(stages)}
    return Pipeline(name, seed, root, nodes, data, rewards, engine, document, places, remarks)


def _check_models(config: Any, keys: Keys, root: Path, faults: Faults) -> None:
    """Add a fault for each policy whose `model` is not `tiny`, an existing local path, or a hub id."""
    for name, info in type(config).model_fields.items():
        value, here = getattr(config, name), (*keys, info.alias or name)
        if isinstance(value, BaseModel):
            _check_models(value, here, root, faults)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    _check_models(item, (*here, index), root, faults)
    if not isinstance(config, PolicyConfig) or config.model in (None, "tiny"):
        return
    if config.weights is None:  # `model` is the name that a server uses, not a path
        return
    assert config.model is not None
    if find_local(root, config.model) is not None:
        return
    if names_a_file(config.model):
        faults.add((*keys, "model"), f"{_no_file(config.model, root)}, expected a model folder or a .gguf file")
    elif "/" not in config.model:
        hint = did_you_mean(config.model, ["tiny"])
        expected = "expected tiny, a hub id such as google/gemma-3-1b-pt, a model folder or a .gguf file"
        faults.add((*keys, "model"), f'found "{config.model}", {expected}{hint}')


def _check_plugin(
    reward: str, config: PythonReward, nodes: Sequence[Node], data: Mapping[str, Any], root: Path, faults: Faults
) -> None:
    """Check the source of one reward function against the columns of every data section that it scores."""
    scored = [data[section] for node in nodes if reward in node.rewards for section in node.data]
    columns = {*EVERY_CALL, *(column for section in scored for column in section.columns)}
    try:
        check_signature(find_target(config.target, root, REWARDS), columns, list(config.options))
    except UserError as error:
        faults.add(("rewards", reward, "target"), str(error))


def _is_file(path: Path | None) -> bool:
    return path is not None and path.is_file()


def _no_file(name: str, root: Path) -> str:
    """Return a message such as `found no x in /recipe or /here, did you mean "y"`, with the nearest file name."""
    places = list(dict.fromkeys([root, Path.cwd()]))
    folders = [(place / Path(name).expanduser()).parent for place in places]
    near = [path.name for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    where = "" if Path(name).expanduser().is_absolute() else " in " + " or ".join(str(place) for place in places)
    return f"found no {name}{where}{did_you_mean(Path(name).name, near).rstrip('?')}"
