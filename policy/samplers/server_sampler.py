"""Sampling from a server with OpenAI's completions API over token ids, such as `vllm serve`; it cannot score."""

import hashlib
from collections.abc import Callable
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.policy.config import SamplerConfig, SamplingConfig
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.completions_server import CompletionsServer
from gemsmith.policy.samplers.contract import Samples, Weights, check_lengths
from gemsmith.policy.text.chat import completion_text


class ServerSampler:
    """Sampler that requests one completion at a time, each with its own seed, so that the server may batch freely."""

    same_weights = False

    def __init__(
        self, policy: Policy, sampling: SamplingConfig, config: SamplerConfig, url: str, say: Callable[[str], None]
    ) -> None:
        """Create a sampler for the server at `url`; `policy` provides the tokenizer and the end ids.

        Raises:
            UserError: no server answers, or it serves no model.
        """
        self.policy, self.config = policy, sampling
        self._server = CompletionsServer(url, config.timeout, "sampler's server", "sampler.timeout", say)
        self.model = self._server.served()[0]

    def sync(self) -> None:
        """Do nothing: a server keeps the weights that it was started with."""

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def sample(
        self,
        prompts: list[list[int]],
        n: int,
        seed: int,
        weights: Weights = "policy",
        greedy: bool = False,
        before: int = 0,
    ) -> Samples:
        """Sample n completions of each prompt; the same seed gives the same ones if the server honours seeds.

        Raises:
            UserError: `weights` is "anchor", a prompt and `max_tokens` do not fit together, or the server refuses,
                gives no token ids, or does not answer in time.
        """
        if weights == "anchor":
            raise UserError(
                "A server has one set of weights; set sampler.backend to transformers or vllm for an anchor."
            )
        check_lengths(prompts, self.config.max_tokens, self.policy.model.config.max_position_embeddings)
        bodies = [
            self._body(prompt, _seed(seed, before + number * n + i), greedy)
            for number, prompt in enumerate(prompts)
            for i in range(n)
        ]
        choices = self._server.complete(bodies, self._read, "request fewer or shorter completions")
        ids = [choice["token_ids"] for choice in choices]
        text = [completion_text(self.policy.tokenizer, row) for row in ids]
        logprobs = [choice["logprobs"]["token_logprobs"] for choice in choices]
        return Samples(ids, logprobs, text, [choice["finish_reason"] for choice in choices])

    def _body(self, prompt: list[int], seed: int, greedy: bool) -> dict[str, Any]:
        sampling = self.config
        return {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": sampling.max_tokens,
            "temperature": 0.0 if greedy else sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "seed": seed,
            "logprobs": 0,
            "stop_token_ids": list(self.policy.end_ids),
            "return_token_ids": True,
            "skip_special_tokens": False,
        }

    def _read(self, choice: dict[str, Any], _: int) -> dict[str, Any]:
        if choice.get("token_ids") is None or choice.get("logprobs") is None:
            raise UserError(
                f"The sampler's server {self._server.url} returns no token ids with log-probabilities; "
                "use `vllm serve`."
            )
        return choice


def _seed(seed: int, number: int) -> int:
    """Return a 31-bit seed for one completion."""
    return int.from_bytes(hashlib.sha256(f"{seed}, {number}".encode()).digest()[:4], "big") >> 1
