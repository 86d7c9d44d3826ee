"""What distillation asks of a teacher: targets, for the tokens of some sequences, that a student's head takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from gemsmith.policy.head.vocabulary_head import VocabularyScores
from gemsmith.rl.distillation.sampled_logits import Mode


@dataclass(frozen=True)
class TeacherRow:
    """One sequence that a teacher is asked about.

    Attributes:
        prompt: token ids.
        completion: token ids; the targets are of these.
        number: of the row in the stage's demonstrations; -1 for a completion that the student wrote itself.
        task: the prompt's `task`, where it has one.
    """

    prompt: list[int]
    completion: list[int]
    number: int = -1
    task: str | None = None


class TokenTargets(Protocol):
    """A teacher's word on M tokens, given while the student's head passes over them (`vocabulary_head.Targets`)."""

    @property
    def best_M(self) -> Tensor:
        """The teacher's likeliest entry, [M]; -1 where it is not known. Whole once every chunk has passed."""

    @property
    def own_M(self) -> Tensor:
        """The teacher's log-probability of the completions' own tokens, [M], in nats, at the teacher's temperature.

        It is nan where it is not known. Whole once every chunk has passed.
        """

    def choose(self, chunk: slice, student_CV: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and weights, [C, K], of a chunk's rows; the weights of a row sum to 1. `student_CV` are logits."""

    def divergence(self, student: VocabularyScores) -> Tensor:
        """KL(teacher || student) of each token, [M], in nats, once every chunk has passed `choose`.

        Over the whole vocabulary where the teacher is `exact`; else over the K entries, as well as they tell.
        """

    def logprobs(self, chunk: slice) -> Tensor:
        """The teacher's log-probabilities of a chunk's rows, [C, V], the caller's to write into; `exact` alone has it.

        Whoever asks this does not ask `choose`; it too fills in `best_M` and `own_M`.
        """


class Teacher(Protocol):
    """Answers for one teacher or several; opened before training and closed after it.

    Attributes:
        k: vocabulary entries a token.
        mode: how they are drawn (`gemsmith.rl.distillation.sampled_logits.draw_targets`).
        exact: whether it has the distribution over the whole vocabulary at hand, a chunk at a time.
        on_policy: whether it can be asked about sequences that were not known beforehand.
    """

    k: int
    mode: Mode
    exact: bool
    on_policy: bool

    def targets(self, rows: Sequence[TeacherRow], seeds: Sequence[int]) -> TokenTargets:
        """Of the rows' M completion tokens in order; `seeds`, one a token, settle the draws."""

    def close(self) -> None:
        """Let go of whatever was opened."""
