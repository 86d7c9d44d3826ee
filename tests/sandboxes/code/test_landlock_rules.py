"""Landlock is put on a real process, which then tries what it should not be able to do."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gemsmith.sandboxes.code.jail import landlock_rules

FOLDER = str(Path(landlock_rules.__file__).parent)

needs_landlock = pytest.mark.skipif(landlock_rules.abi() < 1, reason="the kernel offers no Landlock")
needs_scopes = pytest.mark.skipif(landlock_rules.abi() < 6, reason="the kernel's Landlock bounds no signals")

PREAMBLE = """
import json, os, signal, socket, sys
sys.path.insert(0, sys.argv[1])
import landlock_rules
secret, readable, pretended = sys.argv[2:]

def code_of(function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0

if pretended != "none":
    if pretended != "own":
        landlock_rules.abi = lambda: int(pretended)
    used = landlock_rules.restrict([readable, sys.argv[1], "/no/such/place"], ["/dev/null"])
"""
ATTEMPTS = """
folder = os.path.dirname(secret)
mine = os.path.join(readable, "mine")
print(json.dumps({
    "read": code_of(open, secret),
    "write": code_of(open, secret, "a"),
    "create": code_of(open, os.path.join(folder, "new"), "x"),
    "list": code_of(os.listdir, folder),
    "rename": code_of(os.rename, mine, mine),
    "link": code_of(os.link, mine, os.path.join(folder, "link")),
    "symlink": code_of(os.symlink, mine, os.path.join(readable, "symlink")),
    "folder": code_of(os.mkdir, os.path.join(folder, "folder")),
    "pipe": code_of(os.mkfifo, os.path.join(folder, "pipe")),
    "truncate": code_of(os.truncate, os.path.join(readable, "own"), 0),
    "remove": code_of(os.unlink, mine),
}))
"""


def _confined(body, tmp_path, pretended="own"):
    for folder, name in (("secret", "secret"), ("readable", "mine"), ("readable", "own")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text("text")
    arguments = [FOLDER, str(tmp_path / "secret" / "secret"), str(tmp_path / "readable"), pretended]
    command = [sys.executable, "-I", "-S", "-c", PREAMBLE + body, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_landlock
def test_nothing_is_written_anywhere_and_only_what_is_named_is_read(tmp_path):
    answers = _confined(ATTEMPTS, tmp_path)
    truncates = landlock_rules.abi() < 3  # that right came with ABI 3
    assert {name for name, code in answers.items() if code == 0} == ({"truncate"} if truncates else set())
    assert (tmp_path / "readable" / "mine").read_text() == "text"
    assert sorted(os.listdir(tmp_path / "secret")) == ["secret"]


def test_the_same_attempts_succeed_without_landlock(tmp_path):
    answers = _confined(ATTEMPTS, tmp_path, "none")
    assert {name for name, code in answers.items() if code} == set()


@needs_landlock
def test_what_is_named_is_read_and_devices_are_written(tmp_path):
    body = """
with open("/dev/null", "w") as sink:
    sink.write("x")
print(json.dumps([open(os.path.join(readable, "mine")).read(), sorted(os.listdir(readable)), used]))
"""
    assert _confined(body, tmp_path) == ["text", ["mine", "own"], landlock_rules.abi()]


@needs_landlock
@pytest.mark.parametrize("older", [1, 2, 3, 4, 5, 6])
def test_the_rules_of_an_older_kernel_confine_as_far_as_they_go(tmp_path, older):
    if older > landlock_rules.abi():
        pytest.skip("this kernel is older still")
    answers = _confined(ATTEMPTS, tmp_path, str(older))
    assert {name for name, code in answers.items() if code == 0} == ({"truncate"} if older < 3 else set())


@needs_scopes
def test_processes_and_abstract_sockets_outside_are_out_of_reach(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0gemsmith-landlock-test")
        listener.listen(1)
        body = """
outside = socket.socket(socket.AF_UNIX)
print(json.dumps([code_of(os.kill, os.getppid(), 0), code_of(outside.connect, "\\0gemsmith-landlock-test")]))
"""
        assert _confined(body, tmp_path, "none") == [0, 0]
        assert all(_confined(body, tmp_path))


@needs_landlock
def test_an_interpreter_still_imports_its_library_and_reads_nothing_else(tmp_path):
    body = """
sys.path.remove(sys.argv[1])
landlock_rules.restrict_to_interpreter()
import asyncio, bz2, decimal, fractions, hashlib, heapq, random, sqlite3, statistics, unicodedata, zlib
paths = [secret, "/etc/passwd", "/proc/self/environ", "/proc/1/cmdline", "/root", "/home", "/tmp", "/sys", "/var"]
print(json.dumps([path for path in paths if os.path.exists(path) and code_of(os.open, path, os.O_RDONLY) == 0]))
"""
    assert _confined(body, tmp_path, "none") == []


def test_a_kernel_without_landlock_is_an_error(tmp_path):
    body = """
try:
    landlock_rules.abi = lambda: 0
    landlock_rules.restrict([])
except OSError as error:
    print(json.dumps(str(error)))
"""
    assert "no Landlock" in _confined(body, tmp_path, "none")
