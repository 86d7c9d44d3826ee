"""Completions drawn from a policy by transformers: batched, left-padded, a prompt's cache shared by its samples."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from transformers import DynamicCache

from policy.chat import completion_text
from policy.config import SamplingConfig
from policy.distribution import draw, processed_logprobs
from policy.policy import Policy, evaluating
from policy.samplers.contract import Finish, Samples, Weights
from policy.samplers.length_limit import check_lengths
from policy.weight_set import WeightSet


class TransformersSampler:
    """Samples with the model that is being trained, in its process: nothing to start and nothing to keep in step."""

    def __init__(self, policy: Policy, config: SamplingConfig, anchor: WeightSet | None = None) -> None:
        """`anchor` is what `weights="anchor"` samples from."""
        self.policy = policy
        self.config = config
        self.anchor = anchor

    def sample(
        self,
        prompts: list[list[int]],
        n: int,
        seed: int,
        weights: Weights = "policy",
        greedy: bool = False,
        before: int = 0,
    ) -> Samples:
        """Draw n completions of each prompt; greedy takes the likeliest token each time.

        The global random generators are neither read nor changed, and the numbers behind one completion are its own:
        `config.batch` changes speed and memory, not what is drawn (up to rounding).

        Raises:
            UserError: a prompt and `max_tokens` do not fit the model's context together.
            ValueError: the anchor is asked for and there is none.
        """
        check_lengths(prompts, self.config.max_tokens, self.policy.model.config.max_position_embeddings)
        generator = torch.Generator().manual_seed(seed)
        uniform_ST = torch.rand(before + len(prompts) * n, self.config.max_tokens, generator=generator)[before:]
        order = [p * n + i for p in sorted(range(len(prompts)), key=lambda p: len(prompts[p])) for i in range(n)]
        ids: list[list[int]] = [[] for _ in order]
        logprobs: list[list[float]] = [[] for _ in order]
        with self._weights(weights), evaluating(self.policy.model), torch.inference_mode():
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
            raise ValueError("weights='anchor' was asked for, but the sampler was built without an anchor")
        return self.anchor.applied()

    def _complete(
        self, prompts: list[list[int]], uniform_BT: Tensor | None
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Ids and log-probabilities of one completion of each prompt; equal neighbours share one prefill."""
        batch = _Batch(self.policy, prompts)
        steps, device = self.config.max_tokens, self.policy.device
        ids_BT = torch.zeros(len(prompts), steps, dtype=torch.long, device=device)
        logprobs_BT = torch.zeros(len(prompts), steps, device=device)
        length_B = torch.full((len(prompts),), steps, device=device)
        ends = torch.tensor(self.policy.end_ids, device=device)
        uniform_BT = None if uniform_BT is None else uniform_BT.to(device)
        row_R = torch.arange(len(prompts), device=device)  # which of the B the R rows still computed are
        for step in range(steps):
            choice_RV = processed_logprobs(
                batch.logits_RV, self.config.temperature, self.config.top_k, self.config.top_p
            )
            token_R = choice_RV.argmax(-1) if uniform_BT is None else draw(choice_RV, uniform_BT[row_R, step])
            ids_BT[row_R, step] = token_R
            logprobs_BT[row_R, step] = choice_RV.gather(-1, token_R.unsqueeze(-1)).squeeze(-1)
            ended_R = torch.isin(token_R, ends)
            length_B[row_R[ended_R]] = length_B[row_R[ended_R]].clamp(max=step + 1)
            running_R = (length_B[row_R] == steps).nonzero().squeeze(-1)
            if step + 1 == steps or len(running_R) == 0:
                break
            if len(running_R) * 8 <= len(row_R) * 7:
                batch.keep(running_R)
                row_R, token_R = row_R[running_R], token_R[running_R]
            batch.advance(token_R)
        lengths = length_B.tolist()
        ids = [row[:length] for row, length in zip(ids_BT.tolist(), lengths, strict=True)]
        return ids, [row[:length] for row, length in zip(logprobs_BT.tolist(), lengths, strict=True)]


class _Batch:
    """Running sequences: their cache, what they attend to, and the logits of their next tokens."""

    logits_RV: Tensor

    def __init__(self, policy: Policy, prompts: list[list[int]]) -> None:
        self._model = policy.model
        self._cache = DynamicCache(config=policy.model.config)
        first_of_run = [i for i, prompt in enumerate(prompts) if i == 0 or prompt != prompts[i - 1]]
        width = max(len(prompt) for prompt in prompts)
        ids_UL = torch.zeros(len(first_of_run), width, dtype=torch.long)
        attended_UL = torch.zeros_like(ids_UL)
        for row, i in enumerate(first_of_run):
            ids_UL[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            attended_UL[row, width - len(prompts[i]) :] = 1
        self._attended_RL = attended_UL.to(policy.device)
        self._forward(ids_UL.to(policy.device), (self._attended_RL.cumsum(-1) - 1).clamp(min=0))
        if len(first_of_run) < len(prompts):
            run = torch.tensor([*first_of_run[1:], len(prompts)]) - torch.tensor(first_of_run)
            self.keep(torch.arange(len(first_of_run)).repeat_interleave(run).to(policy.device))

    def keep(self, index_R: Tensor) -> None:
        """Go on with these rows, in this order, some perhaps several times."""
        self._cache.batch_select_indices(index_R)
        self._attended_RL = self._attended_RL[index_R]
        self.logits_RV = self.logits_RV[index_R]

    def advance(self, token_R: Tensor) -> None:
        """Append a token to every row."""
        position_R1 = self._attended_RL.sum(-1, keepdim=True)
        self._attended_RL = torch.cat([self._attended_RL, torch.ones_like(position_R1)], dim=-1)
        self._forward(token_R.unsqueeze(-1), position_R1)

    def _forward(self, ids_RL: Tensor, position_RL: Tensor) -> None:
        self.logits_RV = self._model(
            input_ids=ids_RL,
            attention_mask=self._attended_RL,
            position_ids=position_RL,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
