import math
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gemsmith.policy.adapter_products import adapter_pairs
from gemsmith.policy.config import LoraConfig
from gemsmith.policy.loading.lora import merged, with_lora
from gemsmith.policy.loading.tiny import tiny_policy
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


def _adapted(rank: int = 2, alpha: float = 6.0) -> tuple[peft.PeftModel, list[nn.Module]]:
    """Return a tiny policy with adapters that do something, and the modules that have them."""
    torch.manual_seed(0)
    model = with_lora(tiny_policy().model, LoraConfig(rank=rank, alpha=alpha))
    return model, [module for module in model.modules() if hasattr(module, "lora_A")]


def _step(modules: list[nn.Module], generator: torch.Generator) -> None:
    """Move A and B together, so that their average has a covariance."""
    with torch.no_grad():
        for module in modules:
            for part in (module.lora_A, module.lora_B):
                weight = part["default"].weight
                weight += 0.1 * torch.randn(weight.shape, generator=generator)


def _effective(module: nn.Module) -> torch.Tensor:
    """Return the weights that the module computes with, as a merge would write them."""
    return (module.get_base_layer().weight + module.get_delta_weight("default")).detach().double()


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_the_average_of_adapters_is_that_of_the_weights_they_make(rate: float) -> None:
    model, modules = _adapted()
    anchor, whole = WeightSet(model), [_effective(module) for module in modules]
    halves = [[part["default"].weight.detach().clone() for part in (m.lora_B, m.lora_A)] for m in modules]
    generator = torch.Generator().manual_seed(1)
    for _ in range(30):
        _step(modules, generator)
        anchor.update(rate)
        for k, module in enumerate(modules):
            whole[k].lerp_(_effective(module), rate)
            for half, part in zip(halves[k], (module.lora_B, module.lora_A), strict=True):
                half.lerp_(part["default"].weight.detach(), rate)
    live = [_effective(module) for module in modules]
    lag = sum((now - then).square().sum() for now, then in zip(live, whole, strict=True)).sqrt()
    with anchor.applied():
        found = [_effective(module) for module in modules]
    missed = sum((now - then).square().sum() for now, then in zip(found, whole, strict=True)).sqrt()
    assert missed < 0.02 * lag  # these random walks need a higher rank than training does
    separate = [
        module.get_base_layer().weight.double() + module.scaling["default"] * (b @ a).double()
        for module, (b, a) in zip(modules, halves, strict=True)
    ]
    assert sum((now - then).square().sum() for now, then in zip(separate, whole, strict=True)).sqrt() > 0.1 * lag
    assert all(torch.equal(now, then) for now, then in zip((_effective(m) for m in modules), live, strict=True))


def test_a_policy_with_averaged_adapters_computes_like_the_merged_average() -> None:
    model, modules = _adapted()
    anchor, whole = WeightSet(model), [_effective(module) for module in modules]
    generator, ids = torch.Generator().manual_seed(1), torch.tensor([[2, 30, 31, 40, 41]])
    for _ in range(10):
        _step(modules, generator)
        anchor.update(0.1)
        for average, module in zip(whole, modules, strict=True):
            average.lerp_(_effective(module), 0.1)
    with anchor.applied(), torch.no_grad():
        found = model.eval()(input_ids=ids).logits
    merged_model = merged(model)
    targets = [module for name, module in merged_model.named_modules() if name.endswith("_proj")]
    for module, average in zip(targets, whole, strict=True):
        module.weight.data = average.float()
    with torch.no_grad():
        assert torch.allclose(found, merged_model(input_ids=ids).logits, atol=2e-2 * float(found.std()))


def test_a_copy_of_adapters_is_exact_and_so_is_one_from_a_checkpoint(tmp_path: Path) -> None:
    model, modules = _adapted()
    anchor, generator = WeightSet(model), torch.Generator().manual_seed(1)
    _step(modules, generator)
    live = [_effective(module) for module in modules]
    anchor.update(1.0)  # a periodic anchor
    with anchor.applied():
        assert all(torch.equal(_effective(module), then) for module, then in zip(modules, live, strict=True))
    for _ in range(20):
        _step(modules, generator)
        anchor.update(0.1)
    anchor.save(tmp_path / "anchor.safetensors")
    again = WeightSet(model)
    again.load(tmp_path / "anchor.safetensors")
    _step(modules, generator)
    found = []
    for each in (anchor, again):
        each.update(0.1)
        with each.applied():
            found.append([_effective(module) for module in modules])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))  # a resumed run goes on bit for bit


def test_a_checkpoint_of_an_earlier_version_is_read_as_it_was(tmp_path: Path) -> None:
    model, modules = _adapted()
    _step(modules, torch.Generator().manual_seed(1))
    stored = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}  # averaged A and B
    save_file(stored, tmp_path / "anchor.safetensors")
    before = [_effective(module) for module in modules]
    anchor = WeightSet(model)
    _step(modules, torch.Generator().manual_seed(2))
    anchor.update(0.1)
    anchor.load(tmp_path / "anchor.safetensors")
    with anchor.applied():
        assert all(torch.equal(_effective(module), then) for module, then in zip(modules, before, strict=True))


def test_numbers_that_are_none_reach_the_average_without_an_error_of_linear_algebra() -> None:
    model, modules = _adapted()
    anchor = WeightSet(model)
    modules[0].lora_A["default"].weight.data.fill_(math.nan)
    for _ in range(20):
        anchor.update(0.1)
    with anchor.applied():
        assert _effective(modules[0]).isnan().any()


def test_the_factors_of_every_kind_of_adapter_are_found() -> None:
    names = ["m.q.lora_A.default.weight", "m.q.lora_B.default.weight", "e.lora_embedding_A.default", "n.weight"]
    names += ["e.lora_embedding_B.default", "alone.lora_A.default.weight"]
    pairs = [("m.q.lora_B.default.weight", "m.q.lora_A.default.weight")]
    assert adapter_pairs(names) == [*pairs, ("e.lora_embedding_B.default", "e.lora_embedding_A.default")]
