"""Several teachers as one: selection by the prompt's task, and ensembles that average probabilities."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.suggestions import did_you_mean
from gemsmith.policy.head.vocabulary_head import VocabularyScores
from gemsmith.rl.distillation.sampled_logits import ExactTargets, Mode
from gemsmith.rl.teachers.teacher import Teacher, TeacherRow, TokenTargets


class Ensemble:
    """Teacher whose distribution is the weighted mean of its members' probabilities."""

    exact = True
    on_policy = True

    def __init__(self, members: Sequence[Teacher], weights: Sequence[float]) -> None:
        """Combine `members`, which must be `exact` and have the same K and mode; `weights` are relative."""
        self.members = members
        self.shares = [weight / sum(weights) for weight in weights]
        self.k, self.mode = members[0].k, members[0].mode

    def targets(self, rows: Sequence[TeacherRow], seeds: Sequence[int]) -> ExactTargets:
        """Return targets sampled from the mean distribution; the members do not sample."""
        asked = [member.targets(rows, seeds) for member in self.members]
        own_M = torch.tensor([token for row in rows for token in row.completion], device=asked[0].own_M.device)
        return ExactTargets(self._mean(asked), own_M, self.k, self.mode, seeds)

    def _mean(self, asked: Sequence[TokenTargets]) -> Callable[[slice], Tensor]:
        def logprobs(chunk: slice) -> Tensor:
            mean_CV = asked[0].logprobs(chunk).add_(math.log(self.shares[0]))
            for share, member in zip(self.shares[1:], asked[1:], strict=True):
                torch.logaddexp(mean_CV, member.logprobs(chunk).add_(math.log(share)), out=mean_CV)
            return mean_CV

        return logprobs

    def close(self) -> None:
        """Close the members."""
        for member in self.members:
            member.close()


class TeachersByTask:
    """Teacher that scores each row with the teacher of its task."""

    def __init__(self, by_task: dict[str, Teacher], rest: Teacher | None) -> None:
        """Combine teachers; `rest` scores rows of other tasks and rows without a task (None: these are an error)."""
        self.by_task, self.rest = by_task, rest
        self._all = list({id(t): t for t in [*by_task.values(), *([rest] if rest else [])]}.values())
        self.k, self.mode = self._all[0].k, self._all[0].mode
        self.exact = all(teacher.exact for teacher in self._all)
        self.on_policy = all(teacher.on_policy for teacher in self._all)

    def of(self, row: TeacherRow) -> Teacher:
        """Return the teacher of a row.

        Raises:
            UserError: no teacher covers its task.
        """
        teacher = self.rest if row.task is None else self.by_task.get(row.task, self.rest)
        if teacher is None:
            task = "prompts without a task" if row.task is None else f'the task "{row.task}"'
            raise UserError(
                f"`teachers` has no teacher for {task} (it covers {', '.join(sorted(self.by_task))}): add the task to "
                "the `tasks` of a teacher, or add a teacher without `tasks`, which covers all other prompts."
            )
        return teacher

    def check_tasks(self, rows: Sequence[TeacherRow], say: Callable[[str], None]) -> None:
        """Report tasks of teachers that no row has.

        Args:
            rows: all rows that will be scored.
            say: called with one message per unused task.

        Raises:
            UserError: an unused task is probably a misspelling of a task that rows have.
        """
        present = {row.task for row in rows if row.task is not None}
        for task in (task for task in self.by_task if task not in present):
            found = f'`teachers` has a teacher for the task "{task}", but no row has this task (tasks of the rows: '
            found += f"{', '.join(sorted(present)) or 'none'})"
            if hint := did_you_mean(task, present):
                raise UserError(f"{found}{hint}")
            say(f"{found}: the teacher is not used for it")

    def targets(self, rows: Sequence[TeacherRow], seeds: Sequence[int]) -> "PiecedTargets":
        """Call each teacher once, with its own rows and seeds, and combine the targets."""
        teachers = [self.of(row) for row in rows]
        lengths = [len(row.completion) for row in rows]
        owner_M = torch.tensor([self._all.index(t) for t in teachers]).repeat_interleave(torch.tensor(lengths))
        pieces: dict[int, TokenTargets] = {}
        for number, teacher in enumerate(self._all):
            if mine := [row for row, other in zip(rows, teachers, strict=True) if other is teacher]:
                own = [seed for seed, owner in zip(seeds, owner_M.tolist(), strict=True) if owner == number]
                pieces[number] = teacher.targets(mine, own)
        return PiecedTargets(pieces, owner_M)

    def close(self) -> None:
        """Close every teacher."""
        for teacher in self._all:
            teacher.close()


class PiecedTargets:
    """Targets combined from several teachers, each of which scored a subset of the tokens, in order."""

    def __init__(self, pieces: dict[int, TokenTargets], owner_M: Tensor) -> None:
        """Combine `pieces`; `owner_M`, on the CPU, holds the key in `pieces` of each token's teacher."""
        self.pieces, self.owner_M = pieces, owner_M

    @property
    def best_M(self) -> Tensor:
        """Most likely entry of each token's teacher, [M]; -1 where it is unknown."""
        return self._joined({number: piece.best_M for number, piece in self.pieces.items()})

    @property
    def own_M(self) -> Tensor:
        """Teacher's log-probability of each completion token, [M], in nats; NaN where it is unknown."""
        return self._joined({number: piece.own_M for number, piece in self.pieces.items()})

    def choose(self, chunk: slice, student_CV: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids and weights, [C, K], of a chunk's rows; K is the largest of the pieces, padding has weight 0."""
        found = []
        for number, mine_C, own in self._parts(chunk):
            found.append((mine_C, *self.pieces[number].choose(own, student_CV[mine_C.to(student_CV.device)])))
        width = max(ids.shape[1] for _, ids, _ in found)
        ids_CK = found[0][1].new_zeros(len(student_CV), width)
        weights_CK = found[0][2].new_zeros(len(student_CV), width)
        for mine_C, ids, weights in found:
            ids_CK[mine_C, : ids.shape[1]] = ids
            weights_CK[mine_C, : ids.shape[1]] = weights
        return ids_CK, weights_CK

    def divergence(self, student: VocabularyScores) -> Tensor:
        """Return the divergence of each token from its own teacher, [M], in nats."""
        found = {}
        for number, piece in self.pieces.items():
            mine_M = (self.owner_M == number).to(student.logprobs.device)
            own = {field.name: getattr(student, field.name)[mine_M] for field in fields(VocabularyScores)}
            found[number] = piece.divergence(VocabularyScores(**own))
        return self._joined(found)

    def logprobs(self, chunk: slice) -> Tensor:
        """Return log-probabilities, [C, V], each row from its token's teacher."""
        found = [(mine_C, self.pieces[number].logprobs(own)) for number, mine_C, own in self._parts(chunk)]
        if len(found) == 1:
            return found[0][1]
        whole_CV = found[0][1].new_empty(len(found[0][0]), found[0][1].shape[1])
        for mine_C, logprobs in found:
            whole_CV[mine_C] = logprobs
        return whole_CV

    def _parts(self, chunk: slice) -> list[tuple[int, Tensor, slice]]:
        """For each teacher in a chunk, return its number, the mask of its tokens, and their slice in its own order."""
        owner_C, before = self.owner_M[chunk], self.owner_M[: chunk.start]
        parts = []
        for number in self.pieces:
            mine_C = owner_C == number
            if count := int(mine_C.sum()):
                start = int((before == number).sum())
                parts.append((number, mine_C, slice(start, start + count)))
        return parts

    def _joined(self, values: dict[int, Tensor]) -> Tensor:
        first = next(iter(values.values()))
        whole_M = first.new_empty(len(self.owner_M))
        for number, value in values.items():
            whole_M[(self.owner_M == number).to(first.device)] = value
        return whole_M


def same_draws(teachers: Sequence[Teacher]) -> tuple[int, Mode]:
    """Return the K and mode that all teachers share.

    Raises:
        UserError: the teachers differ in K or mode.
    """
    found = {(teacher.k, teacher.mode) for teacher in teachers}
    if len(found) > 1:
        texts = " and ".join(f"{k} entries, {mode}" for k, mode in sorted(found))
        raise UserError(
            f"The teachers differ in K or mode ({texts}): set the same sampled_logits and mode for all of them."
        )
    return found.pop()
