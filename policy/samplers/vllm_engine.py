"""The program that runs vLLM for a `VllmSampler`, in a process of its own.

vLLM stays out of the trainer's process, because it joins torch's process group, sets thread counts and patches torch.
Inside this process it runs without further processes, so that weights can be passed to it directly.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemsmith.policy.samplers.engine_process import serve


@dataclass
class Start:
    """Request to build the engine from the config in the folder and the weights in `weights`; answered by `Started`."""

    options: dict[str, Any]
    weights: str
    sleep: bool


@dataclass
class Started:
    """Answer: the engine is ready."""

    context: int


@dataclass
class Load:
    """Request to load weights from this file of the folder; answered by None."""

    weights: str


@dataclass
class Complete:
    """Request to complete each prompt once; answered by token ids and log-probabilities, one list each per prompt."""

    prompts: list[list[int]]
    seeds: list[int]
    settings: dict[str, Any]


@dataclass
class Score:
    """Request for the log-probabilities at temperature 1 of each completion's tokens; answered by one list per
    completion.
    """

    prompts: list[list[int]]
    completions: list[list[int]]


class Engine:
    """vLLM with weights that change."""

    def __init__(self, folder: Path, start: Start) -> None:
        from vllm import LLM

        self._folder = folder
        self._sleep = start.sleep
        self._llm: Any = LLM(str(folder), enable_sleep_mode=start.sleep, **start.options)
        # The engine starts with random weights (load_format dummy); the real ones come through the same path as later
        # updates, so that this path is tested at every start.
        self.load(start.weights)
        self._rest()

    @property
    def context(self) -> int:
        """Return the maximum length of prompt and completion; `score` makes vLLM sample one token more."""
        return int(self._llm.llm_engine.model_config.max_model_len) - 1

    def load(self, weights: str) -> None:
        """Load weights from a file, and drop caches computed with others.

        On a CPU packed copies compute, not the parameters. `reload_weights` packs what it loads again, but not the
        head, which is tied to the embedding and therefore not loaded under its own name.
        """
        from safetensors.torch import load_file

        state = load_file(self._folder / weights)
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(state.items())})
        self._llm.apply_model(_pack_head)
        # Cached keys and values of the old weights would make later completions mix both policies.
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not drop its prefix cache")

    def draw(self, request: Complete) -> tuple[list[list[int]], list[list[float]]]:
        """Sample one completion of each prompt, each from its own seed."""
        from vllm import SamplingParams

        outputs = self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt in request.prompts],
            [SamplingParams(seed=seed, logprobs=0, detokenize=False, **request.settings) for seed in request.seeds],
            use_tqdm=False,
        )
        completions = [output.outputs[0] for output in outputs]
        ids = [list(completion.token_ids) for completion in completions]
        logprobs = [
            [entry[token].logprob for token, entry in zip(row, completion.logprobs, strict=True)]
            for row, completion in zip(ids, completions, strict=True)
        ]
        return ids, logprobs

    def score(self, request: Score) -> list[list[float]]:
        """Return raw log-probabilities of the tokens after each prompt; vLLM computes the whole sequences again for
        this.
        """
        from vllm import SamplingParams

        outputs = self._llm.generate(
            [{"prompt_token_ids": p + c} for p, c in zip(request.prompts, request.completions, strict=True)],
            # vLLM returns log-probabilities of a prompt only together with a completion: the sequence becomes the
            # prompt, and one token is generated and ignored. The cache therefore needs room for one token more (see
            # context).
            SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False),
            use_tqdm=False,
        )
        return [
            [entry[token].logprob for token, entry in zip(ids, output.prompt_logprobs[len(prompt) :], strict=True)]
            for prompt, ids, output in zip(request.prompts, request.completions, outputs, strict=True)
        ]

    def answer(self, request: Load | Complete | Score) -> Any:
        """Answer a request; on a GPU release the engine's memory in between, if configured."""
        # Memory goes back to the trainer between requests; level 1 keeps the weights in host memory.
        if self._sleep:
            self._llm.wake_up()
        reply: Any = None
        if isinstance(request, Load):
            self.load(request.weights)
        else:
            reply = self.draw(request) if isinstance(request, Complete) else self.score(request)
        self._rest()
        return reply

    def _rest(self) -> None:
        if self._sleep:
            self._llm.sleep(level=1)


def _pack_head(model: Any) -> None:
    model.lm_head.quant_method.process_weights_after_loading(model.lm_head)


def variables(environment: Mapping[str, str], device: int | None) -> dict[str, str]:
    """Return the program's environment: the trainer's without its launcher's variables, and without network for vLLM.

    Args:
        environment: the trainer's environment.
        device: index of the GPU to use, of those that the trainer sees; None on a CPU.
    """
    launcher = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK"}
    kept = {k: v for k, v in environment.items() if k not in launcher and not k.startswith(("TORCHELASTIC_", "PET_"))}
    if device is not None:
        seen = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        kept["CUDA_VISIBLE_DEVICES"] = seen[device] if seen else str(device)
    else:
        kept["TORCHDYNAMO_DISABLE"] = "1"  # compiling two small functions takes a minute, and needs a compiler
    return {
        **kept,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_PLUGINS": "",
    }


def main(arguments: list[str]) -> None:
    """Answer requests, the first of which is `Start`, as long as the trainer exists."""
    engine: Engine | None = None

    def answer(request: Any) -> Any:
        nonlocal engine
        if engine is not None:
            return engine.answer(request)
        engine = Engine(Path(arguments[0]), request)
        return Started(engine.context)

    serve(arguments, answer)


if __name__ == "__main__":
    from gemsmith.policy.samplers import vllm_engine  # requests come as its classes, not as those of `__main__`

    vllm_engine.main(sys.argv[1:])
