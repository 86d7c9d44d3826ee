"""The sampler that a recipe asks for."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from policy.config import SamplerConfig, SamplingConfig
from policy.load import save_policy
from policy.policy import Policy
from policy.samplers.contract import Sampler
from policy.samplers.transformers_sampler import TransformersSampler
from policy.weight_set import WeightSet


@contextmanager
def open_sampler(
    policy: Policy,
    sampling: SamplingConfig,
    config: SamplerConfig,
    say: Callable[[str], None],
    anchor: WeightSet | None = None,
) -> Iterator[Sampler]:
    """The sampler of `config`, started; whatever it runs has ended afterwards.

    Args:
        policy: what is sampled from; `weights="policy"` are its live weights.
        sampling: how completions are drawn.
        config: what draws them.
        say: told one line where something takes a while.
        anchor: what `weights="anchor"` samples from.

    Raises:
        UserError: the backend is not installed, does not start, or cannot do what is asked.
    """
    with ExitStack() as opened:
        sampler: Sampler
        if config.backend == "vllm":
            from policy.samplers.vllm_sampler import VllmSampler

            sampler = VllmSampler(policy, sampling, config, anchor, say=say)
        elif config.backend == "server":
            from policy.samplers.server_sampler import ServerSampler

            url = config.url or opened.enter_context(_served(policy, config, say))
            sampler = ServerSampler(policy, sampling, config, url, say)
        else:
            sampler = TransformersSampler(policy, sampling, anchor)
        opened.callback(sampler.close)
        yield sampler


@contextmanager
def _served(policy: Policy, config: SamplerConfig, say: Callable[[str], None]) -> Iterator[str]:
    """Address of a server of this policy, written out for it."""
    from policy.samplers.vllm_server import serving

    with tempfile.TemporaryDirectory(prefix="gemsmith-served-") as folder:
        save_policy(policy, Path(folder) / "policy")
        with serving(Path(folder) / "policy", config, Path(folder) / "vllm.log", say) as url:
            yield url
