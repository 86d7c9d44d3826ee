"""A teacher behind a server: the K likeliest entries of each token, as vLLM's completions give them for a prompt."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gemsmith.contracts.errors import UserError
from gemsmith.policy.samplers.completions_server import CompletionsServer
from gemsmith.rl.distillation.sampled_logits import Mode
from gemsmith.rl.teachers.sparse import SparseTargets
from gemsmith.rl.teachers.teacher import TeacherRow

Candidates = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _ServerAnswer:
    """Of one row's T completion tokens: [T, K] ids and log-probabilities, the likeliest first, and [T] of its own."""

    ids: list[list[int]]
    logprobs: list[list[float]]
    own: list[float]


class ServerTeacher:
    """Sends each sequence as a prompt and reads the log-probabilities of its tokens; no completion is wanted."""

    exact = False
    on_policy = True
    mode: Mode = "topk"

    def __init__(
        self,
        url: str,
        model: str | None,
        k: int,
        vocabulary: int,
        timeout: float,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        """Find the server, and the model among those that it serves.

        Args:
            url: as in `gemsmith.rl.teachers.config.TeacherConfig.server`.
            model: its name there; None: the first.
            k: entries a token.
            vocabulary: of the student, above every id.
            timeout: seconds that a call may take.
            device: where the student's logits are.
            say: told about long waits.

        Raises:
            UserError: no server answers, or it does not have the model.
        """
        self.k, self.vocabulary = k, vocabulary
        self.device = device
        self._server = CompletionsServer(url, timeout, "teacher's server", "teacher.timeout", say)
        served = self._server.served()
        if model is not None and model not in served:
            raise UserError(f"The teacher's server {url} serves {', '.join(served)}, and no {model!r}: see `model`.")
        self.model = model or served[0]

    def check(self, rows: Sequence[TeacherRow], decode: Callable[[list[int]], str]) -> None:
        """Ask about one row, and for the text of its tokens, before anything is learnt.

        Args:
            rows: that will be asked about.
            decode: text of token ids, by the student's tokenizer.

        Raises:
            UserError: the server cannot give what is needed, or its tokenizer is another one.
        """
        if not rows:
            return
        row = min(rows, key=lambda row: len(row.prompt) + len(row.completion))
        self.targets([row], [])
        tokens = [*row.prompt, *row.completion]
        root = self._server.url.removesuffix("/v1")
        theirs = self._server.detokenized(f"{root}/detokenize", self.model, tokens)
        if theirs is not None and theirs != decode(tokens):
            raise UserError(
                f"The teacher's server {self._server.url} reads the ids {tokens[:8]}... as {theirs[:60]!r}, and the "
                f"student's tokenizer as {decode(tokens)[:60]!r}: logits can only be distilled over one vocabulary."
            )

    def targets(self, rows: Sequence[TeacherRow], seeds: Sequence[int]) -> SparseTargets:
        """One request a row; nothing is drawn, so that `seeds` settle nothing.

        Raises:
            UserError: the server refuses, is too slow, or answers with something else.
        """
        bodies = [self._body(row) for row in rows]
        read = self._server.complete(bodies, lambda choice, i: self._read(choice, rows[i]), "ask about fewer rows")
        ids_MK = torch.tensor([ids for answer in read for ids in answer.ids], device=self.device)
        logprobs_MK = torch.tensor([values for answer in read for values in answer.logprobs], device=self.device)
        own_M = torch.tensor([value for answer in read for value in answer.own], device=self.device)
        return SparseTargets(ids_MK, logprobs_MK, logprobs_MK.softmax(dim=-1), own_M, drawn=False)

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def _body(self, row: TeacherRow) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": [*row.prompt, *row.completion],
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": self.k,
        }

    def _read(self, choice: dict[str, Any], row: TeacherRow) -> _ServerAnswer:
        """The completion's part of `prompt_logprobs`, which has an entry for each token of the sequence."""
        listed = choice.get("prompt_logprobs")
        length = len(row.prompt) + len(row.completion)
        if not isinstance(listed, list) or len(listed) != length:
            found = f"{len(listed)} entries" if isinstance(listed, list) else "none"
            raise UserError(
                f"The teacher's server {self._server.url} gives {found} as prompt_logprobs of {length} tokens, "
                f"expected one a token: `vllm serve MODEL --max-logprobs {self.k}` gives them."
            )
        tokens = [self._token(*pair) for pair in zip(listed[len(row.prompt) :], row.completion, strict=True)]
        return _ServerAnswer([t[0] for t in tokens], [t[1] for t in tokens], [t[2] for t in tokens])

    def _token(self, candidates: Candidates | None, own: int) -> tuple[list[int], list[float], float]:
        """The K likeliest; the server adds the sequence's own token where it is not among them."""
        try:
            found = sorted(((int(id), float(entry["logprob"])) for id, entry in (candidates or {}).items()), key=_worst)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f"The teacher's server {self._server.url} gives {str(candidates)[:80]} as log-probabilities of a "
                "token, expected ids with a `logprob` each, as vLLM's completions have."
            ) from error
        best = found[: self.k]
        if len(best) < self.k:
            raise UserError(
                f"The teacher's server {self._server.url} gives {len(best)} entries a token, and sampled_logits asks "
                f"for {self.k}: start it with --max-logprobs {self.k}, or lower sampled_logits."
            )
        if any(math.isnan(value) for _, value in found) or any(not 0 <= id < self.vocabulary for id, _ in best):
            raise UserError(
                f"The teacher's server {self._server.url} gives a log-probability that is not a number, or an id "
                f"outside the student's vocabulary of {self.vocabulary}: its model is damaged, or another one."
            )
        return [id for id, _ in best], [value for _, value in best], dict(found).get(own, math.nan)


def _worst(entry: tuple[int, float]) -> tuple[float, int]:
    return -entry[1], entry[0]
