import pytest
import torch
from torch import nn

from gemsmith.policy.weight_set import WeightSet


def _model() -> nn.Linear:
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, 2.0]])
    return model


def test_the_copy_follows_the_live_weights_at_its_rate() -> None:
    model = _model()
    anchor = WeightSet(model)
    model.weight.data = torch.tensor([[3.0, 2.0]])
    anchor.update(0.25)
    with anchor.applied():
        assert model.weight.tolist() == [[1.0 + 0.25 * (3.0 - 1.0), 2.0]]
    assert model.weight.tolist() == [[3.0, 2.0]]


def test_live_weights_come_back_after_an_error() -> None:
    model = _model()
    anchor = WeightSet(model)
    model.weight.data = torch.tensor([[5.0, 5.0]])
    with pytest.raises(RuntimeError), anchor.applied():
        raise RuntimeError
    assert model.weight.tolist() == [[5.0, 5.0]]


def test_an_optimiser_step_does_not_move_the_copy() -> None:
    model = _model()
    anchor = WeightSet(model)
    model(torch.ones(1, 2)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert model.weight.tolist() == [[0.0, 1.0]]
    with anchor.applied():
        assert model.weight.tolist() == [[1.0, 2.0]]


def test_only_trainable_weights_are_copied(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    anchor = WeightSet(model)
    anchor.save(tmp_path / "anchor.safetensors")
    model[1].weight.data.zero_()
    anchor.update(1.0)
    anchor.load(tmp_path / "anchor.safetensors")
    with anchor.applied():
        assert model[1].weight.abs().sum() > 0


def test_a_bfloat16_model_keeps_its_average_in_float32() -> None:
    """At rate 0.01 a bfloat16 copy would not move at all: the step is below the spacing of its numbers."""
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    model.weight.data.fill_(1.0)
    anchor = WeightSet(model)
    model.weight.data.fill_(1.125)
    for _ in range(100):
        anchor.update(0.01)
    with anchor.applied():
        assert model.weight.dtype == torch.bfloat16
        assert model.weight.item() == pytest.approx(1.125 - 0.125 * 0.99**100, abs=0.004)
