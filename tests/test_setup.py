"""The set-up says what is wrong in one sentence, and the lock files can be installed as they are meant to be."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ("build.lock", "compiled.lock", "cpu.lock")


def set_up(tmp_path: Path, root: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "VENV": str(tmp_path / "venv"), **variables}
    command = ["sh", str(root / "requirements" / "setup.sh")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def program(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("name", ["old", "absent"])
def test_a_python_that_will_not_do_is_named_with_the_way_out(tmp_path, name):
    python = str(tmp_path / "absent")
    if name == "old":
        python = program(tmp_path / "old", '[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1')
    done = set_up(tmp_path, PYTHON=python)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert ("Python 3.9.2" if name == "old" else python) in done.stderr
    assert "needs Python 3.11 or newer" in done.stderr and "PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_without_venv_is_named_with_the_way_out(tmp_path):
    python = program(tmp_path / "bare", 'case "$2" in *ensurepip*) exit 1;; *) exit 0;; esac')
    done = set_up(tmp_path, PYTHON=python)
    assert done.returncode == 1
    assert "has no venv module" in done.stderr and "python3-venv" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_links_that_an_archive_lost_are_made_again(tmp_path):
    (tmp_path / "requirements").mkdir()
    shutil.copy(ROOT / "requirements" / "setup.sh", tmp_path / "requirements")
    linked = tmp_path / "src" / "gemsmith"
    linked.mkdir(parents=True)
    (tmp_path / "rl").mkdir()
    (linked / "rl").write_text("../../rl")
    (linked / "__init__.py").write_text('"""What is no link stays as it is."""\n')
    done = set_up(tmp_path, root=tmp_path, PYTHON=program(tmp_path / "bare", 'case "$2" in *ensurepip*) exit 1;; esac'))
    assert "has no venv module" in done.stderr
    assert (linked / "rl").readlink() == Path("../../rl") and (linked / "rl").is_dir()
    assert (linked / "__init__.py").is_file() and not (linked / "__init__.py").is_symlink()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_a_version_and_hashes_and_no_address(lock):
    text = (ROOT / "requirements" / lock).read_text()
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.split("\n", 1)[1].strip())
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==[^ ]+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
    assert "://" not in text and "--index" not in text and "--find-links" not in text


def test_torch_and_what_breaks_it_are_not_locked():
    names = {
        name
        for lock in LOCKS
        for name in re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / lock).read_text(), re.M)
    }
    assert {"transformers", "trl", "peft", "deepspeed", "datasets", "pydantic"} <= names
    assert not [name for name in names if re.match(r"torch|triton|nvidia|cuda|vllm", name)]


def test_every_dependency_of_the_package_is_locked():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = (ROOT / "requirements" / "cpu.lock").read_text()
    names = [re.split(r"[\[<>=]", line)[0].replace(".", "-") for line in project["dependencies"]]
    assert [name for name in names if name != "torch" and f"\n{name}==" not in locked] == []


def test_a_full_disk_is_found_before_anything_is_installed(tmp_path):
    program(tmp_path / "df", 'printf "Filesystem 1M-blocks Used Available\\ndisk 9000 8900 100\\n"')
    done = set_up(tmp_path, PYTHON=sys.executable, PATH=f"{tmp_path}:/usr/local/bin:/usr/bin:/bin")
    assert done.returncode == 1
    assert "100 MB are free" in done.stderr and "3000 MB" in done.stderr
    assert not (tmp_path / "venv").exists()
