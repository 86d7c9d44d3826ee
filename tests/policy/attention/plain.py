"""Attention as one writes it down, in float64, and the inputs that the tests give to it and to the fast paths."""

import torch


def inputs(rows, heads, groups, tokens, width, keys=None, dtype=torch.float32, seed=0):
    """Queries, keys, values and the gradient of the output, as a projection leaves them: tokens outermost."""
    generator = torch.Generator().manual_seed(seed)

    def one(number, length):
        return torch.randn(rows, length, number, width, generator=generator).to(dtype).transpose(1, 2)

    keys = keys or tokens
    return one(heads, tokens), one(groups, keys), one(groups, keys), one(heads, tokens)


def plain_attention(query, key, value, mask, scale):
    """softmax(q k' scale) v over what the boolean mask [B, 1, T, K] allows; zero for a query that sees nothing."""
    key, value = (tensor.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for tensor in (key, value))
    weights = (query @ key.transpose(2, 3) * scale).masked_fill(~mask, -1e30).softmax(dim=-1)
    return (weights * mask) @ value


def with_gradients(function, query, key, value, grad):
    """Output and gradients of queries, keys and values."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (query, key, value)]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]


def furthest(found, expected):
    """Largest difference, relative to the largest number expected anywhere."""
    largest = max(other.abs().max().item() for other in expected)
    return max((one.double() - other).abs().max().item() for one, other in zip(found, expected, strict=True)) / largest
