"""Sampling with transformers: prompts sorted by length, each prefilled once for all its samples."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from gemsmith.policy.config import SamplingConfig
from gemsmith.policy.head.distribution import choose
from gemsmith.policy.policy import Policy, evaluating
from gemsmith.policy.samplers.contract import Finish, Samples, Weights, check_lengths
from gemsmith.policy.samplers.running import Running
from gemsmith.policy.samplers.tiled_head import tiled_head
from gemsmith.policy.text.chat import completion_text
from gemsmith.policy.weight_set import WeightSet

LEAVE = 16  # rows leave the batch when so many of it, one in 16, have ended


class TransformersSampler:
    """Sampler that uses the trained model in its own process: nothing to start and nothing to synchronise."""

    same_weights = True

    def __init__(self, policy: Policy, config: SamplingConfig, anchor: WeightSet | None = None) -> None:
        """Create a sampler; `anchor` are the weights for `weights="anchor"`."""
        self.policy = policy
        self.config = config
        self.anchor = anchor

    def sync(self) -> None:
        """Do nothing: the weights are the trainer's."""

    def close(self) -> None:
        """Do nothing: there is no engine."""

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

        The global random generators are neither read nor changed, and each completion has its own random numbers:
        `config.batch` changes speed and memory, not the samples (up to rounding).

        Raises:
            UserError: a prompt and `max_tokens` do not fit the model's context together.
            ValueError: `weights` is "anchor" but there is no anchor.
        """
        model = self.policy.model
        check_lengths(prompts, self.config.max_tokens, model.config.max_position_embeddings)
        generator = torch.Generator().manual_seed(seed)
        # One number per completion and step, drawn in advance: neither the batch size nor the number of processes
        # changes which number decides which token.
        uniform_ST = torch.rand(before + len(prompts) * n, self.config.max_tokens, generator=generator)[before:]
        # Sorted by length, with the samples of a prompt adjacent: prefill needs little padding and runs once per
        # prompt.
        order = [p * n + i for p in sorted(range(len(prompts)), key=lambda p: len(prompts[p])) for i in range(n)]
        ids: list[list[int]] = [[] for _ in order]
        logprobs: list[list[float]] = [[] for _ in order]
        with self._weights(weights), evaluating(model), tiled_head(model), torch.inference_mode():
            for start in range(0, len(order), self.config.batch):
                rows = order[start : start + self.config.batch]
                drawn = self._complete([prompts[row // n] for row in rows], None if greedy else uniform_ST[rows])
                for row, row_ids, row_logprobs in zip(rows, *drawn, strict=True):
                    ids[row], logprobs[row] = row_ids, row_logprobs
        text = [completion_text(self.policy.tokenizer, row) for row in ids]
        finish: list[Finish] = ["stop" if row[-1] in self.policy.end_ids else "length" for row in ids]
        return Samples(ids, logprobs, text, finish)

    def _weights(self, weights: Weights) -> AbstractContextManager[None]:
        if weights == "policy":
            return nullcontext()
        if self.anchor is None:
            raise ValueError("weights='anchor' was requested, but the sampler has no anchor")
        return self.anchor.applied()

    def _complete(
        self, prompts: list[list[int]], uniform_BT: Tensor | None
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Return ids and log-probabilities of one completion per prompt; prompts are sorted by length, equal ones
        adjacent.
        """
        steps, device = self.config.max_tokens, self.policy.device
        ids_BT = torch.zeros(len(prompts), steps, dtype=torch.long, device=device)
        logprobs_BT = torch.zeros(len(prompts), steps, device=device)
        length_B = torch.full((len(prompts),), steps, device=device)
        ends = torch.tensor(self.policy.end_ids, device=device)
        uniform_BT = None if uniform_BT is None else uniform_BT.to(device)
        row_R = torch.arange(len(prompts), device=device)  # which of the B the R rows still computed are
        running = Running(self.policy, prompts, steps)
        for step in range(steps):
            uniform_R = None if uniform_BT is None else uniform_BT[row_R, step]
            token_R, logprobs_BT[row_R, step] = choose(
                running.logits_RV, uniform_R, self.config.temperature, self.config.top_k, self.config.top_p
            )
            ids_BT[row_R, step] = token_R
            # The first end token fixes a row's length; tokens after it are computed while the row waits to be dropped,
            # and cut off below.
            length_B[row_R] = torch.where(
                torch.isin(token_R, ends), length_B[row_R].clamp(max=step + 1), length_B[row_R]
            )
            ended_R = length_B[row_R] <= step + 1
            ended = int(ended_R.sum())
            if ended == len(row_R):
                break
            # Rows that ended are computed along until they are a large enough share: moving the cache costs more than a
            # few rows' arithmetic.
            if ended * LEAVE >= len(row_R):
                order_R = running.drop(ended_R)
                row_R, token_R = row_R[order_R], token_R[order_R]
            running.advance(token_R)
        lengths = length_B.tolist()
        ids = [row[:length] for row, length in zip(ids_BT.tolist(), lengths, strict=True)]
        return ids, [row[:length] for row, length in zip(logprobs_BT.tolist(), lengths, strict=True)]
