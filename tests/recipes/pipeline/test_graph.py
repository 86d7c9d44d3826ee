"""The stage graph: the order, what each stage builds on, and the defaults that are filled in."""

from pathlib import Path

from counting_stage import pipeline_of

from gemsmith.export.config import ExportStage
from gemsmith.policy.config import PolicyConfig
from gemsmith.recipes.pipeline.graph import build_graph


def test_the_order_is_the_files_own_where_no_edge_asks_otherwise(tmp_path: Path):
    stages = {"c": {}, "b": {"from": "d"}, "a": {}, "d": {"from": "a"}}
    # b waits for d, d for a; whenever one of them may run, the first in the file is taken.
    assert [node.id for node in pipeline_of(stages, tmp_path).nodes] == ["c", "a", "d", "b"]


def test_a_stage_without_policy_starts_from_the_recipes():
    node = build_graph(pipeline_configs(), {}, {}, PolicyConfig(model="tiny"))[0]
    assert node.config.policy == PolicyConfig(model="tiny")  # type: ignore[attr-defined]


def test_an_export_is_compared_with_what_its_own_stage_started_from():
    release = ExportStage(id="release", kind="export", policy=PolicyConfig.model_validate({"from": "b"}))
    nodes = {node.id: node for node in build_graph([*pipeline_configs(), release], {}, {}, PolicyConfig(model="tiny"))}
    assert nodes["release"].config.base.from_ == "a"  # type: ignore[attr-defined]
    assert nodes["release"].inputs == ("b", "a")


def pipeline_configs() -> list:
    from counting_stage import CountStage

    return [CountStage(id="a"), CountStage(id="b", policy=PolicyConfig.model_validate({"from": "a"}))]
