"""Draw a step's completions, or the next step's while this one is learnt from."""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from gemsmith.policy.samplers.contract import Sampler, Samples, Weights


class Prefetcher:
    """Samples for one process: n completions of each prompt from every set of weights that an algorithm names.

    `seconds` is what drawing the completions took that were given out last, in the background or not.
    """

    def __init__(self, sampler: Sampler, draws: Mapping[Weights, int]) -> None:
        """Draw with `sampler`, `draws` completions a prompt; the policy's come first."""
        self.sampler, self.draws, self.seconds = sampler, draws, 0.0
        self._background = ThreadPoolExecutor(1, "drawing ahead")  # no thread before it is used
        self._ahead: Future[tuple[dict[Weights, Samples], float]] | None = None

    def sample_now(self, prompts: list[list[int]], seed: int, before: int) -> dict[Weights, Samples]:
        """Draw from the weights that the sampler has; `before` of the step's prompts stand before these."""
        samples, self.seconds = self._sample(prompts, seed, before)
        return samples

    def start(self, prompts: list[list[int]], seed: int, before: int) -> None:
        """Begin to draw; until `take` nothing else may ask the sampler. Closing the sampler ends it."""
        self._ahead = self._background.submit(self._sample, prompts, seed, before)

    def take(self) -> dict[Weights, Samples] | None:
        """What was begun, once it is there; None where nothing was. What failed in the background is raised here."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        samples, self.seconds = ahead.result()
        return samples

    def _sample(self, prompts: list[list[int]], seed: int, before: int) -> tuple[dict[Weights, Samples], float]:
        """The completions, and the seconds that they took."""
        start = time.perf_counter()
        samples = {
            weights: self.sampler.sample(
                prompts, n, seed=2 * seed + (weights == "anchor"), weights=weights, before=before * n
            )
            for weights, n in self.draws.items()
        }
        return samples, time.perf_counter() - start
