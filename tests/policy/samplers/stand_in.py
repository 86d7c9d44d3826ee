"""A program for an `EngineProcess`: it doubles a number, sleeps on "sleep", and fails at anything else."""

import sys
import time

from policy.samplers.engine_process import serve


def answer(request):
    if request == "sleep":
        print("going to sleep", flush=True)
        time.sleep(600)
    if not isinstance(request, int):
        raise ValueError(f"no number: {request}")
    return 2 * request


if __name__ == "__main__":
    serve(sys.argv[1:], answer)
