"""Quantile estimator that is trained beside the policy (BOND, appendix B.1)."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from transformers import Gemma3TextForSequenceClassification, set_seed

from gemsmith.contracts.reading import reading
from gemsmith.policy.policy import Policy
from gemsmith.policy.training.sharding import plain_module
from gemsmith.reward_models.member import peft_config
from gemsmith.reward_models.model import from_policy
from gemsmith.rl.algorithms.algorithm import Rollouts
from gemsmith.rl.algorithms.bond_config import BondAlgorithm
from gemsmith.rl.algorithms.quantile import Placed

STATE = "quantile.pt"


class QuantileClassifier:
    """Classifier of p(x, y), the probability that an anchor sample for prompt x is not better than completion y.

    It starts from the policy's layers with a head of zeros, which predicts 1/2 everywhere: the mean quantile of the
    anchor's own samples. In each step it predicts the quantiles of the policy's samples and is then trained on them by
    one step of AdamW; the loss is the binary cross-entropy to the share of anchor samples that are not better. (The
    paper uses one anchor sample as label; the mean of several has the same expectation.) With LoRA it shares the
    policy's frozen weights.
    """

    def __init__(self, config: BondAlgorithm) -> None:
        """Read the learning rate, gradient clipping, LoRA settings and micro-batch size from the configuration."""
        self.learning_rate = config.quantile_learning_rate or config.learning_rate
        self.max_grad_norm, self.lora = config.max_grad_norm, config.lora
        self.batch = config.micro_batch or config.batch

    def begin(self, policy: Policy, seed: int) -> None:
        """Copy the policy's layers; call this before the policy gets adapters. `seed` initialises the classifier."""
        set_seed(seed)
        # deepcopy keeps objects found in its memo: with LoRA the copy shares the policy's frozen parameters.
        shared = {id(parameter): parameter for parameter in policy.model.parameters()} if self.lora else {}
        model: Any = copy.deepcopy(from_policy(policy), shared)
        model = peft.get_peft_model(model, peft_config(self.lora, 0.0)) if self.lora else model.float()
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimiser = torch.optim.AdamW(self._trained.values(), lr=self.learning_rate, weight_decay=0.0)

    def place(self, rollouts: Rollouts) -> tuple[Placed, dict[str, float]]:
        """Return log p of the policy's first sample of each prompt, [P], predicted before training on these samples.

        The metrics are `classifier/loss`, and `classifier/bias`: mean prediction minus mean share counted from the
        anchor's samples, which should approach 0.
        """
        policy, anchor = rollouts.policy, rollouts.anchor
        assert anchor is not None
        samples = policy.learnt_reward_PN.shape[1]
        sequences = [[*prompt, *policy.ids[samples * i]] for i, prompt in enumerate(rollouts.prompts)]
        share_P = (anchor.learnt_reward_PN <= policy.learnt_reward_PN[:, :1]).float().mean(dim=1)
        logit_P = self._learn(sequences, share_P)
        loss = binary_cross_entropy_with_logits(logit_P, share_P).item()
        bias = (logit_P.sigmoid() - share_P).mean().item()
        return Placed(logsigmoid(logit_P)), {"classifier/loss": loss, "classifier/bias": bias}

    def save(self, folder: Path) -> None:
        """Write the trained parameters and the optimiser's state into a checkpoint."""
        trained = {name: parameter.detach() for name, parameter in self._trained.items()}
        torch.save({"trained": trained, "optimiser": self.optimiser.state_dict()}, folder / STATE)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Load the parameters and the optimiser's state that `save` wrote."""
        path = folder / STATE
        with reading(path, "the state of the quantile classifier", "delete the checkpoint that it is in"):
            kept = torch.load(path, map_location="cpu", weights_only=True)
            for name, parameter in self._trained.items():
                parameter.copy_(kept["trained"][name])
            self.optimiser.load_state_dict(kept["optimiser"])

    @torch.enable_grad()
    def _learn(self, sequences: Sequence[Sequence[int]], share_P: Tensor) -> Tensor:
        """Take one optimiser step on the mean loss of all sequences; return their logits from before it, [P], CPU."""
        logit_P = torch.empty(len(sequences))
        self.optimiser.zero_grad()
        # Sorted by length, so that a micro-batch has little padding; logit_P keeps the caller's order.
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        for start in range(0, len(order), self.batch):
            chosen = order[start : start + self.batch]
            logit_S = logits(self.model, [sequences[i] for i in chosen])
            loss = binary_cross_entropy_with_logits(logit_S, share_P[chosen].to(logit_S.device), reduction="sum")
            (loss / len(sequences)).backward()
            logit_P[chosen] = logit_S.detach().cpu()
        torch.nn.utils.clip_grad_norm_(self._trained.values(), self.max_grad_norm)
        self.optimiser.step()
        return logit_P


def logits(model: Any, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Return the head's output at the last token of each sequence, [S], float32, with gradients.

    Sequences are padded on the right.
    """
    classifier: Gemma3TextForSequenceClassification = plain_module(model)
    length = max(len(sequence) for sequence in sequences)
    ids_ST = torch.full((len(sequences), length), classifier.config.pad_token_id or 0)
    mask_ST = torch.zeros_like(ids_ST)
    for row, sequence in enumerate(sequences):
        ids_ST[row, : len(sequence)] = torch.tensor(sequence)
        mask_ST[row, : len(sequence)] = 1
    device = next(classifier.parameters()).device
    hidden_STD = classifier.model(ids_ST.to(device), attention_mask=mask_ST.to(device), use_cache=False)
    last_SD = hidden_STD.last_hidden_state[torch.arange(len(sequences)), mask_ST.sum(dim=1) - 1]
    return classifier.score(last_SD)[:, 0].float()
