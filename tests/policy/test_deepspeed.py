import os
from pathlib import Path

from policy.config import DeepSpeedConfig
from policy.deepspeed import deepspeed_json, prepare_environment, remove_dead_locks


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
    made = deepspeed_json(DeepSpeedConfig(zero=3, offload_optimizer=True))
    assert "optimizer" not in made and made["zero_force_ds_cpu_optimizer"] is False
    assert made["zero_optimization"]["stage"] == 3 and made["zero_optimization"]["offload_optimizer"]["device"] == "cpu"


def test_one_process_needs_no_launcher(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "3")
    prepare_environment()
    assert os.environ["RANK"] == "3" and os.environ["WORLD_SIZE"] == "1" and int(os.environ["MASTER_PORT"]) > 0
    for name in ("WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name)
