"""What trainings of one stage need of the rest of the recipe: steps that an SFT stage keeps, and an engine."""

from collections.abc import Sequence

from gemsmith.contracts.stage import StageConfig
from gemsmith.policy.config import EngineConfig
from gemsmith.recipes.pipeline.graph import Node
from gemsmith.recipes.schema.faults import Faults, Keys, listed
from gemsmith.reward_models.config import WarmStage
from gemsmith.rl.stages.sft.config import SftStage
from gemsmith.rl.stages.warp.config import WarpStage


def check_members(stages: Sequence[StageConfig], nodes: Sequence[Node], engine: EngineConfig, faults: Faults) -> None:
    """Members of `warm` start from steps that are kept, and several trainings at once are for plain torch.

    Args:
        stages: as in the file.
        nodes: the same with the recipe's policy filled in.
        engine: the recipe's.
        faults: gets what is wrong.
    """
    by_id = {node.id: node.config for node in nodes}
    for index, config in enumerate(stages):
        filled = by_id[config.id]
        crowded = filled.crowded if isinstance(filled, WarmStage | WarpStage) else None
        if crowded and (fault := crowded(1, deepspeed=engine.deepspeed is not None)):
            faults.add(("stages", index, "parallel"), fault)
        if isinstance(filled, WarmStage) and filled.starts:
            source = filled.policy.from_ if filled.policy is not None else None
            _check_starts(filled.starts, by_id.get(source or ""), ("stages", index, "starts"), faults)


def _check_starts(starts: Sequence[int], source: StageConfig | None, keys: Keys, faults: Faults) -> None:
    if not isinstance(source, SftStage):
        found = "no stage" if source is None else f'"{source.id}", of another kind'
        faults.add(keys, f"found {found} in policy.from, expected the stage of kind sft that keeps these steps")
        return
    known = [*source.keep_steps, source.steps]
    for place, step in enumerate(starts):
        if step not in known:
            faults.add(
                (*keys, place),
                f"found {step}, expected a step that stage {source.id} keeps, {listed(map(str, known))}: name it in "
                "that stage's keep_steps",
            )
