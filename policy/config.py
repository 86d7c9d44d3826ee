"""Configuration of policies, sampling and training. Imports no torch."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from gemsmith.contracts.local import find_local
from gemsmith.contracts.planning import ForecastContext, ModelSize
from gemsmith.contracts.strict import StrictModel
from gemsmith.policy.forecast import TrainingCosts

LONGEST_WAIT = 30 * 86_400  # seconds; a wait without an end is not told from a server that hangs


class RopeConfig(StrictModel):
    """Settings for a longer context: positions of the global layers are divided by the factor; local layers do not
    change.
    """

    factor: float = Field(
        ge=1,
        allow_inf_nan=False,
        description="Total factor relative to the unscaled model (report: 8 for 4B, 12B, 27B; 1B: 1); the "
        "context grows with it. A checkpoint that has this factor already stays as it is; a smaller one is refused.",
    )


class PolicyConfig(StrictModel):
    """The Gemma 3 to start from: `model` names weights, `from` names an earlier stage. Set exactly one of the two.

    With `liti` it is a point of the line that a `warp` stage keeps (`gemsmith.policy.liti_points`).
    """

    refers_to: ClassVar[str] = "policy"
    """Kind of output that `from` must name: a key of `recipes.pipeline.graph.OUTPUTS`."""

    model: str | None = Field(
        None, description="`tiny`, a hub id such as google/gemma-3-1b-pt, a transformers folder, or a .gguf file."
    )
    from_: str | None = Field(None, alias="from", description="Id of an earlier stage whose policy is used.")
    liti: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Point on the line of the `warp` stage in `from`: 0 its start, 1 its last merge, "
        "above 1 beyond it (paper: up to 2). Default: the stage's output.",
    )
    size: Literal["small", "large"] = Field("small", description="Width of `tiny`: small (student) or large (teacher).")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: float32 on a CPU (bfloat16 is five times slower there), bfloat16 on a GPU."
    )
    attention: Literal["auto", "fused", "eager", "sdpa"] = Field(
        "auto",
        description="Attention implementation. auto and fused: the compiled kernel on a CPU (torch by blocks where "
        "it is missing), FlexAttention on a GPU. sdpa and eager: transformers' own, with a dense mask.",
    )

    rope: RopeConfig | None = Field(None, description="Rescale the context. Default: as in the checkpoint.")

    @model_validator(mode="after")
    def _one_origin(self) -> "PolicyConfig":
        if (self.model is None) == (self.from_ is None):
            raise ValueError("give either `model` (weights by name) or `from` (an earlier stage), not both")
        if self.liti is not None and self.from_ is None:
            raise ValueError("`liti` is a point on the line of a warp stage; name that stage in `from`")
        return self

    @classmethod
    def named(cls, name: str) -> "PolicyConfig":
        """Return the policy that `ID` (a stage's output) or `ID@RATE` (a point of its line) names in a list of stages.

        Raises:
            ValueError: the rate is not a number >= 0.
        """
        id, at, rate = name.partition("@")
        try:
            return cls.model_validate({"from": id, "liti": float(rate) if at else None})
        except ValueError as error:
            raise ValueError(
                f'found "{name}", expected the id of a stage, or `id@rate`, a rate of 0 or more'
            ) from error

    @property
    def weights(self) -> "PolicyConfig | None":
        """Return the name of the weights to load; None if there are none to load."""
        return self

    def local_files(self, root: Path) -> list[Path]:
        """Return the model's folder or GGUF file, if it is on this disk."""
        found = None if self.model in (None, "tiny") else find_local(root, str(self.model))
        return [] if found is None else [found]

    @property
    def name(self) -> str:
        """Return the name that `named` reads, or the name of the weights."""
        return f"{self.from_ or self.model}" + ("" if self.liti is None else f"@{self.liti:g}")


class LoraConfig(StrictModel):
    """Low-rank adapters instead of full training; merged into the weights when the stage ends, and also kept beside
    them.
    """

    rank: int = Field(16, ge=1, description="Rank of each adapter.")
    alpha: float = Field(
        32, gt=0, allow_inf_nan=False, description="Scale of the adapters: alpha / rank multiplies their output."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapters' input.")
    targets: str | list[str] = Field("all-linear", description="Modules that get adapters, as in peft.")


def average_rank(rank: int) -> int:
    """Return the rank of a moving average of adapters of this rank, at most; it leaves out up to 0.15% of the distance
    to the live weights (`python -m benchmarks.adapter_average`).
    """
    return max(4 * rank, 32)


class SamplingConfig(StrictModel):
    """Settings for sampling completions."""

    temperature: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="Softmax temperature; 1 is the policy's own distribution."
    )
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus mass; 1 keeps the whole vocabulary.")
    top_k: int = Field(0, ge=0, description="Keep only the k most likely tokens; 0 keeps all.")
    max_tokens: int = Field(256, ge=1, description="Completion length limit, in tokens.")
    batch: int = Field(256, ge=1, description="Completions generated at once on one device.")

    @property
    def plain(self) -> bool:
        """Return True if completions come from the policy's own distribution, unprocessed."""
        return self.temperature == 1.0 and self.untruncated

    @property
    def untruncated(self) -> bool:
        """Return True if every token can be sampled: without top_p and top_k."""
        return (self.top_p, self.top_k) == (1.0, 0)


def _address(value: str) -> str:
    """Check that a value is an HTTP address."""
    found = urlsplit(value)
    if found.scheme not in ("http", "https") or not found.hostname:
        raise ValueError(f"found {value!r}, expected a server's address such as http://127.0.0.1:8000/v1")
    return value


Address = Annotated[str, AfterValidator(_address)]
"""Address of a server."""


class SamplerConfig(StrictModel):
    """The program that samples completions, and its limits."""

    backend: Literal["transformers", "vllm", "server"] = Field(
        "transformers",
        description="transformers samples with the model that trains, in its process; vllm with an engine beside it; "
        "server with an OpenAI-style server, where the policy is not trained.",
    )
    url: Address | None = Field(
        None,
        description="Address of a running server, such as http://127.0.0.1:8000/v1. Default: the stage starts "
        "`vllm serve`.",
    )
    gpu_memory: float = Field(0.35, gt=0, lt=1, description="vllm on a GPU: share of its memory for the engine.")
    cache_gib: float = Field(2.0, gt=0, description="vllm on a CPU: size of the key-value cache, in GiB.")
    sleep: bool = Field(False, description="vllm on a GPU: release the engine's memory during training.")
    timeout: float = Field(600, gt=0, le=LONGEST_WAIT, description="Time limit of one call of the sampler, in seconds.")
    mismatch_warning: float = Field(
        0.02, gt=0, description="Mean gap of log-probabilities to the trainer's, in nats a token, that is warned about."
    )
    mismatch_limit: float = Field(
        0.2, gt=0, description="Mean gap of log-probabilities, in nats per token, that stops the run."
    )

    @model_validator(mode="after")
    def _fitting_fields(self) -> "SamplerConfig":
        if self.backend != "server" and self.url is not None:
            raise ValueError(f"`url` needs backend server, but backend is {self.backend}; remove one of them")
        if self.sleep and self.backend != "vllm":
            raise ValueError(f"`sleep` needs backend vllm, but backend is {self.backend}")
        if self.mismatch_warning > self.mismatch_limit:
            raise ValueError("mismatch_warning is above mismatch_limit; lower it")
        return self


def check_follows_training(sampler: SamplerConfig) -> None:
    """Reject a server as the sampler of a policy that is being trained.

    Raises:
        ValueError: the sampler is a server, which keeps the weights that it was started with.
    """
    if sampler.backend == "server":
        raise ValueError(
            "sampler.backend is server, whose weights do not follow the training; set it to transformers or vllm"
        )


class TrainingConfig(StrictModel):
    """Optimisation settings of every stage that trains."""

    steps: int = Field(ge=1, description="Optimiser steps.")
    batch: int = Field(ge=1, description="Examples (prompts, for RL) per optimiser step, over all processes together.")
    micro_batch: int | None = Field(
        None, ge=1, description="Examples per forward and backward pass on one device. Default: the whole batch."
    )
    learning_rate: float = Field(ge=0, allow_inf_nan=False, description="Peak learning rate of AdamW.")
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up.")
    schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="Learning rate after warm-up.")
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False, description="AdamW's decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm at which gradients are clipped.")
    max_length: int = Field(1024, ge=8, description="Longest prompt and completion together, in tokens.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations in the backward pass.")
    save_every: int = Field(50, ge=1, description="Steps between checkpoints, from which an interrupted stage resumes.")
    log_every: int = Field(1, ge=1, description="Steps between lines of metrics.jsonl.")
    lora: LoraConfig | None = Field(None, description="Train low-rank adapters. Default: train all weights.")

    @property
    def overlaps(self) -> bool:
        """Return True if completions are sampled from weights that are one step old, while training continues."""
        return False

    def costs(self, size: ModelSize, trained: int, context: ForecastContext) -> TrainingCosts:
        """Return the memory and compute of the training besides the policy, for the plan.

        Args:
            size: size of the policy.
            trained: number of trained weights.
            context: the rest of the recipe.
        """
        return TrainingCosts()

    @property
    def stated_length(self) -> int | None:
        """Return `max_length` if the recipe sets it, to be compared with the policy's context; the default is only a
        limit.
        """
        return self.max_length if "max_length" in self.model_fields_set else None

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> "TrainingConfig":
        if self.micro_batch is not None and self.batch % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch} does not divide batch {self.batch}")
        return self

    def batch_fault(self, processes: int) -> str | None:
        """Return why that many processes cannot share a batch evenly, as a sentence; None if they can."""
        if self.batch % processes:
            return f"{processes} processes do not divide batch {self.batch}; change one of them."
        share = self.batch // processes
        if self.micro_batch is not None and share % self.micro_batch:
            return (
                f"micro_batch {self.micro_batch} does not divide the {share} examples that each of {processes} "
                f"processes gets of batch {self.batch}; lower micro_batch."
            )
        return None


def check_untruncated(sampling: SamplingConfig, learnt: str) -> None:
    """Reject top_p and top_k where `learnt`, a noun, is learned from log-probabilities of the sampled completions.

    Raises:
        ValueError: names the field to remove.
    """
    for name, value, whole in (("top_p", sampling.top_p, 1), ("top_k", sampling.top_k, 0)):
        if value != whole:
            raise ValueError(
                f"sampling.{name} is {value:g}, but {learnt} needs log-probabilities under the distribution that was "
                f"sampled, and {name} gives tokens outside it none: set {name} to {whole} (a temperature is allowed)"
            )


class KeepingConfig(TrainingConfig):
    """Settings for keeping intermediate policies."""

    keep_steps: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=list,
        description="Steps whose policies are kept whole in kept/STEP beside the output, rising and before the last: "
        "to evaluate a training's way, or for a stage of kind warm to start its members from.",
    )

    @field_validator("keep_steps")
    @classmethod
    def _rise_to_the_last(cls, steps: list[int], info: ValidationInfo) -> list[int]:
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError(f"found the steps {steps}, expected increasing order without repeats")
        if steps and steps[-1] >= info.data.get("steps", math.inf):
            raise ValueError(f"step {steps[-1]} is not before the last, {info.data['steps']}, which is the output")
        return steps


class DeepSpeedConfig(StrictModel):
    """Settings of training under DeepSpeed."""

    zero: Literal[0, 1, 2, 3, "auto"] = Field(
        "auto",
        description="ZeRO stage, what is sharded over processes: 0 nothing, 1 the optimiser's state, 2 gradients too, "
        "3 weights too. auto: the lowest from 1 that leaves half of a process's memory to activations.",
    )
    offload_optimizer: bool = Field(False, description="Keep the optimiser's state in CPU memory, and step there.")

    @model_validator(mode="after")
    def _something_to_offload(self) -> "DeepSpeedConfig":
        if self.offload_optimizer and self.zero == 0:
            raise ValueError(
                "offload_optimizer needs ZeRO: set `zero` to 1, 2, 3 or auto, or offload_optimizer to false"
            )
        return self


class EngineConfig(StrictModel):
    """The training engine: plain torch in one process by default, or DeepSpeed."""

    deepspeed: DeepSpeedConfig | None = Field(None, description="Train under DeepSpeed with these settings.")
    sequence_parallel: int = Field(
        1,
        ge=1,
        description="Number of processes that share each sequence, one slice each (DeepSpeed-Ulysses); only for "
        "stages of kind sft.",
    )
    report_to: list[str] = Field(
        default_factory=list, description="Experiment trackers, as in transformers: wandb, tensorboard."
    )


def parallel_fault(parallel: int, what: str, processes: int, *, deepspeed: bool) -> str | None:
    """Return why that many trainings of a stage (each a `what`) cannot run at once here; None if they can, or need
    not.
    """
    if parallel == 1 or (processes == 1 and not deepspeed):
        return None
    found = f"{processes} processes, which train" if processes > 1 else "DeepSpeed, which trains"
    return (
        f"found parallel {parallel} and {found} each {what}, expected parallel 1: {what}s in parallel need one process "
        "in plain torch"
    )
