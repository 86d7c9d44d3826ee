"""Teacher whose model runs in this process."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gemsmith.contracts.errors import UserError
from gemsmith.policy.head.logprobs import completion_hidden
from gemsmith.policy.head.tiled_matmul import chunk_logits, row_parts
from gemsmith.policy.policy import evaluating
from gemsmith.rl.distillation.sampled_logits import ExactTargets, Mode
from gemsmith.rl.teachers.teacher import TeacherRow

PADDING = 0  # id of Gemma's `<pad>`


class InProcessTeacher:
    """Teacher with a frozen model; its logits are computed for one chunk of tokens at a time."""

    exact = True
    on_policy = True

    def __init__(
        self, model: torch.nn.Module, k: int, mode: Mode, temperature: float = 1.0, used: int | None = None
    ) -> None:
        """Freeze `model`, which must be on its final device.

        Args:
            model: the teacher's model.
            k: see `draw_targets`.
            mode: see `draw_targets`.
            temperature: softmax temperature.
            used: rows of the vocabulary that the distribution covers; the logits of rows beyond them, which are
                padding, are never computed. None: all rows.
        """
        self.model = model.requires_grad_(False)
        self.k, self.mode, self.temperature, self.used = k, mode, temperature, used

    def targets(self, rows: Sequence[TeacherRow], seeds: Sequence[int]) -> ExactTargets:
        """Run the model up to the hidden states; the head is applied later, chunk by chunk with the student's.

        Raises:
            UserError: the hidden states contain NaN or infinity.
        """
        prompts = [self._readable(row.prompt) for row in rows]
        completions = [self._readable(row.completion) for row in rows]
        with torch.no_grad(), evaluating(self.model):
            hidden_MD, weight_VD = completion_hidden(self.model, prompts, completions)
        if not hidden_MD.isfinite().all():
            raise UserError(
                "the teacher's hidden states are not finite (NaN or infinity), although its weights are: set its dtype "
                "to float32 or bfloat16 if it is narrower, or check whether the training of the teacher diverged"
            )
        own_M = torch.tensor([token for row in rows for token in row.completion], device=hidden_MD.device)
        return ExactTargets(
            head_logprobs(hidden_MD, weight_VD[: self.used], self.temperature), own_M, self.k, self.mode, seeds
        )

    def _readable(self, tokens: list[int]) -> list[int]:
        """Return the tokens with padding for those that the teacher has no row for, as an untrained student samples."""
        rows = self.used
        if rows is None or max(tokens, default=0) < rows:
            return tokens
        return [token if token < rows else PADDING for token in tokens]

    def close(self) -> None:
        """Do nothing: no resource is open."""


def head_logprobs(hidden_MD: Tensor, weight_VD: Tensor, temperature: float = 1.0) -> Callable[[slice], Tensor]:
    """Return a function from a slice of the M tokens to log-probabilities, [C, V], computed when it is called.

    Args:
        hidden_MD: hidden states, [M, D].
        weight_VD: weight of the vocabulary head, [V, D].
        temperature: softmax temperature.
    """

    def logprobs(chunk: slice) -> Tensor:
        logits_CV = chunk_logits(hidden_MD[chunk], weight_VD)
        for part in row_parts(logits_CV):
            logits_RV = logits_CV[part].div_(temperature)
            logits_RV -= logits_RV.logsumexp(dim=-1, keepdim=True)
        return logits_CV

    return logprobs
