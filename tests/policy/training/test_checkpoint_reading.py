"""A damaged file of a checkpoint ends a resumed training with a sentence that names the checkpoint."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from gemsmith.contracts.errors import UserError
from gemsmith.policy.training.checkpoint_reading import check_reading
from tests.messages import raises_facts


class Line(nn.Module):
    """A model of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.weight * x - 2) ** 2).mean()}


def trainer_in(folder: Path, steps: int) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=steps, save_steps=1, report_to=[], use_cpu=True, disable_tqdm=True
    )
    return Trainer(Line(), arguments, train_dataset=[{"x": torch.ones(1)}] * 8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    trainer_in(folder, 1).train()
    return folder / "checkpoint-1"


@pytest.mark.parametrize("garbage", [b"", b"[]", b"garbage" * 99], ids=["empty", "list", "binary"])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
def test_a_damaged_file_is_one_sentence(checkpoint: Path, name: str, garbage: bytes):
    path = checkpoint / name
    before = path.read_bytes()
    path.write_bytes(garbage)
    trainer = trainer_in(checkpoint.parent, 2)
    try:
        with raises_facts(UserError, str(checkpoint), "could not be read", "checkpoint before it") as caught:
            check_reading(trainer, checkpoint)
            trainer.train(resume_from_checkpoint=str(checkpoint))
    finally:
        path.write_bytes(before)
    assert "weights_only" not in str(caught.value)


def test_a_whole_checkpoint_is_continued_and_other_errors_pass(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    trainer = trainer_in(checkpoint.parent, 2)
    check_reading(trainer, checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.state.global_step == 2
    trainer = trainer_in(checkpoint.parent, 3)
    check_reading(trainer, checkpoint)
    monkeypatch.setattr(Line, "forward", lambda self, x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.train(resume_from_checkpoint=str(checkpoint))
