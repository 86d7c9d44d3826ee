"""Teacher on a server: the K most likely entries per token, from `prompt_logprobs` of vLLM's completions API."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gemsmith.contracts.errors import UserError
from gemsmith.policy.samplers.completions_server import CompletionsServer
from gemsmith.rl.distillation.sampled_logits import Mode
from gemsmith.rl.teachers.sparse import SparseTargets, used_entries
from gemsmith.rl.teachers.teacher import TeacherRow

Candidates = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _ServerAnswer:
    """Scores of one row's T completion tokens.

    Attributes:
        ids: ids of the K most likely entries, [T, K], most likely first.
        logprobs: their log-probabilities, [T, K].
        own: log-probabilities of the completion's tokens, [T]; NaN where the server gave none.
    """

    ids: list[list[int]]
    logprobs: list[list[float]]
    own: list[float]


class ServerTeacher:
    """Teacher that sends each sequence to a server as a prompt and reads the log-probabilities of its tokens."""

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
        """Connect to the server and select one of its models.

        Args:
            url: address; see `gemsmith.rl.teachers.config.TeacherConfig.server`.
            model: name of the served model; None selects the first.
            k: entries per token.
            vocabulary: rows of the vocabulary that the student uses; entries beyond them are cut.
            timeout: longest time in seconds for one call.
            device: device of the student's logits.
            say: called with a message when a call takes long.

        Raises:
            UserError: no server answers, or the server does not serve the model.
        """
        self.k, self.vocabulary = k, vocabulary
        self.device = device
        self._server = CompletionsServer(url, timeout, "teacher's server", "teacher.timeout", say)
        served = self._server.served()
        if model is not None and model not in served:
            raise UserError(
                f"The teacher's server {url} does not serve {model!r}; it serves {', '.join(served)}: change "
                "teacher.model."
            )
        self.model = model or served[0]

    def check(self, rows: Sequence[TeacherRow], decode: Callable[[list[int]], str]) -> None:
        """Score the shortest row as a test, and compare the server's tokenizer with the student's.

        Args:
            rows: rows that the teacher will score.
            decode: the student's function from token ids to text.

        Raises:
            UserError: the server's answer is unusable, or its tokenizer differs from the student's.
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
                f"The teacher's server {self._server.url} has another tokenizer than the student: it decodes the ids "
                f"{tokens[:8]}... as {theirs[:60]!r}, and the student decodes them as {decode(tokens)[:60]!r}. Use a "
                "teacher with the student's tokenizer."
            )

    def targets(self, rows: Sequence[TeacherRow], seeds: Sequence[int]) -> SparseTargets:
        """Send one request per row; `seeds` are ignored, because nothing is sampled.

        Raises:
            UserError: the server refuses the request, exceeds the timeout, or gives an unusable answer.
        """
        bodies = [self._body(row) for row in rows]
        read = self._server.complete(bodies, lambda choice, i: self._read(choice, rows[i]), "ask about fewer rows")
        ids_MK = torch.tensor([ids for answer in read for ids in answer.ids], device=self.device)
        logprobs_MK = torch.tensor([values for answer in read for values in answer.logprobs], device=self.device)
        own_M = torch.tensor([value for answer in read for value in answer.own], device=self.device)
        weights_MK = logprobs_MK.softmax(dim=-1)
        return SparseTargets(*used_entries(ids_MK, logprobs_MK, weights_MK, self.vocabulary), own_M, drawn=False)

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
        """Read the completion's part of `prompt_logprobs`, which has one entry per token of the sequence."""
        listed = choice.get("prompt_logprobs")
        length = len(row.prompt) + len(row.completion)
        if not isinstance(listed, list) or len(listed) != length:
            found = f"{len(listed)} entries" if isinstance(listed, list) else "none"
            raise UserError(
                f"The teacher's server {self._server.url} gives {found} as prompt_logprobs of {length} tokens, "
                f"expected one entry per token: start the server with `vllm serve MODEL --max-logprobs {self.k}`."
            )
        tokens = [self._token(*pair) for pair in zip(listed[len(row.prompt) :], row.completion, strict=True)]
        return _ServerAnswer([t[0] for t in tokens], [t[1] for t in tokens], [t[2] for t in tokens])

    def _token(self, candidates: Candidates | None, own: int) -> tuple[list[int], list[float], float]:
        """Return ids and log-probabilities of the K most likely entries, and the log-probability of the token itself.

        vLLM adds the sequence's own token to the candidates if it is not among the K most likely.
        """
        try:
            found = sorted(((int(id), float(entry["logprob"])) for id, entry in (candidates or {}).items()), key=_worst)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f"The teacher's server {self._server.url} gives {str(candidates)[:80]} as log-probabilities of a "
                "token, expected ids with a `logprob` each, as in vLLM's completions API."
            ) from error
        best = found[: self.k]
        if len(best) < self.k:
            raise UserError(
                f"The teacher's server {self._server.url} gives {len(best)} entries per token, but sampled_logits is "
                f"{self.k}: start the server with --max-logprobs {self.k}, or lower sampled_logits."
            )
        if any(math.isnan(value) for _, value in found) or not 0 <= best[0][0] < self.vocabulary:
            raise UserError(
                f"The teacher's server {self._server.url} gives a log-probability that is NaN, or as the most likely "
                f"entry an id outside the student's vocabulary of {self.vocabulary}: check that it serves the right "
                "model and that the weights are intact."
            )
        return [id for id, _ in best], [value for _, value in best], dict(found).get(own, math.nan)


def _worst(entry: tuple[int, float]) -> tuple[float, int]:
    return -entry[1], entry[0]
