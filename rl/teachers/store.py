"""Teacher whose precomputed targets are read from a store (curation/teacher_store/store.py)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gemsmith.contracts.errors import UserError
from gemsmith.curation.teacher_store.shard import Entries
from gemsmith.curation.teacher_store.store import TeacherStore
from gemsmith.rl.distillation.sampled_logits import Mode
from gemsmith.rl.teachers.sparse import SparseTargets, own_logprobs, used_entries
from gemsmith.rl.teachers.teacher import TeacherRow


class StoreTeacher:
    """Teacher that reads one stored sample per token; every epoch and every student sees the same one."""

    exact = False
    on_policy = False

    def __init__(self, store: TeacherStore, device: torch.device, used: int | None = None) -> None:
        """Read from `store` and put targets on `device`, the device of the student's logits.

        `used` is the number of rows of the vocabulary that the student uses; entries beyond them are cut.
        """
        self.store, self.device = store, device
        self.used = used or store.about.vocabulary
        self.k, self.temperature = store.about.k, store.about.temperature
        self.mode: Mode = store.about.mode

    def check(self, rows: Sequence[TeacherRow]) -> None:
        """Check that the store has every row.

        Raises:
            UserError: a row is not in the store.
        """
        missing = [row for row in rows if self.store.find(row.prompt, row.completion, row.number) is None]
        if not missing:
            return
        about = self.store.about
        longest = max(len(row.prompt) + len(row.completion) for row in missing)
        if longest > about.max_length:
            why = (
                f"the store was written with max_length {about.max_length}, but the longest of them has {longest} "
                f"tokens: lower max_length to {about.max_length}, or write a store with a larger max_length"
            )
        else:
            why = (
                "they are other demonstrations, or have other tokens because of another chat format or seed: write a "
                "store from this stage's data"
            )
        raise UserError(
            f"{len(missing)} of {len(rows)} demonstrations are not in the store {self.store.folder}, the first of "
            f"them number {missing[0].number}; {why}."
        )

    def targets(self, rows: Sequence[TeacherRow], seeds: Sequence[int]) -> SparseTargets:
        """Return the stored targets of the rows' tokens; `seeds` are ignored."""
        found = [self._entries(row) for row in rows]
        width = max((entries.ids.shape[1] for entries in found), default=1)
        ids_MK, logprobs_MK, weights_MK = (
            torch.cat(parts).to(self.device)
            for parts in zip(*(_padded(entries, width) for entries in found), strict=True)
        )
        ids_MK, logprobs_MK, weights_MK = used_entries(ids_MK, logprobs_MK, weights_MK, self.used)
        own_M = torch.tensor([token for row in rows for token in row.completion], device=self.device)
        return SparseTargets(
            ids_MK, logprobs_MK, weights_MK, own_logprobs(ids_MK, logprobs_MK, own_M), drawn=self.mode != "topk"
        )

    def _entries(self, row: TeacherRow) -> Entries:
        place = self.store.find(row.prompt, row.completion, row.number)
        if place is None:
            raise UserError(
                f"The store {self.store.folder} has no targets for a row of {len(row.prompt)} and "
                f"{len(row.completion)} tokens: a store can only score the demonstrations that it was written from."
            )
        return self.store.row(place)

    def close(self) -> None:
        """Do nothing: a mapped file closes when the last tensor that was read from it is freed."""


def _padded(entries: Entries, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, log-probabilities and weights of a row, [M, width]; padding repeats the first entry with weight 0."""
    ids_MK, logprobs_MK = torch.from_numpy(entries.ids), torch.from_numpy(entries.logprobs)
    if entries.counts is None:
        return ids_MK, logprobs_MK, logprobs_MK.softmax(dim=-1)
    counts_MK = torch.from_numpy(entries.counts).float()
    weights_MK = counts_MK / counts_MK.sum(dim=-1, keepdim=True)
    more = width - ids_MK.shape[1]
    if more:
        ids_MK = torch.cat([ids_MK, ids_MK[:, :1].expand(-1, more)], dim=-1)
        logprobs_MK = torch.cat([logprobs_MK, logprobs_MK[:, :1].expand(-1, more)], dim=-1)
        weights_MK = torch.nn.functional.pad(weights_MK, (0, more))
    return ids_MK, logprobs_MK, weights_MK
