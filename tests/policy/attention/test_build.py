"""Building the kernel: by DeepSpeed's op builder, once for a source and a machine, with messages where it cannot be."""

import os
import shlex
import subprocess
import sys

import pytest
from torch.utils import cpp_extension

from gemsmith.contracts.errors import UserError
from gemsmith.policy.attention import build
from gemsmith.policy.attention.build import build_kernel, kernel_name, kernel_state, load_kernel


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    load_kernel.cache_clear()
    yield tmp_path / "cache"
    load_kernel.cache_clear()


def build_elsewhere(folder, **environment):
    """Build in a process of its own, since a process loads a kernel once."""
    return subprocess.run(
        [sys.executable, "-m", "gemsmith", "build"],
        env={**os.environ, "TORCH_EXTENSIONS_DIR": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_it_is_compiled_once_and_a_dead_builders_lock_is_removed(cache, kernel):
    (cache / kernel_name()).mkdir(parents=True)
    (cache / kernel_name() / "lock").touch()
    first = build_elsewhere(cache)
    assert first.returncode == 0, first.stderr
    assert "left by a build that was killed" in first.stdout
    assert f"{kernel_name()} compiled in" in first.stdout
    assert kernel_state().library == cache / kernel_name() / f"{kernel_name()}.so"
    second = build_elsewhere(cache)
    assert "is compiled already" in second.stdout


def test_torch_may_lie_in_a_folder_with_a_space(monkeypatch):
    monkeypatch.setattr(cpp_extension, "TORCH_LIB_PATH", "/a place/lib")
    with build._quoted_torch_libraries():
        flags = cpp_extension._prepare_ldflags([], False, False, False, False)
    assert "-L/a place/lib" in shlex.split(" ".join(flags))
    assert cpp_extension.TORCH_LIB_PATH == "/a place/lib"


def test_another_source_or_torch_or_processor_is_another_build(monkeypatch, tmp_path):
    name = kernel_name()
    monkeypatch.setattr(build, "_processor", lambda: "another")
    assert kernel_name() != name
    monkeypatch.undo()
    monkeypatch.setattr(build, "FLAGS", ("-O0",))
    assert kernel_name() != name
    monkeypatch.undo()
    (tmp_path / "module.cpp").write_text("// nothing")
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    assert kernel_name() != name


def test_a_half_written_library_is_no_kernel(cache):
    import torch  # noqa: F401

    folder = cache / kernel_name()
    folder.mkdir(parents=True)
    (folder / f"{kernel_name()}.so").write_bytes(b"\x7fELF")
    assert load_kernel() is None


def test_without_a_compiler(cache, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="no C\\+\\+ compiler `no-such-compiler`"):
        build_kernel(print)
    assert kernel_state().library is None


def test_without_ninja(cache, monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None if name == "ninja" else "/usr/bin/" + name)
    with pytest.raises(UserError, match="no ninja"):
        build_kernel(print)


def test_without_deepspeed(cache, monkeypatch):
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="gemsmith\\[deepspeed\\]"):
        build_kernel(print)


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match="TORCH_EXTENSIONS_DIR"):
        build_kernel(print)


def test_the_command_says_one_sentence_and_ends_with_2(tmp_path):
    failed = build_elsewhere(tmp_path, CXX="no-such-compiler")
    assert failed.returncode == 2
    assert "no C++ compiler" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
