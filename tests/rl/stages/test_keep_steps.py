"""Policies saved at intermediate steps equal those of a shorter stage, also after the stage was killed."""

import signal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import ReasoningGymData
from gemsmith.policy.config import LoraConfig, PolicyConfig
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.training.kept_checkpoints import kept_policy
from gemsmith.rl.rewards.config import MathReward
from gemsmith.rl.stages.reinforcement.config import BondStage, ReinforceStage
from gemsmith.rl.stages.reinforcement.stage import run as reinforce
from gemsmith.rl.stages.sft.config import SftStage
from gemsmith.rl.stages.sft.stage import run
from tests.messages import raises_facts
from tests.rl.stages.killable import STAGES
from tests.warm_python import WarmPython

pytestmark = pytest.mark.usefixtures("shallow_tiny")
SUMS = ReasoningGymData(source="reasoning_gym", task="chain_sum", size=60, synthesise={"right": 0.5})
FIELDS: dict[str, Any] = {
    "id": "sft", "kind": "sft", "policy": PolicyConfig(model="tiny"), "data": "sums", "batch": 4,
    "learning_rate": 1e-3, "schedule": "constant", "save_every": 2,
}  # fmt: skip


def stage_at(folder: Path, sink: Any = None) -> Stage:
    stage = Stage("sft", folder, 3, root=folder, data={"sums": SUMS})
    stage.sink = sink or stage.sink
    return stage


def trained(folder: Path, steps: int, **fields: Any) -> Path:
    stage = stage_at(folder)
    run(SftStage(steps=steps, **FIELDS, **fields), stage)
    return stage.output


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, dropout=0.1)])
def test_a_kept_policy_is_what_a_stage_of_so_many_steps_ends_with(tmp_path: Path, lora: LoraConfig | None):
    output = trained(tmp_path / "kept", 5, keep_steps=[2, 3], lora=lora)
    for step in (2, 3, 5):  # with a constant learning rate, a shorter run is a prefix of a longer one
        assert weights(kept_policy(output, step)) == weights(trained(tmp_path / f"{step}", step, lora=lora))
    load_policy(PolicyConfig(from_="sft"), {"sft": kept_policy(output, 2)})
    assert kept_policy(output, 5) == output


def test_a_killed_stage_keeps_the_same_and_writes_none_twice(tmp_path: Path, warm_python: WarmPython):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from gemsmith.contracts.stage import Silence\nfrom gemsmith.rl.stages.sft.config import SftStage\n"
        "from gemsmith.rl.stages.sft.stage import run\n"
        "from tests.rl.stages.test_keep_steps import FIELDS, stage_at\n"
        "from tests.shallow import make_tiny_shallow; make_tiny_shallow()\n"
        "class Killer(Silence):\n"
        "    def progress(self, done, total, unit, shown):\n"
        "        if done == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "run(SftStage(steps=5, keep_steps=[1, 3, 4], **FIELDS), stage_at(Path(sys.argv[1]), Killer()))\n"
    )
    killed = tmp_path / "killed"
    ran = warm_python.run(["-c", code, str(killed)])
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert sorted(path.name for path in (killed / "kept").iterdir()) == ["1", "3"]  # the checkpoint is of step 2
    before = {step: (killed / f"kept/{step}/model.safetensors").stat().st_mtime_ns for step in (1, 3)}
    output = trained(killed, 5, keep_steps=[1, 3, 4])
    assert {step: (killed / f"kept/{step}/model.safetensors").stat().st_mtime_ns for step in (1, 3)} == before
    whole = trained(tmp_path / "whole", 5, keep_steps=[1, 3, 4])
    for step in (1, 3, 4, 5):
        assert weights(kept_policy(output, step)) == weights(kept_policy(whole, step))


@pytest.mark.parametrize("name", ["bond", "reinforce", "grpo"])
def test_reinforcement_keeps_what_a_stage_of_so_many_steps_ends_with(tmp_path: Path, name: str):
    def trained(folder: Path, **fields: Any) -> Path:
        config = STAGES[name].model_copy(update={"schedule": "constant", "rewards": ["correct"], **fields})
        assert isinstance(config, BondStage | ReinforceStage)
        stage = Stage("s", folder, 3, root=folder, data={"sums": SUMS}, rewards={"correct": MathReward(kind="math")})
        reinforce(config, stage)
        return stage.output

    output = trained(tmp_path / "kept", keep_steps=[2])
    assert weights(kept_policy(output, 2)) == weights(trained(tmp_path / "two", steps=2))
    assert kept_policy(output, 6) == output


@pytest.mark.parametrize(
    ("steps", "facts"),
    [
        ([3, 2], ["keep_steps", "[3, 2]"]),
        ([2, 2], ["keep_steps", "[2, 2]"]),
        ([2, 5], ["keep_steps", "step 5"]),
        ([0], ["keep_steps", "equal to 1"]),
    ],
)
def test_steps_that_cannot_be_kept_are_refused(steps: list[int], facts: list[str]):
    with raises_facts(ValidationError, *facts):
        SftStage(steps=5, keep_steps=steps, **FIELDS)


def test_what_was_not_kept_is_not_found(tmp_path: Path):
    output = tmp_path / "output"
    with raises_facts(UserError, "kept.json"):
        kept_policy(output, 2)
    (tmp_path / "kept.json").write_text('{"2": "kept/2", "5": "output"}')
    with raises_facts(UserError, "step 3", "2, 5"):
        kept_policy(output, 3)
    with raises_facts(UserError, "kept/2"):
        kept_policy(output, 2)
