"""Several teachers as one: each prompt's by its task, and the mean of the probabilities of those that share a task."""

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
    """The weighted mean of the members' probabilities, from which the entries are drawn."""

    exact = True
    on_policy = True

    def __init__(self, members: Sequence[Teacher], weights: Sequence[float]) -> None:
        """`weights` are relative. All members have their whole distribution, and the same K and mode."""
        self.members = members
        self.shares = [weight / sum(weights) for weight in weights]
        self.k, self.mode = members[0].k, members[0].mode

    def targets(self, rows: Sequence[TeacherRow], seeds: Sequence[int]) -> ExactTargets:
        """Draws from the mean; the members' own draws are not made."""
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
    """Asks for each row the teacher of its task."""

    def __init__(self, by_task: dict[str, Teacher], rest: Teacher | None) -> None:
        """`rest` answers for every other task, and for rows without one; None: nobody does."""
        self.by_task, self.rest = by_task, rest
        self._all = list({id(t): t for t in [*by_task.values(), *([rest] if rest else [])]}.values())
        self.k, self.mode = self._all[0].k, self._all[0].mode
        self.exact = all(teacher.exact for teacher in self._all)
        self.on_policy = all(teacher.on_policy for teacher in self._all)

    def of(self, row: TeacherRow) -> Teacher:
        """The teacher of a row.

        Raises:
            UserError: nobody answers for its task.
        """
        teacher = self.rest if row.task is None else self.by_task.get(row.task, self.rest)
        if teacher is None:
            task = "prompts without a task" if row.task is None else f'the task "{row.task}"'
            raise UserError(
                f"`teachers` names nobody for {task} (it names {', '.join(sorted(self.by_task))}): add it to the "
                "`tasks` of one, or a teacher without `tasks`, which takes the rest."
            )
        return teacher

    def check_tasks(self, rows: Sequence[TeacherRow], say: Callable[[str], None]) -> None:
        """Tell of tasks that no row has; whose rows another teacher takes, or nobody.

        Args:
            rows: all that will be asked about.
            say: told.

        Raises:
            UserError: such a task is nearly one that rows have.
        """
        present = {row.task for row in rows if row.task is not None}
        for task in (task for task in self.by_task if task not in present):
            found = f'`teachers` names a teacher for the task "{task}", which no row has (they have: '
            found += f"{', '.join(sorted(present)) or 'none'})"
            if hint := did_you_mean(task, present):
                raise UserError(f"{found}{hint}")
            say(f"{found}: it is not asked for that")

    def targets(self, rows: Sequence[TeacherRow], seeds: Sequence[int]) -> "PiecedTargets":
        """Each teacher is asked once, about its own rows."""
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
    """Targets of several teachers, each of which has some of the tokens, in their order."""

    def __init__(self, pieces: dict[int, TokenTargets], owner_M: Tensor) -> None:
        """`owner_M` says which of `pieces` has each token; on the CPU."""
        self.pieces, self.owner_M = pieces, owner_M

    @property
    def best_M(self) -> Tensor:
        """As `TokenTargets` has it."""
        return self._joined({number: piece.best_M for number, piece in self.pieces.items()})

    @property
    def own_M(self) -> Tensor:
        """As `TokenTargets` has it."""
        return self._joined({number: piece.own_M for number, piece in self.pieces.items()})

    def choose(self, chunk: slice, student_CV: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and weights, [C, K], of a chunk's rows; K is the widest piece's, and what is filled up weighs nothing."""
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
        """Each token's from its own teacher, [M], in nats."""
        found = {}
        for number, piece in self.pieces.items():
            mine_M = (self.owner_M == number).to(student.logprobs.device)
            own = {field.name: getattr(student, field.name)[mine_M] for field in fields(VocabularyScores)}
            found[number] = piece.divergence(VocabularyScores(**own))
        return self._joined(found)

    def logprobs(self, chunk: slice) -> Tensor:
        """Log-probabilities, [C, V], each token's from its own teacher."""
        found = [(mine_C, self.pieces[number].logprobs(own)) for number, mine_C, own in self._parts(chunk)]
        if len(found) == 1:
            return found[0][1]
        whole_CV = found[0][1].new_empty(len(found[0][0]), found[0][1].shape[1])
        for mine_C, logprobs in found:
            whole_CV[mine_C] = logprobs
        return whole_CV

    def _parts(self, chunk: slice) -> list[tuple[int, Tensor, slice]]:
        """Of a chunk: each piece's number, which of the chunk's tokens are its, and where they are among its own."""
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
    """K and mode that all of several teachers have.

    Raises:
        UserError: they differ.
    """
    found = {(teacher.k, teacher.mode) for teacher in teachers}
    if len(found) > 1:
        texts = " and ".join(f"{k} entries, {mode}" for k, mode in sorted(found))
        raise UserError(f"The teachers' targets differ ({texts}): expected one K and one mode for all.")
    return found.pop()
