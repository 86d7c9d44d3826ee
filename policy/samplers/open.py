"""Opening of the sampler that a recipe configures."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from gemsmith.policy.config import SamplerConfig, SamplingConfig
from gemsmith.policy.loading.load import save_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.contract import Sampler
from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
from gemsmith.policy.weight_set import WeightSet


@contextmanager
def open_sampler(
    policy: Policy,
    sampling: SamplingConfig,
    config: SamplerConfig,
    say: Callable[[str], None],
    anchor: WeightSet | None = None,
    overlap: bool = False,
) -> Iterator[Sampler]:
    """Yield the sampler of `config`, started; everything that it runs has ended afterwards.

    Args:
        policy: the policy to sample from; `weights="policy"` are its live weights.
        sampling: how completions are sampled.
        config: the sampler's settings.
        say: function that prints a line where something takes long.
        anchor: weights for `weights="anchor"`.
        overlap: it will sample while the caller computes; on a CPU each gets half of the threads (vllm).

    Raises:
        UserError: the backend is not installed, does not start, or does not support the settings.
    """
    with ExitStack() as opened:
        sampler: Sampler
        if config.backend == "vllm":
            from gemsmith.policy.samplers.vllm_sampler import VllmSampler

            on_cpu = policy.device.type == "cpu"
            threads = opened.enter_context(_half_of_the_threads()) if overlap and on_cpu else None
            sampler = VllmSampler(policy, sampling, config, anchor, say, threads)
        elif config.backend == "server":
            from gemsmith.policy.samplers.server_sampler import ServerSampler

            url = config.url or opened.enter_context(_served(policy, config, say))
            sampler = ServerSampler(policy, sampling, config, url, say)
        else:
            sampler = TransformersSampler(policy, sampling, anchor)
        opened.callback(sampler.close)
        yield sampler


@contextmanager
def _half_of_the_threads() -> Iterator[int]:
    """Leave torch half of its threads and return the number of the others. More threads than cores block each other."""
    all_ = torch.get_num_threads()
    torch.set_num_threads(-(-all_ // 2))
    try:
        yield max(1, all_ // 2)
    finally:
        torch.set_num_threads(all_)


@contextmanager
def _served(policy: Policy, config: SamplerConfig, say: Callable[[str], None]) -> Iterator[str]:
    """Write the policy out, start a server for it, and yield its address."""
    from gemsmith.policy.samplers.vllm_server import serving

    with tempfile.TemporaryDirectory(prefix="gemsmith-served-") as folder:
        save_policy(policy, Path(folder) / "policy")
        with serving(Path(folder) / "policy", config, Path(folder) / "vllm.log", say) as url:
            yield url
