"""Files of finished stages are compared with what the stage wrote: at every start, and whole before they are used."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from counting_stage import pipeline_of

from gemsmith.contracts.digests import LARGE, digest
from gemsmith.contracts.errors import UserError
from gemsmith.recipes.run.checksums import changed_files, record_files
from gemsmith.recipes.run.runner import run_pipeline
from gemsmith.recipes.run.trained import find_policy
from tests.messages import raises_facts

TWO: dict[str, dict[str, Any]] = {"a": {}, "b": {"from": "a", "steps": 4}}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def folder_of(run: Path, name: str) -> Path:
    (folder,) = (run / "stages").glob(f"{name}-*")
    return folder


def ran(tmp_path: Path, stages: dict[str, Any] = TWO, **options: Any) -> Path:
    run = tmp_path / "run"
    run_pipeline(pipeline_of(stages, tmp_path), run, **options)
    return run


def flip(path: Path, at: int = -8) -> None:
    """Change eight bytes, and set the file's times back."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    for index in range(at, at + 8) if at >= 0 else range(at, 0):
        content[index] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def large(folder: Path) -> Path:
    path = folder / "output" / "model.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(LARGE) + b"the end.")
    return path


def test_a_finished_stage_records_its_files(tmp_path: Path):
    record = json.loads((folder_of(ran(tmp_path), "a") / "stage.json").read_text())
    three = "4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce"  # printf 3 | sha256sum
    assert record["files"] == {"output/count": {"bytes": 1, "sha256": three}}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda path: path.write_text("4"), "other content"),
        (lambda path: path.write_text("33"), "2 bytes instead of 1"),
        (Path.unlink, "is missing"),
    ],
)
@pytest.mark.parametrize("stage", ["a", "b"])  # one whose output is read, and the last
def test_a_changed_file_of_a_finished_stage_stops_the_run_and_is_named(tmp_path: Path, change, found: str, stage: str):
    run = ran(tmp_path)
    path = folder_of(run, stage) / "output" / "count"
    before = (run / "run.json").read_text()
    change(path)
    with raises_facts(UserError, f"stage {stage}", str(path), found, f"--only {stage} --fresh"):
        ran(tmp_path)
    assert (run / "run.json").read_text() == before
    assert (folder_of(run, "a") / "trace").read_text() == "1\n2\n3\n"  # nothing was run, nothing was deleted

    ran(tmp_path, only=[stage], fresh=True)  # what the sentence advises
    ran(tmp_path)
    assert (folder_of(run, "b") / "output" / "count").read_text() == "7"


def test_two_changed_stages_are_named_together(tmp_path: Path):
    run = ran(tmp_path)
    for stage in "ab":
        (folder_of(run, stage) / "output" / "count").write_text("0")
    with raises_facts(UserError, "1 more", "--only a --only b --fresh"):
        ran(tmp_path)
    ran(tmp_path, only=["a", "b"], fresh=True)
    assert (folder_of(run, "b") / "output" / "count").read_text() == "7"


def test_a_file_that_changes_during_the_run_is_found_before_it_is_read(tmp_path: Path):
    run = tmp_path / "run"
    probe = pipeline_of({"a": {}}, tmp_path)
    count = run / probe.folder(probe.nodes[0]) / "output" / "count"
    overwrite = f"$(printf 9 > '{count}')"  # by the shell of the stage b
    with raises_facts(UserError, "stage a", str(count), "other content"):
        ran(tmp_path, {"a": {}, "b": {"noise": overwrite}, "c": {"from": "a"}})
    assert (folder_of(run, "b") / "output").is_dir() and not list((run / "stages").glob("c-*"))


def test_an_input_is_read_whole_whatever_is_remembered_of_it(tmp_path: Path):
    folder = folder_of(ran(tmp_path, {"a": {}}), "a")
    path = large(folder)
    record = json.loads((folder / "stage.json").read_text())
    (folder / "stage.json").write_text(json.dumps({**record, "files": record_files(folder, ["output"])}))
    flip(path)
    digest(path)
    (entry,) = (tmp_path / "cache" / "gemsmith" / "digests").iterdir()
    remembered = {**json.loads(entry.read_text()), "sha256": record_digest(folder, path)}
    entry.write_text(json.dumps(remembered))  # as if the disk had changed the bytes, and no program
    ran(tmp_path, {"a": {}})
    with raises_facts(UserError, "stage a", str(path), "other content"):
        ran(tmp_path)


def record_digest(folder: Path, path: Path) -> str:
    files = json.loads((folder / "stage.json").read_text())["files"]
    return str(files[str(path.relative_to(folder))]["sha256"])


def test_files_without_a_record_are_not_compared(tmp_path: Path):
    run = ran(tmp_path)
    path = folder_of(run, "a") / "stage.json"
    record = json.loads(path.read_text())
    del record["files"]  # as an older version wrote it
    path.write_text(json.dumps(record))
    (folder_of(run, "a") / "output" / "count").write_text("9")
    (folder_of(run, "b") / "output" / "notes").write_text("of the user")
    ran(tmp_path)


def test_a_command_that_reads_a_policy_reads_its_files_whole(tmp_path: Path):
    folder = tmp_path / "run" / "stages" / "a-01234567"
    path = large(folder)
    (folder / "output" / "config.json").write_text('{"architectures": ["Gemma3ForCausalLM"]}')
    stage = {"id": "a", "kind": "sft", "folder": "stages/a-01234567", "status": "finished", "seconds": 1, "inputs": []}
    record = {
        "status": "finished",
        "started": "",
        "seconds": 1,
        "config": {},
        "files": record_files(folder, ["output"]),
    }
    (folder / "stage.json").write_text(json.dumps(record))
    run = {"name": "r", "seed": 0, "started": "", "stages": [stage]}
    (tmp_path / "run" / "run.json").write_text(json.dumps(run))
    assert find_policy(tmp_path / "run").stage == find_policy(tmp_path / "run", "a").stage == "a"
    flip(path)
    for place in (tmp_path / "run", folder / "output"):
        with raises_facts(UserError, "stage a", str(path), "other content"):
            find_policy(place)


def test_flipped_bytes_are_found_without_reading_what_did_not_change(tmp_path: Path):
    path = large(tmp_path)
    recorded = record_files(tmp_path, ["output"])
    entries = list((tmp_path / "cache" / "gemsmith" / "digests").iterdir())
    assert len(entries) == 1 and changed_files(tmp_path, recorded, whole=False) == []
    entry = json.loads(entries[0].read_text())
    entries[0].write_text(json.dumps({**entry, "sha256": "0" * 64}))  # a start believes what is remembered
    assert changed_files(tmp_path, recorded, whole=False) and not changed_files(tmp_path, recorded, whole=True)
    flip(path)
    for whole in (False, True):
        (fault,) = changed_files(tmp_path, recorded, whole=whole)
        assert str(path) in fault and "other content" in fault


def test_files_outside_the_output_may_be_deleted_but_not_changed(tmp_path: Path):
    for name in ("output", "members/0"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "weights").write_text("12345678")
    recorded = record_files(tmp_path, ["output", "members"])
    assert list(recorded) == ["members/0/weights", "output/weights"]
    flip(tmp_path / "members/0/weights", 0)
    assert len(changed_files(tmp_path, recorded, whole=False)) == 1
    (tmp_path / "members/0/weights").unlink()
    assert changed_files(tmp_path, recorded, whole=True) == []
