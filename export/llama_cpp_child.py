"""A child process that prints llama.cpp's most likely entries after each of some sequences, as JSON.

Usage: `python llama_cpp_child.py FILE THREADS ENTRIES TOKEN < SEQUENCES`. Sequences are lists of token ids, and the
output has ENTRIES pairs of an id and its log-probability in nats for each of them. TOKEN is any token that is plain
text. The library's messages go to stderr.
"""

import json
import os
import sys
from typing import Any


def main() -> None:
    """Answer what the command line and the input ask for."""
    path, (threads, entries, token) = sys.argv[1], map(int, sys.argv[2:])
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import xllamacpp

    sequences: list[list[int]] = json.load(sys.stdin)
    settings = xllamacpp.CommonParams()
    settings.model.path = path
    settings.n_ctx = max(len(ids) for ids in sequences) + 8
    settings.n_parallel = 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.warmup = False
    settings.verbosity = 1  # errors
    server = xllamacpp.Server(settings)
    json.dump([_likeliest(server, ids, entries, token) for ids in sequences], answer)
    answer.close()
    os._exit(0)  # its threads have nothing to save


def _likeliest(server: Any, ids: list[int], entries: int, token: int) -> list[tuple[int, float]]:
    # llama.cpp returns log-probabilities only with a sampled token that has text. An end token or half a character has
    # none, so the bias forces a token with text; the log-probabilities are from before the bias.
    asked = {"prompt": ids, "max_tokens": 1, "logprobs": entries, "logit_bias": [[token, 1000.0]]}
    found = server.handle_completions(asked)
    if "choices" not in found:
        raise SystemExit(f"llama.cpp refuses a sequence of {len(ids)} tokens: {found}")
    return [(each["id"], each["logprob"]) for each in found["choices"][0]["logprobs"]["content"][0]["top_logprobs"]]


if __name__ == "__main__":
    main()
