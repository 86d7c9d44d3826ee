import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from gemsmith.policy.config import DeepSpeedConfig
from gemsmith.policy.training.deepspeed import (
    chosen_stage,
    deepspeed_json,
    model_bytes,
    prepare_environment,
    remove_dead_locks,
    suitable_stage,
)


def test_a_lock_that_nobody_holds_is_removed_and_one_that_is_held_stays(tmp_path: Path) -> None:
    (tmp_path / "fused_adam").mkdir()
    (tmp_path / "cpu_adam").mkdir()
    dead, held = tmp_path / "fused_adam/lock", tmp_path / "cpu_adam/lock"
    dead.touch()
    descriptor = os.open(held, os.O_CREAT | os.O_EXCL)
    try:
        assert remove_dead_locks(tmp_path) == [dead]
        assert held.exists() and not dead.exists()
    finally:
        os.close(descriptor)
    assert remove_dead_locks(tmp_path) == [held]


def test_the_optimiser_is_torchs_own_so_that_nothing_is_compiled() -> None:
    made = deepspeed_json(DeepSpeedConfig(zero=3, offload_optimizer=True), 3)
    assert "optimizer" not in made and made["zero_force_ds_cpu_optimizer"] is False
    assert made["zero_optimization"]["stage"] == 3 and made["zero_optimization"]["offload_optimizer"]["device"] == "cpu"


def test_one_process_needs_no_launcher(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(os, "environ", {"RANK": "3"})  # a copy, so that later tests see nothing of it
    prepare_environment()
    assert os.environ["RANK"] == "3" and os.environ["WORLD_SIZE"] == "1" and int(os.environ["MASTER_PORT"]) > 0


def test_one_process_holds_what_its_stage_does_not_share() -> None:
    """A billion bfloat16 weights in four processes: 2 bytes a weight, 2 a gradient, 4 + 4 + 4 of AdamW."""
    billion = 1_000_000_000
    expected = {0: (2, 2, 12), 1: (2, 2, 12 / 4), 2: (2, 2 / 4, 12 / 4), 3: (2 / 4, 2 / 4, 12 / 4)}
    for zero, gigabytes in expected.items():
        assert [part / 1e9 for part in model_bytes(billion, billion, 4, zero)] == list(gigabytes)
    assert model_bytes(billion, 10, 4, 2) == (2e9, 5, 30)  # adapters
    assert model_bytes(billion, billion, 1, 1, offload=True) == (2e9, 2e9, 0)
    assert model_bytes(billion, billion, 1, 1, weight_bytes=4) == (4e9, 4e9, 8e9)  # float32: no second copy


@pytest.mark.parametrize(
    ("billions", "processes", "zero"),
    [(1.0, 4, 1), (4.3, 4, 1), (4.3, 2, 2), (12, 8, 3), (27, 8, 3)],  # of 80 GB each: half is 40
)
def test_auto_is_the_lowest_stage_that_leaves_half_of_the_memory(billions: float, processes: int, zero: int) -> None:
    assert suitable_stage(int(billions * 1e9), int(billions * 1e9), processes, 80e9) == zero


def test_a_stage_in_the_recipe_is_taken_and_a_tiny_model_needs_little() -> None:
    from gemsmith.policy.loading.tiny import tiny_policy

    model = tiny_policy().model
    assert chosen_stage(DeepSpeedConfig(zero=3), model, 2) == 3
    assert chosen_stage(DeepSpeedConfig(), model, 2) == 1


def test_nothing_can_be_offloaded_where_nothing_is_sharded() -> None:
    with pytest.raises(ValidationError, match="offload_optimizer needs ZeRO"):
        DeepSpeedConfig(zero=0, offload_optimizer=True)
