"""vLLM's server on a local port, started for a block and ended with it."""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.processes import killed_by
from gemsmith.contracts.waits import waiting
from gemsmith.policy.config import SamplerConfig
from gemsmith.policy.samplers import vllm_engine, vllm_serve
from gemsmith.policy.samplers.completions_server import AT_ONCE
from gemsmith.policy.samplers.scratch import with_scratch
from gemsmith.policy.samplers.vllm_sampler import CPU_BLOCK

LAST_LINES = 5
GRACE = 10.0  # seconds that a server has to end


@contextmanager
def serving(folder: Path, config: SamplerConfig, log: Path, say: Callable[[str], None]) -> Iterator[str]:
    """Serve the policy in `folder`; yield the address, ending in /v1, of a server that is ready.

    Args:
        folder: folder of a policy that transformers saved, with its tokenizer.
        config: memory, and the limit of the wait for the start.
        log: file for the server's output.
        say: function that prints a line about the wait.

    Raises:
        UserError: vLLM is not installed, or the server ended or was not ready in time; the message has its last lines.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "The sampler's server is to be vLLM's, which is not installed: install it (WITH_VLLM=1 make setup in a "
            "checkout), give sampler.url of a server that runs, or set sampler.backend to transformers."
        )
    port, device = _free_port(), _device()
    address = f"http://127.0.0.1:{port}"
    say(f"starting vLLM's server on port {port}, which takes half a minute or more; it writes to {log}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gemsmith-served-", ignore_cleanup_errors=True) as scratch:
        environment = with_scratch(vllm_engine.variables(os.environ, device), Path(scratch))
        with log.open("wb") as output:
            server = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", vllm_serve.__name__, str(os.getpid())),
                    *_options(folder, port, config, device),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        try:
            with waiting(say, "vLLM's server to start", config.timeout):
                _wait_for(server, address, config.timeout, log)
            yield f"{address}/v1"
        finally:
            _end(server)


def _options(folder: Path, port: int, config: SamplerConfig, device: int | None) -> list[str]:
    """Return the options of `vllm serve`; they exclude the model's own sampling defaults, so that requests decide."""
    if device is None:
        memory = ["--kv-cache-memory-bytes", str(int(config.cache_gib * 2**30)), "--block-size", str(CPU_BLOCK)]
        memory += ["--dtype", "float32", "--enforce-eager", "--no-enable-chunked-prefill"]
    else:
        memory = ["--gpu-memory-utilization", str(config.gpu_memory)]
    return [
        *("--model", str(folder), "--served-model-name", "policy"),
        *("--host", "127.0.0.1", "--port", str(port), "--uvicorn-log-level", "warning"),
        *("--max-model-len", "-1", "--max-num-seqs", str(AT_ONCE)),
        *("--generation-config", "vllm", "--logprobs-mode", "processed_logprobs"),
        *memory,
    ]


def _wait_for(server: "subprocess.Popen[bytes]", address: str, limit: float, log: Path) -> None:
    begun = time.monotonic()
    while True:
        if server.poll() is not None:
            if server.returncode < 0:
                raise RunError(
                    f"vLLM's server was {killed_by(-server.returncode)} before it answered: {_last_lines(log)}"
                )
            raise UserError(f"vLLM's server ended with {server.returncode} before it answered: {_last_lines(log)}")
        try:
            if requests.get(f"{address}/health", timeout=5).ok:
                return
        except requests.RequestException:
            pass
        if time.monotonic() - begun > limit:
            raise UserError(f"vLLM's server did not answer within {limit:g} s (sampler.timeout): {_last_lines(log)}")
        time.sleep(0.5)


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End the server and its children: first with SIGTERM, then with SIGKILL."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, sent)
            server.wait(timeout=GRACE)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    server.wait()


def _last_lines(log: Path) -> str:
    """Return the last lines of an ended server's output: its last exception, if there is one."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    raised = [at for at, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception): ", line)]
    shown = lines[raised[-1] :][:LAST_LINES] if raised else lines[-LAST_LINES:]
    return " / ".join(line.strip() for line in shown) or "it wrote nothing"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _device() -> int | None:
    """Return the index of the GPU in use; None on a CPU."""
    import torch

    return torch.cuda.current_device() if torch.cuda.is_available() else None
