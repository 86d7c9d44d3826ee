"""`vllm serve` on a port of this machine, started for a while and ended with it. Not run yet: see docs/sampling.md."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from contracts.errors import UserError
from policy.config import SamplerConfig

LAST_LINES = 5
GRACE = 10.0  # seconds that a server has to end


@contextmanager
def serving(folder: Path, config: SamplerConfig, log: Path, say: Callable[[str], None]) -> Iterator[str]:
    """Serve the policy in `folder`; the address, ending in /v1, of a server that answers.

    Args:
        folder: of a policy that transformers saved, with its tokenizer.
        config: memory, and the limit of the wait for the start.
        log: file for what the server writes.
        say: told that it takes a while.

    Raises:
        UserError: it ended, or did not answer in time; with the last lines that it wrote.
    """
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    say(f"starting `vllm serve` on port {port}, which takes about a minute; it writes to {log}")
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(folder), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--logprobs-mode", "processed_logprobs", "--served-model-name", "policy"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": str(max(1, round(config.cache_gib)))}
    if _on_cpu():
        command += ["--dtype", "float32"]
    else:
        command += ["--gpu-memory-utilization", str(config.gpu_memory)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        _wait_for(server, address, config.timeout, log)
        yield f"{address}/v1"
    finally:
        _end(server)


def _wait_for(server: "subprocess.Popen[bytes]", address: str, limit: float, log: Path) -> None:
    begun = time.monotonic()
    while True:
        if server.poll() is not None:
            raise UserError(f"`vllm serve` ended with {server.returncode} before it answered: {_last_lines(log)}")
        try:
            if requests.get(f"{address}/health", timeout=5).ok:
                return
        except requests.RequestException:
            pass
        if time.monotonic() - begun > limit:
            raise UserError(f"`vllm serve` did not answer within {limit:g} s (sampler.timeout): {_last_lines(log)}")
        time.sleep(0.5)


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End the server and all that it started: politely, then not."""
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
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-LAST_LINES:]) or "it wrote nothing"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _on_cpu() -> bool:
    import torch

    return not torch.cuda.is_available()
