"""A full disk is recognised behind whatever a library makes of it, and nothing else is taken for one."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from gemsmith.contracts.errors import RunError
from gemsmith.recipes.run.failure import as_run_error, is_disk_full

WRITE_AND_JUDGE = """
import sys
from pathlib import Path
from gemsmith.recipes.run.failure import is_disk_full
folder = Path(sys.argv[1])
try:
    {write}
except Exception as error:
    print(isinstance(error, OSError), is_disk_full(error, folder))
"""


@pytest.mark.parametrize(
    "write",
    [
        "import numpy, safetensors.numpy as s; s.save_file({'w': numpy.zeros(100_000)}, folder / 'model.safetensors')",
        "import torch; torch.save(torch.zeros(100_000), folder / 'optimizer.pt')",
    ],
    ids=["safetensors", "torch"],
)
def test_a_full_disk_is_seen_behind_an_error_that_is_none_of_the_system(tmp_path: Path, write: str):
    mount = 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@" "$0"'  # seen, and kept, by the child process alone
    separate = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*separate, mount, str(tmp_path), "test", "-d"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount a small disk in a name space of its own")
    command = [*separate, mount, str(tmp_path), sys.executable, "-c", WRITE_AND_JUDGE.replace("{write}", write)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "False True\n", done.stderr


def test_other_errors_are_no_full_disk(tmp_path: Path):
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"), tmp_path)
    assert not is_disk_full(RuntimeError("[enforce fail at inline_container.cc:672]"), tmp_path)  # there is room here


def test_an_error_that_cannot_be_logged_is_still_told(tmp_path: Path):
    (tmp_path / "file").touch()
    error = as_run_error(ValueError("three"), tmp_path / "file", "stage a")
    assert str(error).startswith("stage a: ValueError: three (and ")


def test_a_run_error_passes_as_it_is(tmp_path: Path):
    error = RunError("the reward brief never came back")
    assert as_run_error(error, tmp_path, "stage a") is error
    assert not (tmp_path / "error.log").exists()
