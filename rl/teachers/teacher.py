"""Interfaces of teachers: a teacher returns targets for the tokens of sequences, which the student's head uses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from gemsmith.policy.head.vocabulary_head import VocabularyScores
from gemsmith.rl.distillation.sampled_logits import Mode


@dataclass(frozen=True)
class TeacherRow:
    """One sequence for a teacher to score.

    Attributes:
        prompt: token ids of the prompt.
        completion: token ids of the completion; targets are computed for these.
        number: index of the row among the stage's demonstrations; -1 for a completion sampled from the student.
        task: the prompt's `task`, or None.
    """

    prompt: list[int]
    completion: list[int]
    number: int = -1
    task: str | None = None


class TokenTargets(Protocol):
    """Targets of M tokens, computed in chunks while the student's head processes them (`vocabulary_head.Targets`)."""

    @property
    def best_M(self) -> Tensor:
        """Teacher's most likely entry, [M]; -1 where it is unknown. Complete after the last chunk."""

    @property
    def own_M(self) -> Tensor:
        """Teacher's log-probability of the completion tokens, [M], in nats, at the teacher's temperature.

        NaN where it is unknown. Complete after the last chunk.
        """

    def choose(self, chunk: slice, student_CV: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids and weights, [C, K], of a chunk's rows, given the student's logits; a row's weights sum to 1."""

    def divergence(self, student: VocabularyScores) -> Tensor:
        """Return KL(teacher || student) of each token, [M], in nats; call it after `choose` for every chunk.

        It covers the whole vocabulary if the teacher is `exact`; else it is an estimate from the K entries.
        """

    def logprobs(self, chunk: slice) -> Tensor:
        """Return the teacher's log-probabilities of a chunk's rows, [C, V]; the caller may overwrite the tensor.

        Only for `exact` teachers. Call either this or `choose` for a chunk: both fill in `best_M` and `own_M`.
        """


class Teacher(Protocol):
    """One or several teachers behind one interface; opened before training and closed after it.

    Attributes:
        k: vocabulary entries per token.
        mode: how entries are chosen (`gemsmith.rl.distillation.sampled_logits.draw_targets`).
        exact: True if it provides the distribution over the whole vocabulary, chunk by chunk.
        on_policy: True if it can score sequences that were not known beforehand.
    """

    k: int
    mode: Mode
    exact: bool
    on_policy: bool

    def targets(self, rows: Sequence[TeacherRow], seeds: Sequence[int]) -> TokenTargets:
        """Return targets of the rows' M completion tokens in order; `seeds`, one per token, determine the samples."""

    def close(self) -> None:
        """Release connections and files."""
