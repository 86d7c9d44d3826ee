"""Scoring of completions by a reward model."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Gemma3TextForSequenceClassification

from gemsmith.contracts.errors import UserError
from gemsmith.policy.text.chat import completion_ids, prompt_ids
from gemsmith.reward_models.model import load_reward_model, load_tokenizer


class RewardScorer:
    """Reward model in evaluation mode that scores completions.

    Args:
        folder: folder of a reward model, such as the output of a `warm` stage.
        batch: number of completions per forward pass.
    """

    def __init__(self, folder: Path, batch: int) -> None:
        self.model = load_reward_model(folder)
        self.model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self.tokenizer = load_tokenizer(folder)
        self.batch = batch
        self._folder = folder

    def score(self, messages: Sequence[Sequence[Mapping[str, Any]]], completions: Sequence[str]) -> list[float]:
        """Return the reward of each completion as the answer to its conversation; equal inputs get equal rewards.

        Args:
            messages: conversation of each completion, up to the user's last turn.
            completions: answers to score, without control tokens.

        Raises:
            UserError: a conversation and its completion are longer than the reward model's context.
        """
        sequences = [
            prompt_ids(self.tokenizer, conversation) + completion_ids(self.tokenizer, completion)
            for conversation, completion in zip(messages, completions, strict=True)
        ]
        longest, context = max(map(len, sequences), default=0), self.model.config.max_position_embeddings
        if longest > context:
            raise UserError(
                f"a prompt and its completion have {longest} tokens together, but the context of {self._folder} is "
                f"{context}: lower sampling.max_tokens, remove long prompts, or extend the context in the stage that "
                "trains the reward model (`policy: {rope: {factor: ...}}`)."
            )
        return score_sequences(self.model, sequences, self.batch)


def score_sequences(
    model: Gemma3TextForSequenceClassification, sequences: Sequence[Sequence[int]], batch: int
) -> list[float]:
    """Return the float32 reward of each sequence of token ids; equal sequences are computed once.

    Args:
        model: a reward model in evaluation mode.
        sequences: token ids of prompts with their completions.
        batch: number of sequences per forward pass.
    """
    distinct = list(dict.fromkeys(tuple(ids) for ids in sequences))
    rewards_S = last_features(model, distinct, batch) @ model.score.weight.detach().float()[0].cpu()
    reward_of = dict(zip(distinct, rewards_S.tolist(), strict=True))
    return [reward_of[tuple(ids)] for ids in sequences]


@torch.no_grad()
def last_features(model: Gemma3TextForSequenceClassification, sequences: Sequence[Sequence[int]], batch: int) -> Tensor:
    """Return the last layer's output at the last token of each sequence, [S, H], float32 on the CPU.

    These are the inputs of the head. Batches hold sequences of similar length to save padding. Padding is on the right,
    where causal attention ignores it, so a sequence's features do not depend on its batch (except by rounding).
    """
    features_SH = torch.empty(len(sequences), model.config.hidden_size)
    for chosen in _by_length(sequences, batch):
        length = max(len(sequences[i]) for i in chosen)
        ids_ST = torch.full((len(chosen), length), model.config.pad_token_id or 0)
        mask_ST = torch.zeros_like(ids_ST)
        for row, i in enumerate(chosen):
            ids_ST[row, : len(sequences[i])] = torch.tensor(sequences[i])
            mask_ST[row, : len(sequences[i])] = 1
        output = model.model(ids_ST.to(model.device), attention_mask=mask_ST.to(model.device), use_cache=False)
        last_S = mask_ST.sum(dim=1) - 1
        features_SH[chosen] = output.last_hidden_state[torch.arange(len(chosen)), last_S].float().cpu()
    return features_SH


def _by_length(sequences: Sequence[Sequence[int]], batch: int) -> Iterator[list[int]]:
    """Yield the indices of up to `batch` sequences of similar lengths."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for start in range(0, len(order), batch):
        yield order[start : start + batch]
