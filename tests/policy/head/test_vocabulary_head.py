import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gemsmith.policy.head import tiled_matmul
from gemsmith.policy.head.vocabulary_head import Targets, logprobs, score, weighted_sum

M, V, D, K = 33, 500, 40, 30
ROWS = 7  # tokens of a chunk: 33 is no multiple


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(tiled_matmul, "CHUNK", ROWS * V)
    monkeypatch.setattr(tiled_matmul, "CPU_TILE", 64)
    monkeypatch.setattr(tiled_matmul, "GPU_TILE", 192)


@pytest.fixture
def problem():
    """Hidden states, weight, ids that repeat within a token, shares, coefficients of either sign and zero."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(M, D) / 2, torch.randn(V, D) / 2
    shares = torch.rand(M, K)
    coefficient = torch.randn(M) / M
    coefficient[3] = 0.0
    return hidden, weight, torch.randint(0, 20, (M, K)), shares / shares.sum(-1, keepdim=True), coefficient


def plain(hidden, weight, ids, shares, temperature=1.0):
    logits = hidden.float() @ weight.float().t() / temperature
    return (shares * logits.log_softmax(-1).gather(-1, ids)).sum(-1), logits


def close(found, expected, dtype=torch.float32):
    """1e-5, or one rounding to bfloat16 where the gradient of bfloat16 weights is stored."""
    tolerance = 1e-5 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(found.float(), expected.float(), atol=1e-5, rtol=tolerance)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("trained", [False, True])
def test_weighted_sum_and_gradients_equal_plain_logits(problem, dtype, trained, temperature):
    hidden, weight, ids, shares, coefficient = problem
    hidden, weight = hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(trained)
    inputs = [hidden, weight] if trained else [hidden]
    total, scores = weighted_sum(hidden, weight, Targets.given(ids, shares), coefficient, True, temperature)
    each, logits = plain(hidden, weight, ids, shares, temperature)
    expected = (coefficient * each).sum()
    close(total, expected)
    close(scores.logprobs, each)
    close(scores.normaliser, logits.logsumexp(-1))
    close(scores.entropy, torch.distributions.Categorical(logits=logits).entropy())
    assert scores.best.tolist() == (ids[:, 0] == logits.argmax(-1)).tolist()
    found = torch.autograd.grad(3 * total, inputs)
    for one, other in zip(found, torch.autograd.grad(3 * expected, inputs), strict=True):
        assert one.dtype == dtype
        close(one, other, dtype)


@pytest.mark.parametrize("trained", [False, True])
def test_logprobs_take_any_gradient_and_temperature(problem, trained):
    hidden, weight, ids, *_ = problem
    hidden, weight, ids = hidden.requires_grad_(), weight.requires_grad_(trained), ids[:, 0]
    inputs = [hidden, weight] if trained else [hidden]
    found = logprobs(hidden, weight, Targets.given(ids), temperature=0.7)
    expected, _ = plain(hidden, weight, ids[:, None], torch.ones(M, 1), temperature=0.7)
    close(found, expected)
    losses = [(each.exp() + each**2).mean() for each in (found, expected)]  # not linear
    for one, other in zip(*(torch.autograd.grad(loss, inputs) for loss in losses), strict=True):
        close(one, other)


def test_scores_without_gradients_equal_plain_logits(problem):
    hidden, weight, ids, shares, coefficient = problem
    scores = score(hidden, weight.requires_grad_(), Targets.given(ids, shares), entropy=True)
    each, logits = plain(hidden, weight, ids, shares)
    close(scores.logprobs, each)
    close(scores.entropy, torch.distributions.Categorical(logits=logits).entropy())
    with torch.no_grad():
        total, _ = weighted_sum(hidden, weight, Targets.given(ids, shares), coefficient)
    close(total, (coefficient * each).sum())


def test_no_tokens_are_a_zero_with_gradients():
    hidden, weight = torch.zeros(0, D, requires_grad=True), torch.randn(V, D, requires_grad=True)
    ids = torch.zeros(0, dtype=torch.long)
    total, _ = weighted_sum(hidden, weight, Targets.given(ids), torch.zeros(0))
    total.backward()
    assert total == 0 and hidden.grad.shape == (0, D) and weight.grad.eq(0).all()


def test_a_second_backward_pass_is_refused_rather_than_wrong(problem):
    hidden, weight, ids, shares, coefficient = problem
    hidden, weight = hidden.requires_grad_(), weight.requires_grad_()
    total, _ = weighted_sum(hidden, weight, Targets.given(ids, shares), coefficient)
    total.backward(torch.tensor(2.0), retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


class Largest(TorchDispatchMode):
    """Notes the elements of the largest tensor that an operation made or returned."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("trained", [False, True])
def test_no_tensor_holds_the_logits_of_all_tokens(trained):
    many = 50 * ROWS
    hidden, weight = torch.randn(many, D, requires_grad=True), torch.randn(V, D, requires_grad=trained)
    with Largest() as largest:
        total, _ = weighted_sum(hidden, weight, Targets.given(torch.zeros(many, dtype=torch.long)), torch.ones(many))
        total.backward()
        each = logprobs(hidden, weight, Targets.given(torch.zeros(many, dtype=torch.long)))
        each.square().sum().backward()
    assert largest.elements == max(V * D, many * D) < many * V
