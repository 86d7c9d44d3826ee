"""A teacher whose model is in this process."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gemsmith.contracts.errors import UserError
from gemsmith.policy.head.logprobs import completion_hidden
from gemsmith.policy.head.tiled_matmul import chunk_logits, row_parts
from gemsmith.policy.policy import evaluating
from gemsmith.rl.distillation.sampled_logits import ExactTargets, Mode
from gemsmith.rl.teachers.teacher import TeacherRow


class InProcessTeacher:
    """A frozen model. Its logits exist for one chunk of tokens at a time, beside the student's."""

    exact = True
    on_policy = True

    def __init__(self, model: torch.nn.Module, k: int, mode: Mode, temperature: float = 1.0) -> None:
        """`model` is on the device where it is to stay; `k`, `mode`: `draw_targets`; `temperature`: of its softmax."""
        self.model = model.requires_grad_(False)
        self.k, self.mode, self.temperature = k, mode, temperature

    def targets(self, rows: Sequence[TeacherRow], seeds: Sequence[int]) -> ExactTargets:
        """One forward pass up to the hidden states; the head's product is taken as the student's head passes.

        Raises:
            UserError: what the model computes is not finite.
        """
        prompts, completions = [row.prompt for row in rows], [row.completion for row in rows]
        with torch.no_grad(), evaluating(self.model):
            hidden_MD, weight_VD = completion_hidden(self.model, prompts, completions)
        if not hidden_MD.isfinite().all():
            raise UserError(
                "the teacher computes numbers that are not finite, though its weights are: its dtype may be too narrow "
                "(take float32 or bfloat16), or the training that wrote it diverged"
            )
        own_M = torch.tensor([token for completion in completions for token in completion], device=hidden_MD.device)
        return ExactTargets(head_logprobs(hidden_MD, weight_VD, self.temperature), own_M, self.k, self.mode, seeds)

    def close(self) -> None:
        """Nothing is open."""


def head_logprobs(hidden_MD: Tensor, weight_VD: Tensor, temperature: float = 1.0) -> Callable[[slice], Tensor]:
    """Log-probabilities, [C, V], of any slice of M tokens, from a head's product at the time of asking."""

    def logprobs(chunk: slice) -> Tensor:
        logits_CV = chunk_logits(hidden_MD[chunk], weight_VD)
        for part in row_parts(logits_CV):
            logits_RV = logits_CV[part].div_(temperature)
            logits_RV -= logits_RV.logsumexp(dim=-1, keepdim=True)
        return logits_CV

    return logprobs
