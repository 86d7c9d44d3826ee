"""A recipe made ready to run: checked, ordered, and each stage with its identity. Imports no torch."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.local import find_local
from gemsmith.contracts.stage import StageConfig
from gemsmith.contracts.suggestions import did_you_mean
from gemsmith.contracts.target import REWARDS, Target, find_target
from gemsmith.curation.config import JsonLinesData, PythonData
from gemsmith.evals.config import EvaluateStage
from gemsmith.export.config import ExportStage
from gemsmith.policy.config import EngineConfig, PolicyConfig, TrainingConfig
from gemsmith.recipes.checks.demonstrations import check_demonstrations
from gemsmith.recipes.checks.members import check_members
from gemsmith.recipes.checks.plugins import check_defined, check_signature
from gemsmith.recipes.checks.routes import add_route_faults
from gemsmith.recipes.checks.teachers import check_teachers
from gemsmith.recipes.checks.vocabulary import check_entries
from gemsmith.recipes.pipeline.files import names_a_file
from gemsmith.recipes.pipeline.generated import with_prompts
from gemsmith.recipes.pipeline.graph import Node, build_graph
from gemsmith.recipes.pipeline.identity import identities
from gemsmith.recipes.pipeline.mixtures import with_sections
from gemsmith.recipes.pipeline.origins import inherited_context
from gemsmith.recipes.schema.faults import Faults, Keys
from gemsmith.recipes.schema.source import find_recipe, read_recipe, read_source
from gemsmith.rl.algorithms.config import BondAlgorithm, ReinforceAlgorithm, RolloutConfig
from gemsmith.rl.rewards.compatibility import gate_fault, turns_fault
from gemsmith.rl.rewards.config import PythonReward
from gemsmith.rl.stages.distill.config import DistillStage
from gemsmith.rl.stages.generate.config import GenerateStage
from gemsmith.rl.stages.qat.config import QatStage
from gemsmith.rl.stages.sft.config import SftStage
from gemsmith.rl.teachers.config import TeacherConfig

EVERY_CALL = ("answer", "task", "system", "finished", "completion_ids")


@dataclass(frozen=True)
class Pipeline:
    """Everything that a run needs to know, and the text of the recipe that it came from."""

    name: str
    seed: int
    root: Path
    nodes: list[Node]
    identities: dict[str, str]
    data: Mapping[str, Any]
    rewards: Mapping[str, Any]
    engine: Any
    document: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    """Where each stage stands, as "file:line: stages.it", for what is found out later."""

    def folder(self, node: Node) -> str:
        """Folder of a stage inside the run's folder."""
        return f"stages/{node.id}-{self.identities[node.id][:8]}"

    def targets(self, nodes: Sequence[Node]) -> list[Target]:
        """The reward functions that these stages use, with their options."""
        used = dict.fromkeys(name for node in nodes for name in node.rewards)
        plugins = [self.rewards[name] for name in used if isinstance(self.rewards[name], PythonReward)]
        found = [find_target(plugin.target, self.root, REWARDS) for plugin in plugins]
        return [replace(one, options=plugin.options) for one, plugin in zip(found, plugins, strict=True)]


def open_recipe(argument: str, sets: Sequence[str] = ()) -> Pipeline:
    """Read and check a recipe, by path or by the name of a shipped one, with the command line's overrides.

    Raises:
        UserError: anything that is wrong with it; schema, graph, reward functions and local files are all looked at.
    """
    source = read_source(find_recipe(argument), list(sets))
    recipe = read_recipe(source)
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
    """Check and order stages of any kind, and give each its identity.

    Raises:
        UserError: a fault in the graph, in a reward function's source, or a local file that is not there.
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
        if isinstance(config, JsonLinesData) and not _is_file(find_local(root, config.path)):
            faults.add(("data", section, "path"), f"{_no_file(config.path, root)}, expected a JSON lines file")
        elif isinstance(config, PythonData):
            try:
                check_defined(find_target(config.target, root))
            except UserError as error:
                faults.add(("data", section, "target"), str(error))
    for reward, config in rewards.items():
        if isinstance(config, PythonReward):
            _check_plugin(reward, config, nodes, data, root, faults)
    _check_passes(stages, rewards, faults)
    _check_gates(stages, rewards, faults)
    add_route_faults(stages, data, rewards, faults)
    _check_lengths(stages, nodes, root, faults)
    _check_sharing(stages, engine, faults)
    check_members(stages, nodes, engine, faults)
    check_demonstrations(stages, data, faults)
    check_teachers(stages, data, faults)
    check_entries(stages, nodes, root, faults)
    _check_exports(stages, faults)
    faults.raise_if_any()
    known = identities(nodes, data, rewards, engine, seed, root)
    places = {config.id: faults.locate(("stages", index)) for index, config in enumerate(stages)}
    return Pipeline(name, seed, root, nodes, known, data, rewards, engine, document, places)


def _check_models(config: Any, keys: Keys, root: Path, faults: Faults) -> None:
    """Every policy that is named by weights: `tiny`, something on this disk, or a hub id."""
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
    if isinstance(config, TeacherConfig) and config.weights is None:  # the name under which a server serves
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
    """The source of one reward function, against the columns of every data section that it scores."""
    scored = [data[section] for node in nodes if reward in node.rewards for section in node.data]
    columns = {*EVERY_CALL, *(column for section in scored for column in section.columns)}
    try:
        check_signature(find_target(config.target, root, REWARDS), columns, list(config.options))
    except UserError as error:
        faults.add(("rewards", reward, "target"), str(error))


def _check_gates(stages: Sequence[StageConfig], rewards: Mapping[str, Any], faults: Faults) -> None:
    """What is learnt must be learnt with its gate, and over several turns from the tests of programs."""
    for config in stages:
        for learner in (config, *getattr(config, "run_configs", ())):
            if isinstance(learner, RolloutConfig | DistillStage) and (
                fault := gate_fault({n: rewards[n] for n in learner.rewards})
            ):
                faults.add(("rewards", fault[0], "gate"), f"stage {config.id}: {fault[1]}")
            if isinstance(learner, ReinforceAlgorithm) and learner.turns > 1:
                unfit = turns_fault(rewards[learner.rewards[0]])
                if unfit is not None:
                    faults.add(("rewards", learner.rewards[0]), f"stage {config.id}: {unfit}")


def _check_passes(stages: Sequence[StageConfig], rewards: Mapping[str, Any], faults: Faults) -> None:
    """An evaluation must know which reward counts as a pass, and report it."""
    for index, config in enumerate(stages):
        if not isinstance(config, EvaluateStage):
            continue
        named, passes = config.rewards, config.named_passes
        if not passes and not any(getattr(rewards.get(name), "ground_truth", False) for name in named):
            faults.add(
                ("stages", index), "found no ground-truth reward among its rewards, expected `passes` to name one"
            )
        for passing in (name for name in passes if name not in named):
            faults.add(("stages", index, "passes"), f'found "{passing}", expected one of the stage\'s own rewards')


def _check_lengths(stages: Sequence[StageConfig], nodes: Sequence[Node], root: Path, faults: Faults) -> None:
    """No training on sequences beyond the context of its policy, where that is known before anything runs.

    And no completions that leave no room for a prompt.
    """
    configs = {node.id: node.config for node in nodes}
    for index, config in enumerate(stages):
        if isinstance(config, DistillStage) and config.on_policy and config.sampling.max_tokens >= config.max_length:
            expected = f"expected less than max_length, which is {config.max_length}, to leave room for a prompt"
            faults.add(("stages", index, "sampling", "max_tokens"), f"found {config.sampling.max_tokens}, {expected}")
        context = inherited_context(configs[config.id], configs, root)
        if isinstance(config, GenerateStage) and context is not None and config.sampling.max_tokens >= context:
            expected = f"expected less than the policy's context of {context} tokens, to leave room for a prompt"
            faults.add(("stages", index, "sampling", "max_tokens"), f"found {config.sampling.max_tokens}, {expected}")
        for name, training in (("", config), ("inner", getattr(config, "inner", None))):
            stated = training.stated_length if isinstance(training, TrainingConfig) else None
            if context is not None and stated is not None and stated > context:
                keys: Keys = ("stages", index, "max_length") if not name else ("stages", index, name, "max_length")
                longer = "or lengthen it with `policy: {rope: {factor: ...}}`"
                faults.add(keys, f"found {stated}, expected at most the policy's context of {context} tokens, {longer}")


def _check_sharing(stages: Sequence[StageConfig], engine: EngineConfig, faults: Faults) -> None:
    """What shares sequences, and what is under DeepSpeed, is of a kind that can be."""
    for index, config in enumerate(stages):
        if isinstance(config, BondAlgorithm) and config.quantile == "classifier" and engine.deepspeed is not None:
            expected = "expected samples under engine.deepspeed, which would not train the classifier"
            faults.add(("stages", index, "quantile"), f"found classifier, {expected}")
        trains = isinstance(config, TrainingConfig) or isinstance(getattr(config, "inner", None), TrainingConfig)
        if engine.sequence_parallel > 1 and trains and not isinstance(config, SftStage):
            faults.add(
                ("engine", "sequence_parallel"),
                f'found {engine.sequence_parallel}, expected 1, as stage "{config.id}" is not of kind sft, which alone '
                "can share sequences",
            )


def _check_exports(stages: Sequence[StageConfig], faults: Faults) -> None:
    """A four-bit file is of a policy that was trained for its grid, if for one, and an adapter of one that has it."""
    by_id = {config.id: config for config in stages}
    for index, config in enumerate(stages):
        if not isinstance(config, ExportStage):
            continue
        source = by_id.get(config.policy.from_ or "")
        four_bits = "gguf" in config.formats and config.gguf == "q4_0"
        if four_bits and isinstance(source, QatStage) and source.format != "q4_0":
            expected = f'expected f16 or q8_0, as stage "{source.id}" trains for {source.format}'
            faults.add(("stages", index, "gguf"), f"found q4_0, {expected}")
        if "adapter" in config.formats and (source is not None or config.policy.model == "tiny"):
            if isinstance(source, TrainingConfig) and source.lora is not None:
                continue
            whose = "tiny, which has none" if source is None else f'stage "{source.id}", which trains without `lora`'
            place = config.formats.index("adapter")
            faults.add(("stages", index, "formats", place), f"found adapter of {whose}: leave it out")


def _is_file(path: Path | None) -> bool:
    return path is not None and path.is_file()


def _no_file(name: str, root: Path) -> str:
    """`found no file x in /recipe or in /here, did you mean "y"?`, with the nearest file of its folder."""
    places = list(dict.fromkeys([root, Path.cwd()]))
    folders = [(place / Path(name).expanduser()).parent for place in places]
    near = [path.name for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    where = "" if Path(name).expanduser().is_absolute() else " in " + " or ".join(str(place) for place in places)
    return f"found no {name}{where}{did_you_mean(Path(name).name, near).rstrip('?')}"
