"""WARM end to end on a tiny Gemma 3."""

import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from gemsmith.contracts.errors import UserError
from gemsmith.policy.config import LoraConfig
from gemsmith.reward_models.bradley_terry import Accuracy, accuracy
from gemsmith.reward_models.config import WarmStage
from gemsmith.reward_models.member import MemberPlan, member_plans, train_member
from gemsmith.reward_models.model import load_reward_model, load_tokenizer
from gemsmith.reward_models.pairs import Pair, both_sides
from gemsmith.reward_models.scorer import RewardScorer, score_sequences
from gemsmith.reward_models.warm import best_members, halves, run
from tests.messages import raises_facts
from tests.reward_models.stages import STEPS, warm_stage, write_pairs
from tests.warm_python import WarmPython
from tests.weights.checkpoint_difference import difference

pytestmark = pytest.mark.usefixtures("shallow_tiny")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("warm")
    write_pairs(root / "pairs.jsonl")
    return root


@pytest.fixture(scope="module")
def finished(root: Path) -> Path:
    """Return the folder of a stage that ran without interruption."""
    config, stage = warm_stage(root / "stage", root, keep=2, connectivity=True)
    run(config, stage)
    return stage.folder


def summary(folder: Path) -> dict:
    return json.loads((folder / "output" / "warm.json").read_text())


def on_all_pairs(folder: Path, name: str) -> Accuracy:
    """Return the accuracy on all held-out pairs, two per prompt: those that select and those that are reported."""
    rewards = json.loads((folder / "held_out" / f"{name}.json").read_text())
    return accuracy([chosen - rejected for chosen, rejected in rewards], independent=len(rewards) // 2)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_training_lowers_the_loss_and_beats_chance(finished: Path):
    for member in range(3):
        losses = [row["loss"] for row in rows(finished) if row.get("member") == member and "loss" in row]
        assert len(losses) == STEPS and sum(losses[STEPS // 2 :]) < sum(losses[: STEPS // 2])
    for name in ("member-0", "member-1", "member-2", "average"):
        assert on_all_pairs(finished, name).low > 0.5
    found = summary(finished)
    for model in (*found["members"], found["average"], found["ensemble"]):
        assert model["accuracy"]["low"] <= model["accuracy"]["mean"] <= model["accuracy"]["high"]


def test_calibration_length_and_tasks_are_told_of_every_model(finished: Path):
    found = summary(finished)
    for model in (*found["members"], found["average"], found["ensemble"], found["probe"]):
        assert 0 <= model["calibration_error"] <= 1 and model["log_loss"] > 0
        assert model["length_correlation"] is None  # all numbers have two digits, and the tokenizer is of characters
        tasks = model["by_task"]
        assert set(tasks) == {"even", "odd"}
        assert sum(subset["pairs"] for subset in tasks.values()) == found["pairs"]["reported_on"]
        right = sum(subset["accuracy"]["mean"] * subset["pairs"] for subset in tasks.values())
        assert right == pytest.approx(model["accuracy"]["mean"] * found["pairs"]["reported_on"])
    kept = [found["members"][member]["mean_reward"] for member in found["kept"]]
    assert found["ensemble"]["mean_reward"] == pytest.approx(sum(kept) / len(kept))


def test_members_share_the_probed_head_at_the_start_and_differ_in_the_end(finished: Path):
    probe = weights(finished / "probe")
    assert probe["score.weight"].abs().max() > 0
    members = [weights(finished / "members" / str(member)) for member in range(3)]
    heads = [member["score.weight"] for member in members]
    for head in heads:  # still near the shared start, which fresh heads would not be
        assert torch.cosine_similarity(head, probe["score.weight"], dim=1).item() > 0.9
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert any(not torch.equal(members[a][name], members[b][name]) for name in members[a])
    assert any(not torch.equal(members[0][name], probe[name]) for name in probe if "layers" in name)


def test_output_is_the_mean_of_the_best_members(finished: Path):
    found = summary(finished)
    accuracies = [member["selected_by"] for member in found["members"]]
    assert found["kept"] == best_members(dict(enumerate(accuracies)), 2)
    assert [member["kept"] for member in found["members"]] == [member in found["kept"] for member in range(3)]
    kept = [weights(finished / "members" / str(member)) for member in found["kept"]]
    for name, tensor in weights(finished / "output").items():
        assert torch.allclose(tensor, (kept[0][name] + kept[1][name]) / 2, atol=1e-7)


def test_output_loads_in_transformers_and_scores_like_the_ensemble(finished: Path):
    assert AutoModelForSequenceClassification.from_pretrained(finished / "output").config.num_labels == 1
    prompts, completions = [[{"role": "user", "content": "Number 1"}]] * 5, ["15", "35", "55", "75", "95"]
    of_average = RewardScorer(finished / "output", 5).score(prompts, completions)
    kept = [
        RewardScorer(finished / "members" / str(m), 5).score(prompts, completions) for m in summary(finished)["kept"]
    ]
    of_ensemble = [sum(scores) / 2 for scores in zip(*kept, strict=True)]
    spread = max(of_ensemble) - min(of_ensemble)
    assert of_average[0] < of_average[-1]
    assert centred(of_average) == pytest.approx(centred(of_ensemble), abs=0.15 * spread)  # to first order (Obs. 2)


def centred(rewards: list[float]) -> list[float]:
    """Subtract the mean reward, because preferences do not determine the offset."""
    return [reward - sum(rewards) / len(rewards) for reward in rewards]


def test_best_members_are_best_first_and_ties_go_to_the_earlier():
    assert best_members({0: 0.6, 1: 0.9, 2: 0.6, 3: 0.8}, None) == [1, 3, 0, 2]
    assert best_members({0: 0.6, 1: 0.9, 2: 0.6, 3: 0.8}, 3) == [1, 3, 0]


def test_members_take_learning_rates_and_dropouts_in_turn(root: Path):
    config, _ = warm_stage(root / "unused", root, members=4, learning_rates=[1e-4, 2e-4, 3e-4])
    plans = member_plans(config, seed=0)
    assert [plan.learning_rate for plan in plans] == [1e-4, 2e-4, 3e-4, 1e-4]
    assert [plan.dropout for plan in plans] == [0.0, 0.1, 0.0, 0.1]
    assert len({plan.seed for plan in plans} | {plan.seed for plan in member_plans(config, seed=1)}) == 8
    config, _ = warm_stage(root / "unused", root)
    assert [plan.learning_rate for plan in member_plans(config, seed=0)] == [5e-4, 1e-3, 2e-3]


def test_between_the_two_best_members_is_told_against_the_line(finished: Path):
    found = summary(finished)
    best, second = (found["members"][member]["accuracy"]["mean"] for member in found["connectivity"]["members"])
    assert found["connectivity"]["members"] == found["kept"]  # the two members that are averaged here
    points = found["connectivity"]["points"]
    assert [point["rate"] for point in points] == [0.25, 0.5, 0.75]
    assert [point["line"] for point in points] == pytest.approx(
        [0.75 * best + 0.25 * second, (best + second) / 2, 0.25 * best + 0.75 * second]
    )
    assert points[1]["accuracy"] == found["average"]["accuracy"]  # halfway is the average of the two
    assert all(on_all_pairs(finished, f"between-members-at-{point['rate']:g}").low > 0.5 for point in points)
    assert not list((finished / "between").iterdir())


def test_one_member_has_nobody_to_connect_to(root: Path):
    with raises_facts(ValueError, "connectivity", "members is 1"):
        warm_stage(root / "unused", root, members=1, connectivity=True)


@pytest.mark.parametrize(
    ("fields", "margins", "weight"), [({"margin": "gap"}, (1.5, 0.5), 0.0), ({"centre": 10.0}, (0.0, 0.0), 10.0)]
)
def test_the_loss_has_the_margin_and_the_centring(
    root: Path, tmp_path: Path, finished: Path, fields: dict, margins: tuple[float, float], weight: float
):
    config, stage = warm_stage(tmp_path, root, steps=1, batch=2, **fields)
    pairs = [Pair("a", (2, 210, 106), (2, 211, 106), margin=1.5), Pair("b", (2, 212, 106), (2, 213, 106), margin=0.5)]
    plan = MemberPlan(member=0, learning_rate=1e-3, dropout=0.0, seed=1)
    train_member(config, plan, stage, finished / "probe", pairs, tmp_path / "member")
    rewards = score_sequences(load_reward_model(finished / "probe").eval(), both_sides(pairs), batch=4)
    plain = expected = 0.0
    for margin, chosen, rejected in zip(margins, rewards[0::2], rewards[1::2], strict=True):
        plain += math.log1p(math.exp(rejected - chosen)) / 2
        expected += (math.log1p(math.exp(-(chosen - rejected - margin))) + weight * (chosen + rejected) ** 2) / 2
    (loss,) = (row["loss"] for row in rows(tmp_path) if "loss" in row)
    assert loss == pytest.approx(expected, rel=1e-3)
    assert expected > 1.01 * plain  # the margins and the penalty change the loss visibly


def test_dropout_and_seed_each_make_a_member_different(root: Path, tmp_path: Path, finished: Path):
    config, stage = warm_stage(tmp_path, root, steps=2)
    pairs = [Pair(f"{n}", (2, n, 106), (2, n + 1, 106)) for n in range(200, 260)]
    plain = MemberPlan(member=0, learning_rate=1e-3, dropout=0.0, seed=1)
    plans = {"plain": plain, "again": plain, "dropout": replace(plain, dropout=0.3), "seed": replace(plain, seed=2)}
    for name, plan in plans.items():
        train_member(config, plan, stage, finished / "probe", pairs, tmp_path / name)
    assert difference(tmp_path / "plain", tmp_path / "again").changed_tensors == 0
    assert difference(tmp_path / "plain", tmp_path / "dropout").changed_tensors > 0
    assert difference(tmp_path / "plain", tmp_path / "seed").changed_tensors > 0


def test_a_killed_stage_continues_to_the_same_weights(
    root: Path, tmp_path: Path, finished: Path, warm_python: WarmPython
):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from gemsmith.contracts.stage import Silence; from gemsmith.reward_models.warm import run\n"
        "from tests.reward_models.stages import warm_stage\n"
        "from tests.shallow import make_tiny_shallow; make_tiny_shallow()\n"
        "folder = Path(sys.argv[1])\n"
        "config, stage = warm_stage(folder, Path(sys.argv[2]), keep=2, connectivity=True)\n"
        "class Killer(Silence):\n"
        "    def progress(self, done, total, unit, shown):\n"
        "        if (folder / 'members' / '0').exists() and done == 7:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "stage.sink = Killer(); run(config, stage)\n"
    )
    ran = warm_python.run(["-c", code, str(tmp_path / "stage"), str(root)])
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert (tmp_path / "stage" / "members" / "0").exists() and not (tmp_path / "stage" / "output").exists()
    left = tmp_path / "stage" / "members" / "0.checkpoints"  # as a kill just after the member was written leaves them
    left.mkdir(exist_ok=True)
    config, stage = warm_stage(tmp_path / "stage", root, keep=2, connectivity=True)
    run(config, stage)
    assert not left.exists()
    assert (stage.output / "model.safetensors").read_bytes() == (finished / "output" / "model.safetensors").read_bytes()
    assert summary(stage.folder) == summary(finished)
    steps = [(row["member"], row["step"]) for row in rows(stage.folder) if "loss" in row]
    assert steps == [(member, step) for member in range(3) for step in range(1, STEPS + 1)]


def test_lora_trains_adapters_and_the_head_and_merges_them(root: Path, tmp_path: Path):
    lora = LoraConfig(rank=4, alpha=8)
    config, stage = warm_stage(tmp_path / "stage", root, members=1, steps=3, lora=lora, learning_rates=[5e-3])
    run(config, stage)
    probe, output = weights(stage.folder / "probe"), weights(stage.output)
    assert probe.keys() == output.keys()
    changed = {name for name in probe if not torch.equal(probe[name], output[name])}
    assert "score.weight" in changed
    assert {name for name in probe if "_proj" in name} == changed - {"score.weight"}  # norms and embeddings are frozen


def test_pairs_beyond_the_context_are_dropped_where_no_length_is_stated(root: Path, tmp_path: Path):
    lines = (root / "pairs.jsonl").read_text().splitlines()[:40]
    row = json.loads(lines[0])
    lines += [json.dumps({**row, "chosen": "9" * 600}), json.dumps({**row, "rejected": "9" * 600})]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    config, stage = warm_stage(tmp_path / "stage", tmp_path, members=1, steps=1)
    fields = {name: getattr(config, name) for name in config.model_fields_set - {"max_length"}}
    run(WarmStage(**fields), stage)  # max_length is 1024 then, and the context of `tiny` is 512
    assert summary(stage.folder)["pairs"]["dropped"] == {"too long": 2}


def test_data_without_pairs_is_the_users_fault(root: Path, tmp_path: Path):
    config, stage = warm_stage(tmp_path / "stage", root)
    stage.data = {"pairs": stage.data["pairs"].model_copy(update={"chosen": None})}
    with raises_facts(UserError, "data.pairs", "no preference pairs"):
        run(config, stage)


def test_dropout_is_a_matter_of_training_and_is_not_saved(finished: Path):
    assert load_reward_model(finished / "probe", dropout=0.3).model.layers[0].self_attn.attention_dropout == 0.3
    config = json.loads((finished / "members" / "1" / "config.json").read_text())
    assert config["attention_dropout"] == 0.0
    assert load_tokenizer(finished / "output").pad_token_id == config["pad_token_id"] == 0


def test_pairs_of_one_prompt_either_select_or_are_reported():
    pairs = [Pair(f"Number {n // 2}", (2, n), (2, 0), 1, None, None) for n in range(10)]
    selecting, reporting = halves(pairs, separate=True)
    assert sorted(selecting + reporting) == list(range(10))
    assert {pairs[i].prompt for i in selecting} == {"Number 0", "Number 2", "Number 4"}
    assert {pairs[i].prompt for i in reporting} == {"Number 1", "Number 3"}
    assert halves(pairs, separate=False) == (list(range(10)), list(range(10)))
    assert halves(pairs[:2], separate=True) == ([0, 1], [0, 1])  # a single prompt serves for both


def test_only_stages_that_select_have_new_results(root: Path):
    assert warm_stage(root / "x", root)[0].changed_results() == {}
    assert (
        warm_stage(root / "x", root, keep=2)[0].changed_results()
        and not warm_stage(root / "x", root, keep=9)[0].changed_results()
    )
