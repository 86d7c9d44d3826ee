"""A program for an `EngineProcess`: it doubles a number, and fails at anything else.

It sleeps on "sleep"; on "leave" and "orphan" a fork of it does, which holds its end of the connection open: one in a
session of its own, beside the program, and one that the program dies before.
"""

import os
import sys
import time

from gemsmith.policy.samplers.engine_process import serve


def answer(request):
    if request == "sleep":
        print("going to sleep", flush=True)
        time.sleep(600)
    if request in ("leave", "orphan"):
        if os.fork() == 0:
            os.setsid() if request == "leave" else None
            time.sleep(20)
            os._exit(0)
        time.sleep(600) if request == "leave" else os._exit(3)
    if not isinstance(request, int):
        raise ValueError(f"no number: {request}")
    return 2 * request


if __name__ == "__main__":
    serve(sys.argv[1:], answer)
