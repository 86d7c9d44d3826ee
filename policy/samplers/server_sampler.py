"""Completions from a server that speaks OpenAI's completions over token ids, as `vllm serve` does; it only samples."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

import requests

from contracts.errors import UserError
from contracts.waits import waiting
from policy.chat import completion_text
from policy.config import SamplerConfig, SamplingConfig
from policy.policy import Policy
from policy.samplers.contract import Samples, Weights, check_lengths

AT_ONCE = 64  # requests in flight


class ServerSampler:
    """Asks for one completion a request, each with a seed of its own, so that the server may batch them as it likes."""

    same_weights = False

    def __init__(
        self, policy: Policy, sampling: SamplingConfig, config: SamplerConfig, url: str, say: Callable[[str], None]
    ) -> None:
        """Sample from what the server at `url` serves; `policy` lends its tokenizer and its end ids.

        Raises:
            UserError: no server answers, or it serves nothing.
        """
        self.policy, self.config, self.say = policy, sampling, say
        self._limit = config.timeout
        self.url = url.rstrip("/")
        self._client = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=AT_ONCE)
        self._client.mount("http://", adapter)
        self._client.mount("https://", adapter)
        self.model = self._served()

    def sync(self) -> None:
        """Nothing: a server keeps the weights that it was started with."""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def sample(
        self,
        prompts: list[list[int]],
        n: int,
        seed: int,
        weights: Weights = "policy",
        greedy: bool = False,
        before: int = 0,
    ) -> Samples:
        """Draw n completions of each prompt; the same seed draws the same ones as far as the server keeps to seeds.

        Raises:
            UserError: the anchor is asked for, a prompt and `max_tokens` do not fit together, or the server refuses,
                gives no token ids, or does not answer in time.
        """
        if weights == "anchor":
            raise UserError("A server has one set of weights: take sampler.backend transformers or vllm for an anchor.")
        check_lengths(prompts, self.config.max_tokens, self.policy.model.config.max_position_embeddings)
        bodies = [
            self._body(prompt, _seed(seed, before + number * n + i), greedy)
            for number, prompt in enumerate(prompts)
            for i in range(n)
        ]
        choices = self._ask(bodies)
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

    def _ask(self, bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The choices that the server gives, in the order of the requests."""
        pool = ThreadPoolExecutor(AT_ONCE)
        asked = [pool.submit(self._post, body) for body in bodies]

        def state() -> str:
            return f"{sum(one.done() for one in asked)} of {len(asked)} completions after"

        try:
            with waiting(self.say, f"the sampler's server {self.url}", self._limit, state):
                done, late = wait(asked, timeout=self._limit, return_when=FIRST_EXCEPTION)
            for one in done:
                one.result()  # a failure ends the waiting
            if late:
                raise UserError(
                    f"The sampler's server {self.url} gave {state()} {self._limit:g} s, and sampler.timeout is that: "
                    "raise it, or ask for fewer or shorter completions."
                )
            return [one.result() for one in asked]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._request("POST", "/completions", json=body)
        choice: dict[str, Any] = answer["choices"][0]
        if choice.get("token_ids") is None or choice.get("logprobs") is None:
            raise UserError(
                f"The sampler's server {self.url} returns no token ids with their log-probabilities: `vllm serve` does."
            )
        return choice

    def _served(self) -> str:
        """Name of the first model that the server has."""
        models = self._request("GET", "/models").get("data") or []
        if not models:
            raise UserError(f"The sampler's server {self.url} serves no model.")
        return str(models[0]["id"])

    def _request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        try:
            response = self._client.request(method, self.url + path, timeout=self._limit, **more)
            if not response.ok:
                raise UserError(
                    f"The sampler's server {self.url} refused with status {response.status_code}: "
                    f"{response.text.strip()[:300]}"
                )
            content: dict[str, Any] = response.json()
        except requests.Timeout as error:
            raise UserError(
                f"The sampler's server {self.url} did not answer within {self._limit:g} s (sampler.timeout)."
            ) from error
        except requests.RequestException as error:
            raise UserError(
                f"No sampler's server answers at {self.url} ({type(error).__name__}): is it running, and does the "
                "address end as /v1 does?"
            ) from error
        return content


def _seed(seed: int, number: int) -> int:
    """A seed of 31 bits for one completion."""
    return int.from_bytes(hashlib.sha256(f"{seed}, {number}".encode()).digest()[:4], "big") >> 1
