"""A Python that has imported the heavy packages once, and forks a fresh process for each program that it is given.

Importing torch, transformers, trl and DeepSpeed takes ten seconds of processor time, a stage on `tiny` takes one. A
forked process has its own id, memory, working folder, variables and output; it can be killed with SIGKILL, and its
exit code is that of any other program. The server only ever imports: nothing that a program does reaches the next one.

As a program: `python -P warm_python.py FD` serves the requests that come through the socket FD.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRELOADED = (
    "deepspeed.runtime.zero.muon.muon_optimizer",  # which DeepSpeed imports as it begins, and torch's compiler with it
    "datasets",
    "peft",
    "reasoning_gym",
    "torch._dynamo",
    "torch._inductor.compile_fx",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "transformers.integrations.deepspeed",
    "transformers.models.gemma.tokenization_gemma",
    "transformers.models.gemma3.modeling_gemma3",
    "trl.trainer.sft_trainer",
    "gemsmith.reward_models.warm",
    "gemsmith.rl.rewards.compose",
    "gemsmith.rl.rewards.kinds.ground_truth",
    "gemsmith.rl.stages.distill.stage",
    "gemsmith.rl.stages.generate.stage",
    "gemsmith.rl.stages.qat.stage",
    "gemsmith.rl.stages.reinforcement.stage",
    "gemsmith.rl.stages.sft.stage",
    "gemsmith.rl.stages.warp.stage",
)
REQUEST_BYTES = 1 << 20


class WarmProcess:
    """A program that a warm Python runs: its process id, its end, and what it printed."""

    def __init__(self, arguments: Sequence[str], end: socket.socket, out: str, err: str) -> None:
        self.arguments, self._end, self._out, self._err = list(arguments), end, out, err
        self.pid = int(json.loads(self._receive()))

    def _receive(self) -> bytes:
        received = self._end.recv(64)
        assert received, "the warm Python has gone"
        return received

    def kill(self) -> None:
        """Send SIGKILL to the program and whatever it started in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self, timeout: float) -> "subprocess.CompletedProcess[str]":
        """Wait for the program's end; one that takes longer than `timeout` seconds is killed and raises.

        Returns:
            Exit code (minus the signal that ended it) and output, as `subprocess.run` returns them.
        """
        self._end.settimeout(timeout)
        try:
            code = os.waitstatus_to_exitcode(int(json.loads(self._receive())))
        except TimeoutError:
            self.kill()
            raise subprocess.TimeoutExpired(self.arguments, timeout) from None
        finally:
            self._end.close()
        out, err = (Path(name).read_text(errors="replace") for name in (self._out, self._err))
        return subprocess.CompletedProcess(self.arguments, code, out, err)


DETACH = """
import os, sys
if server := os.fork():
    print(server)
    sys.exit()
os.setsid()
os.dup2(2, 1)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Start a program that is no child of this process: some tests end every process below it. Prints the program's id."""


class WarmPython:
    """A server process that has imported `PRELOADED`; starts with the first program, ends with `close`."""

    def __init__(self) -> None:
        self._server: int | None = None
        self._socket: socket.socket | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="warm-")
        self._started = 0

    def start(self, arguments: Sequence[str], cwd: Path | None = None, **variables: str) -> WarmProcess:
        """Start a program as `python ARGUMENTS...` would, in a session of its own.

        Args:
            arguments: a script or `-c` with a text or `-m` with a module, and the program's own arguments.
            cwd: its working folder, by default this process's.
            **variables: set in its environment beside this process's variables.
        """
        if self._socket is None:
            self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            command = [sys.executable, "-P", "-c", DETACH, "-P", __file__, str(its.fileno())]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
            with its:
                done = subprocess.run(
                    command, pass_fds=[its.fileno()], env=environment, stdout=subprocess.PIPE, check=True
                )
            self._server = int(done.stdout)
        self._started += 1
        out, err = (str(Path(self._folder.name, f"{self._started}.{name}")) for name in ("out", "err"))
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        request = {"arguments": list(arguments), "cwd": str(cwd or Path.cwd()), "environment": environment}
        with its, open(out, "wb") as out_file, open(err, "wb") as err_file:
            fds = [its.fileno(), out_file.fileno(), err_file.fileno()]
            socket.send_fds(self._socket, [json.dumps(request).encode()], fds)
        return WarmProcess(arguments, ours, out, err)

    def run(
        self, arguments: Sequence[str], cwd: Path | None = None, timeout: float = 300, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program to its end; see `start` and `WarmProcess.wait`."""
        return self.start(arguments, cwd, **variables).wait(timeout)

    def launch(
        self, arguments: Sequence[str], processes: int, timeout: float = 600, **variables: str
    ) -> "list[subprocess.CompletedProcess[str]]":
        """Run a program in so many processes of one torch.distributed group, as a launcher would."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        group = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
        group |= {"MASTER_PORT": str(port), **variables}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
        started = [self.start(arguments, **group, **rank) for rank in ranks]
        try:
            return [process.wait(timeout) for process in started]
        finally:
            for process in started:
                process.kill()

    def close(self) -> None:
        """End the server; programs that still run end by themselves."""
        if self._socket is not None and self._server is not None:
            self._socket.close()
            deadline = time.monotonic() + 60
            while Path(f"/proc/{self._server}").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        self._folder.cleanup()


def _serve(requests: socket.socket) -> None:
    """Fork a program for each request until the client closes; returns in a program's process, with it to be run."""
    while True:
        request, fds, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 3)
        if not request:
            sys.exit(0)
        if os.fork() == 0:
            break
        for fd in fds:
            os.close(fd)
        with contextlib.suppress(ChildProcessError):  # those that have ended by now
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    requests.close()
    end = socket.socket(fileno=fds[0])
    pid = os.fork()
    if pid:  # tells how the program ended, and does nothing else
        end.send(json.dumps(pid).encode())
        end.send(json.dumps(os.waitpid(pid, 0)[1]).encode())
        os._exit(0)
    end.close()
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, standard in ((nothing, 0), (fds[1], 1), (fds[2], 2)):
        os.dup2(fd, standard)
        os.close(fd)
    _run(**json.loads(request))


def _run(arguments: list[str], cwd: str, environment: Mapping[str, str]) -> None:
    """Run the program in this process; SystemExit and other exceptions end the process as they always do."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    first, *rest = arguments
    if first == "-c":
        sys.argv = [first, *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")
    sys.exit(0)


def main() -> None:
    """Import what programs need, then fork one for each request."""
    runpy.run_path(str(ROOT / "tests/conftest.py"))  # `tests` and `benchmarks` can be imported by name
    gc.disable()  # nothing that an import makes is garbage
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # no collection of a program walks over, and so copies, what was here before it
    gc.enable()
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    others = [name for name in threads if name != "jemalloc_bg_thd"]  # pyarrow's allocator, which expects forks
    assert len(others) == 1, f"the threads {threads} run, and a fork has only one of them"
    _serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
