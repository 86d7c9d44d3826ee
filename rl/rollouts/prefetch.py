"""Sampling of a step's completions, at once or in the background during the step before."""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from gemsmith.policy.samplers.contract import Sampler, Samples, Weights


class Prefetcher:
    """Sampler of one process's completions, `draws` per prompt from each set of weights.

    `seconds` is how long sampling the last returned completions took, in the background or not.
    """

    def __init__(self, sampler: Sampler, draws: Mapping[Weights, int]) -> None:
        """Sample with `sampler`; `draws` gives the completions per prompt from each set of weights, policy first."""
        self.sampler, self.draws, self.seconds = sampler, draws, 0.0
        self._background = ThreadPoolExecutor(1, "drawing ahead")  # starts its thread at the first `submit`
        self._ahead: Future[tuple[dict[Weights, Samples], float]] | None = None

    def sample_now(self, prompts: list[list[int]], seed: int, before: int) -> dict[Weights, Samples]:
        """Sample from the sampler's current weights; `before` is the offset of these prompts within the step."""
        samples, self.seconds = self._sample(prompts, seed, before)
        return samples

    def start(self, prompts: list[list[int]], seed: int, before: int) -> None:
        """Start sampling in the background; do not use the sampler before `take` returns. Closing it stops this."""
        self._ahead = self._background.submit(self._sample, prompts, seed, before)

    def take(self) -> dict[Weights, Samples] | None:
        """Wait for the completions of the last `start` and return them, or None if nothing was started.

        An exception of the background thread is raised here.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        samples, self.seconds = ahead.result()
        return samples

    def _sample(self, prompts: list[list[int]], seed: int, before: int) -> tuple[dict[Weights, Samples], float]:
        """Return the completions, and the seconds that sampling took."""
        start = time.perf_counter()
        # Even seeds for the policy and odd ones for the anchor: the two never share a stream, in any two steps.
        samples = {
            weights: self.sampler.sample(
                prompts, n, seed=2 * seed + (weights == "anchor"), weights=weights, before=before * n
            )
            for weights, n in self.draws.items()
        }
        return samples, time.perf_counter() - start
