"""What an engine leaves in its temporary folder goes with it, also when it is killed."""

import os
import subprocess
import sys
from pathlib import Path

from gemsmith.policy.samplers.scratch import LONGEST, with_scratch

LEAVE = "import os, tempfile; os.close(tempfile.mkstemp(prefix='vllm_dist_')[0]); os.kill(os.getpid(), 9)"


def test_files_of_a_killed_process_are_in_its_own_folder(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a short path, as that of an engine's folder is
    own, common = Path("own"), tmp_path / "common"
    own.mkdir()
    common.mkdir()
    environment = with_scratch({**os.environ, "TMPDIR": str(common)}, own)
    subprocess.run([sys.executable, "-c", LEAVE], env=environment, check=False)
    assert [path.name[:10] for path in (own / "tmp").iterdir()] == ["vllm_dist_"]
    assert list(common.iterdir()) == []
    assert not environment["TORCHINDUCTOR_CACHE_DIR"].startswith("own")


def test_a_path_too_long_for_sockets_is_not_used(tmp_path: Path):
    folder = tmp_path / ("x" * LONGEST)
    folder.mkdir()
    assert with_scratch({"TMPDIR": "/somewhere"}, folder) == {"TMPDIR": "/somewhere"}
