"""The WARP stage: points of its line as policies, their measured front, merges, and per-run overrides."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Silence, Stage
from gemsmith.curation.config import ReasoningGymData
from gemsmith.curation.load import load_data
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.liti_points import point_on_line, write_line
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
from gemsmith.policy.weight_set import WeightSet
from gemsmith.recipes.pipeline.pipeline import open_recipe
from gemsmith.rl.algorithms.bond_config import BondAlgorithm
from gemsmith.rl.algorithms.reinforce_config import ReinforceAlgorithm
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.config import MathReward, PythonReward
from gemsmith.rl.stages.warp.config import WarpStage
from gemsmith.rl.stages.warp.pareto_front import Measured, _answers, interval
from gemsmith.rl.stages.warp.stage import run
from tests.messages import raises_facts
from tests.warm_python import WarmPython

pytestmark = pytest.mark.usefixtures("shallow_tiny")
SUMS = ReasoningGymData(source="reasoning_gym", task="chain_sum", size=60, synthesise={"right": 0.5})
INNER: dict[str, Any] = {
    "data": "sums", "steps": 2, "batch": 4, "learning_rate": 1e-3, "rewards": ["short"], "anchor_rate": 0.3,
    "control": ["correct"], "sampling": {"max_tokens": 4},
}  # fmt: skip


def stage_at(folder: Path, sink: Any = None, start: Path | None = None) -> Stage:
    folder.mkdir(exist_ok=True)
    (folder / "short.py").write_text(
        "def short(prompts, completions, **columns):\n    return [-float(len(c)) for c in completions]\n"
    )
    rewards = {"short": PythonReward(kind="python", target="short.py:short"), "correct": MathReward(kind="math")}
    inputs = {"sft": start} if start is not None else {}
    stage = Stage("w", folder, 3, root=folder, data={"sums": SUMS}, rewards=rewards, inputs=inputs)
    stage.sink = sink or Silence()
    return stage


def warp(inner: dict[str, Any] | None = None, **fields: Any) -> WarpStage:
    algorithm = BondAlgorithm.model_validate({"kind": "bond", **INNER, **(inner or {})})
    return WarpStage(**{"id": "w", "kind": "warp", "policy": PolicyConfig(model="tiny"), "inner": algorithm, **fields})


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def tensors(policy: Policy) -> dict[str, Any]:
    return policy.model.state_dict()


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output of a stage of two iterations, which is the point at 0.25 of its line."""
    stage = stage_at(tmp_path_factory.mktemp("line") / "w")
    run(warp(iterations=2, output_rate=0.25), stage)
    return stage.output


def test_the_line_runs_from_the_stages_start_to_its_last_merge(line: Path):
    folder = line.parent
    assert weights(point_on_line(line, 0)) == weights(folder / "start")
    assert weights(point_on_line(line, 1)) == weights(folder / "iteration-1/merged")
    assert weights(point_on_line(line, 0.25)) == weights(line)
    assert weights(point_on_line(line, 0)) != weights(point_on_line(line, 1))


def test_a_point_beyond_the_merge_is_a_policy_like_any_other(line: Path):
    start, end, beyond = (
        tensors(load_policy(PolicyConfig.model_validate({"from": "w", "liti": rate}), {"w": line}))
        for rate in (0, 1, 1.5)
    )
    for name, values in beyond.items():  # start + 1.5 * (end - start)
        assert values.allclose(start[name] + 1.5 * (end[name] - start[name]), atol=1e-6)


def test_a_point_is_written_once(line: Path):
    written = point_on_line(line, 0.5) / "model.safetensors"
    before = written.stat().st_mtime_ns
    assert point_on_line(line, 0.5) / "model.safetensors" == written
    assert written.stat().st_mtime_ns == before


def test_a_stage_starts_from_a_point(line: Path, tmp_path: Path):
    stage = stage_at(tmp_path / "next", start=line)
    run(warp(policy=PolicyConfig.model_validate({"from": "sft", "liti": 0.5})), stage)
    assert weights(point_on_line(stage.output, 0)) == weights(point_on_line(line, 0.5))


def test_a_run_whose_folder_moved_keeps_its_lines(tmp_path: Path):
    before = Stage("w", tmp_path / "run/stages/w", 0, root=tmp_path)
    start = tmp_path / "run/stages/sft/output"
    save_policy(load_policy(PolicyConfig(model="tiny")), start)
    before.output.mkdir(parents=True)
    write_line(before, start, start)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert point_on_line(tmp_path / "moved/stages/w/output", 0) == tmp_path / "moved/stages/sft/output"
    with raises_facts(UserError, "line.json", "`liti`"):
        point_on_line(tmp_path / "moved/stages/sft/output", 0.5)


RECIPE = """\
name: points
policy: {model: tiny}
data:
  sums: {source: reasoning_gym, task: chain_sum, size: 100}
rewards:
  correct: {kind: math}
stages:
  - {id: sft, kind: sft, data: sums, steps: 4, batch: 8, learning_rate: 1e-3}
  - {id: w, kind: warp, policy: {from: sft}, inner: {kind: bond, data: sums, rewards: [correct], steps: 2, batch: 4,
     learning_rate: 1e-3}}
  - {id: out, kind: export, policy: {from: w, liti: 0.5}}
  - {id: scores, kind: evaluate, policies: [sft, w, w@0.5], data: sums, rewards: [correct]}
"""


def recipe(folder: Path, *sets: str) -> Any:
    (folder / "points.yaml").write_text(RECIPE)
    return open_recipe(str(folder / "points.yaml"), sets)


def test_the_rate_is_part_of_what_builds_on_it_and_of_nothing_else(tmp_path: Path):
    before = recipe(tmp_path).identities
    for stage, change in (("out", "policy.liti=0.3"), ("scores", "policies=[sft, w, w@2]")):
        after = recipe(tmp_path, f"stages.{stage}.{change}").identities
        assert {name for name in before if before[name] != after[name]} == {stage}


@pytest.mark.parametrize(
    ("assignment", "facts"),
    [
        ("stages.out.policy.from=sft", ["stages.out.policy.from", "liti", 0.5, '"sft"']),
        ("stages.scores.policies=[sft@0.5]", ["stages.scores.policies.0", "liti", 0.5, '"sft"']),
        ("stages.scores.policies=[w@half]", ["stages.scores.policies.0", '"w@half"']),
        ("stages.out.policy.liti=-1", ["stages.out.policy.liti", -1, 0]),
        ("stages.out.policy={model: tiny, liti: 1}", ["stages.out.policy", "`liti`", "`from`"]),
    ],
)  # fmt: skip
def test_a_point_of_no_line_is_refused(tmp_path: Path, assignment: str, facts: list[Any]):
    with raises_facts(UserError, *facts):
        recipe(tmp_path, assignment)


FRONT: dict[str, Any] = {"front": [0, 0.5, 1], "front_prompts": 3, "merge": "lerp"}


class Killer(Silence):
    """A sink that kills its process with SIGKILL after a number of progress messages."""

    def __init__(self, points: int) -> None:
        self.left = points

    def progress(self, done: int, total: int, unit: str, shown: Any) -> None:
        """Count the message, and kill the process at the last one."""
        self.left -= unit == "point"
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_front_goes_on_with_the_next_point_and_comes_to_the_same(tmp_path: Path, warm_python: WarmPython):
    whole = stage_at(tmp_path / "whole")
    run(warp(**FRONT), whole)
    code = (
        "import sys; from pathlib import Path; from gemsmith.rl.stages.warp.stage import run\n"
        "from tests.rl.stages.test_warp import FRONT, Killer, stage_at, warp\n"
        "from tests.shallow import make_tiny_shallow; make_tiny_shallow()\n"
        "run(warp(**FRONT), stage_at(Path(sys.argv[1]), Killer(2)))\n"
    )
    done = warm_python.run(["-c", code, str(tmp_path / "killed")], cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = [tmp_path / f"killed/front/{rate}.json" for rate in ("0.0", "0.5")]
    times = [path.stat().st_mtime_ns for path in kept]
    resumed = stage_at(tmp_path / "killed")
    run(warp(**FRONT), resumed)
    assert times == [path.stat().st_mtime_ns for path in kept]
    assert (whole.output / "warp.json").read_text() == (resumed.output / "warp.json").read_text()
    _check_front(json.loads((whole.output / "warp.json").read_text()))
    assert not (whole.folder / "front/0.5").exists()  # the weights of a point are temporary


def _check_front(report: dict[str, Any]) -> None:
    points = report["front"]["points"]
    assert [point["rate"] for point in points] == [0, 0.5, 1]
    assert points[0]["kl"] == {"low": 0, "mean": 0, "high": 0}  # the KL of the start to itself
    assert points[2]["kl"]["mean"] != 0
    for point in points:
        assert point["prompts"] == 3
        assert point["reward"] == point["rewards"]["short"]
        assert 0 <= point["control"]["correct"]["mean"] <= 1
        assert point["reward"]["low"] <= point["reward"]["mean"] <= point["reward"]["high"]
    runs = report["front"]["trajectory"]
    assert [len(each["points"]) for each in runs] == [INNER["steps"]] * 2
    assert runs[0]["points"][0][0] == pytest.approx(0, abs=1e-5)  # before the first update
    assert all(group["shares"] == [0.5, 0.5] for group in report["merges"][0]["groups"])  # merge: lerp


def test_a_completion_of_the_front_does_not_depend_on_the_share_that_its_prompt_is_in(tmp_path: Path):
    stage, config = stage_at(tmp_path), warp()
    policy = load_policy(PolicyConfig(model="tiny"))
    examples = load_data(SUMS, name="sums", seed=3, root=tmp_path).test[:5]
    with open_rewards(["short"], stage) as rewards, open_rewards(["correct"], stage) as control:
        sampler, initial = TransformersSampler(policy, config.inner.sampling), WeightSet(policy.model)

        def answered(part: slice) -> list[Measured]:
            judges = rewards, control
            return _answers(config.inner, stage, policy, initial, sampler, judges, examples[part], part.start)

        whole = answered(slice(0, 5))
        shares = answered(slice(0, 3)) + answered(slice(3, 5)) + answered(slice(5, 5))
    assert [answer.length for answer in shares] == [answer.length for answer in whole]
    assert [answer.reward for answer in shares] == [answer.reward for answer in whole]


def test_a_front_needs_held_out_prompts_before_anything_is_trained(tmp_path: Path):
    stage = stage_at(tmp_path / "w")
    stage.data = {"sums": SUMS.model_copy(update={"holdout": 0.0})}
    with raises_facts(UserError, "stage w", "`front`", "data.sums", 0, "`holdout`"):
        run(warp(**FRONT), stage)
    assert not (stage.folder / "metrics.jsonl").exists()


def test_an_interval_is_students():
    # mean 2, deviations -1 0 1: s = sqrt(2 / 2) = 1, s / sqrt(3) = 0.577; t with two degrees of freedom is 4.303
    found = interval([1.0, 2.0, 3.0])
    assert found == pytest.approx({"low": 2 - 4.3027 / 3**0.5, "mean": 2.0, "high": 2 + 4.3027 / 3**0.5}, rel=1e-4)


def test_a_front_is_of_single_turns():
    inner = {"kind": "reinforce", "kl_to": "anchor", "turns": 3, **INNER, "control": []}
    with raises_facts(ValueError, "`front`", "inner.turns is 3"):
        WarpStage(id="w", kind="warp", front=[0, 1], inner=ReinforceAlgorithm.model_validate(inner))


def test_rates_of_a_front_rise():
    with raises_facts(ValueError, "front", "[0.0, 1.0, 0.5]"):
        warp(front=[0, 1, 0.5])


def test_runs_take_their_changes_in_turn_and_iterations_their_steps():
    vary = [{}, {"learning_rate": 1e-4, "sampling": {"temperature": 0.9}}]
    config = warp(runs=3, iterations=2, vary=vary, iteration_steps=[9, 7])
    assert [run.learning_rate for run in config.run_configs] == [1e-3, 1e-4, 1e-3] * 2
    assert [run.steps for run in config.run_configs] == [9] * 3 + [7] * 3
    assert config.run_config(0, 1).sampling.max_tokens == 4  # from `inner`: only the temperature is overridden
    assert config.run_config(0, 1).sampling.temperature == 0.9


def test_a_run_may_set_a_field_to_null():
    inner = {**INNER, "kind": "reinforce", "kl_to": "anchor"}
    inner.pop("anchor_rate", None)
    fields = {"id": "w", "kind": "warp", "policy": {"model": "tiny"}, "runs": 2}
    config = WarpStage.model_validate({**fields, "inner": inner, "vary": [{}, {"clip": None}]})
    assert [run.clip for run in config.run_configs] == [[0.2, 0.2], None]


def test_runs_may_differ_in_steps_and_rewards(tmp_path: Path):
    stage = stage_at(tmp_path / "w")
    run(warp(vary=[{"steps": 1}, {"rewards": ["correct"], "control": ["short"], "learning_rate": 0}]), stage)
    rows = [json.loads(line) for line in (stage.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["run"], row["step"]) for row in rows] == [(0, 1), (1, 1), (1, 2)]
    assert "reward/short" in rows[0]
    assert {"reward/correct", "control/short"} < rows[1].keys()
    merge = json.loads((stage.output / "warp.json").read_text())["merges"][0]
    assert all(group["norms"][1] == 0 for group in merge["groups"])  # a learning rate of 0 changes no weights


@pytest.mark.parametrize(
    ("assignment", "facts"),
    [
        ("stages.w.vary=[{}, {learning_rat: 1}]", ["vary.1.learning_rat", '"learning_rat"']),
        ("stages.w.vary=[{learning_rate: -1}]", ["vary.0.learning_rate", -1, 0]),
        ("stages.w.vary=[{rewards: [corect]}]", ["vary.0.rewards.0", '"corect"']),
        ("stages.w.vary=[{kl: 0.1}]", ["vary.0: kl", "kind bond"]),
        ("stages.w.vary=[{micro_batch: 3}]", ["vary.0", "micro_batch", 3, "batch", 4]),
        ("stages.w.vary=[{}, {}, {}]", ["vary has 3", "runs is 2"]),
        ("stages.w.iteration_steps=[2, 2]", ["iteration_steps has 2", "iterations is 1"]),
        ("stages.w.vary=[{anchor: fixed}]", ["`anchor: fixed`"]),
    ],
)
def test_a_change_that_does_not_fit_is_refused(tmp_path: Path, assignment: str, facts: list[Any]):
    with raises_facts(UserError, *facts):
        recipe(tmp_path, assignment)


@pytest.mark.slow
def test_runs_at_once_come_to_what_they_come_to_in_turn(tmp_path: Path):
    """Parallel runs give the same weights as sequential runs; every process uses one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    vary = [{}, {"rewards": ["correct"], "control": []}]
    stages = [stage_at(tmp_path / name, Listener()) for name in ("in-turn", "at-once")]
    for parallel, stage in enumerate(stages, start=1):
        run(warp(vary=vary, parallel=parallel), stage)
    torch.set_num_threads(threads)
    in_turn, at_once = stages
    assert weights(in_turn.output) == weights(at_once.output)
    rows = [
        sorted((stage.folder / "metrics.jsonl").read_text().count(f'"run": {run}') for run in (0, 1))
        for stage in stages
    ]
    assert rows == [[2, 2], [2, 2]]
    assert "training 2 runs at once, with one thread each" in at_once.sink.said
    assert at_once.sink.told[-1] == (4, 4)


class Listener(Silence):
    """A sink that records messages and progress."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.told: list[tuple[int, int]] = []

    def say(self, message: str) -> None:
        """Record the call."""
        self.said.append(message)

    def progress(self, done: int, total: int, unit: str, shown: Any) -> None:
        """Record the call."""
        self.told.append((done, total))


def test_runs_at_once_are_for_plain_torch(tmp_path: Path):
    with raises_facts(UserError, "w.parallel", "parallel 2", "DeepSpeed"):
        recipe(tmp_path, "stages.w.parallel=2", "engine.deepspeed={}")
