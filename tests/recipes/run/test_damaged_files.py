"""Every kind of file of a finished run, damaged in many ways, under every command that reads it: one sentence."""

import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from gemsmith.contracts.digests import LARGE
from gemsmith.recipes.commands.cli import app
from tests.warm_python import WarmPython

RECIPE = """\
name: small
policy: {model: tiny}
data:
  sums: {source: reasoning_gym, task: chain_sum, size: 60, synthesise: {}}
rewards:
  correct: {kind: math}
stages:
  - {id: sft, kind: sft, data: sums, steps: 2, batch: 4, learning_rate: 1e-3, max_length: 64}
  - {id: scores, kind: evaluate, policies: [sft], data: sums, passes: correct, rewards: [correct], prompts: 4,
     samples: 2, sampling: {max_tokens: 4}}
"""
GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "binary": lambda content: bytes(range(256)) * 4,
    "list": lambda content: b"[]",
    "object": lambda content: b"{}",
    "deep": lambda content: b"[" * 20_000,
    "nested": lambda content: b'{"stages": [7], "policies": [7], "config": 7, "status": 7, "name": 7, "weight_map": 7}',
    "types": lambda content: re.sub(rb'": *("[^"]*"|[\d.e-]+)', b'": {"a": 1}', content),
}
OPTIONAL = {"metrics.jsonl", "environment.json", "recipe.yaml", "console.log", "generation_config.json"}
"""Files without which a command may do its work, so that it may end with 0."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "small.yaml").write_text(RECIPE)
    done = warm_python.run(["-m", "gemsmith", "run", str(folder / "small.yaml"), "--out", str(folder / "run")])
    assert done.returncode == 0, done.stderr
    for record in (folder / "run").rglob("stage.json"):  # as an older version left it: nothing is compared
        content = json.loads(record.read_text())
        del content["files"]
        record.write_text(json.dumps(content))
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "run", tmp_path / "run")
    shutil.copyfile(made / "small.yaml", tmp_path / "small.yaml")
    return tmp_path / "run"


def stage_of(run: Path, id: str) -> Path:
    (folder,) = (run / "stages").glob(f"{id}-*")
    return folder


def commands(run: Path) -> Iterator[list[str]]:
    recipe = str(run.parent / "small.yaml")
    yield ["report", str(run)]
    yield ["plan", recipe, "--out", str(run)]
    yield ["run", recipe, "--out", str(run)]


def ends_well(arguments: list[str], *, may_succeed: bool, name: str | None = None, input: str = "") -> None:
    done = CliRunner().invoke(app, arguments, input=input)
    said = f"{arguments[0]}: {done.exit_code}: {done.output[-2000:]}"
    assert done.exit_code in ((0, 1, 2) if may_succeed else (1, 2)), said
    assert not isinstance(done.exception, Exception) or isinstance(done.exception, SystemExit), repr(done.exception)
    assert "Traceback" not in done.output and "Error:" not in done.stderr.replace("Runtime Error:", ""), said
    assert "weights_only" not in done.output, said
    if done.exit_code:
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("gemsmith: ")]
        assert name is None or name in line, said


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_damaged_record_or_result_is_one_sentence_of_every_command(run: Path, garbage: str):
    sft, scores = stage_of(run, "sft"), stage_of(run, "scores")
    paths = [run / "run.json", run / "environment.json", run / "recipe.yaml", sft / "metrics.jsonl"]
    paths += [sft / "stage.json", scores / "stage.json", scores / "output/scores.json", scores / "output/samples.jsonl"]
    for path in paths:
        before = path.read_bytes()
        for command in commands(run):
            path.write_bytes(GARBAGE[garbage](before))
            (run / "report.html").unlink(missing_ok=True)
            # A command that does not read this file succeeds, and where it says something, it names the file.
            ends_well(command, may_succeed=True, name=path.name)
        if path.name == "run.json":
            ends_well(["export", str(run), "nothing"], may_succeed=False)
        path.write_bytes(before)


@pytest.mark.parametrize(
    ("name", "garbage", "command"),
    [
        ("run.json", "list", "report"),
        ("run.json", "object", "run"),
        ("stages/sft/stage.json", "object", "run"),
        ("stages/sft/stage.json", "list", "plan"),
        ("stages/scores/output/scores.json", "half", "report"),
        ("stages/scores/output/samples.jsonl", "half", "report"),
    ],
)
def test_a_damaged_file_that_a_command_needs_ends_it_with_2(run: Path, name: str, garbage: str, command: str):
    path = run / name.replace("sft", stage_of(run, "sft").name).replace(
        "scores/", f"{stage_of(run, 'scores').name}/", 1
    )
    path.write_bytes(GARBAGE[garbage](path.read_bytes()))
    (arguments,) = [arguments for arguments in commands(run) if arguments[0] == command]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and str(path) in done.stderr, done.output


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_damaged_file_of_a_model_is_one_sentence(run: Path, name: str, garbage: str):
    path = stage_of(run, "sft") / "output" / name
    path.write_bytes(
        GARBAGE[garbage](path.read_bytes()) if name != "model.safetensors" else GARBAGE[garbage](b"x" * 99)
    )
    ends_well(["chat", str(path.parent), "--max-tokens", "1"], may_succeed=name in OPTIONAL, name=path.parent.name)
    if name not in OPTIONAL:
        ends_well(["export", str(run), "sft", "--to", str(run / "to")], may_succeed=False)


def test_an_index_without_metadata_is_one_sentence(run: Path):
    folder = stage_of(run, "sft") / "output"
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = folder / "model.safetensors.index.json"
    merge = ["merge", "average", str(folder), str(folder), "--force", "--out", str(run / "to")]
    for content in ('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}', "[]", '{"weight_map": 3}', '{"a": 1}'):
        index.write_text(content)
        ends_well(["chat", str(folder)], may_succeed=False, name=str(index))
        ends_well(merge, may_succeed=content[2:12] == "weight_map", name=index.name)  # which needs no metadata


def test_a_pickle_is_refused_without_advice_to_load_it_unsafely(run: Path):
    folder = stage_of(run, "sft") / "output"
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Path("x")}, folder / "pytorch_model.bin")
    ends_well(["chat", str(folder)], may_succeed=False, name=str(folder))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(os.getcwd))
    ends_well(["chat", str(folder)], may_succeed=False, name=str(folder))


def gguf(*parts: Any) -> bytes:
    return b"GGUF" + b"".join(struct.pack("<Q", part) if isinstance(part, int) else part for part in parts)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"GGUF" + b"\xff" * 100,
        gguf(struct.pack("<I", 3), 0, 1, 2**63 - 1),  # the length of the first key
        gguf(struct.pack("<I", 3), 2**63 - 1, 2**63 - 1),  # the numbers of tensors and of keys
        gguf(struct.pack("<I", 3), 0, 1, 20, b"general.architecture", struct.pack("<I", 8), 2**63 - 1),
        gguf(struct.pack("<I", 3), 0, 1, 20, b"general.architecture", struct.pack("<I", 8), 6, b"gemma3"),
        gguf(struct.pack("<I", 3), 0, 1, 1, b"a", struct.pack("<I", 9), struct.pack("<I", 4), 2**63 - 1),
        gguf(struct.pack("<I", 3), 0, 1, 1, b"a", struct.pack("<I", 99), 1),
    ],
    ids=range(9),
)
def test_a_damaged_gguf_file_is_one_sentence(tmp_path: Path, content: bytes):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    ends_well(["chat", str(path)], may_succeed=False, name=str(path))


@pytest.mark.parametrize("target", ["full", "closed"])
def test_an_output_that_takes_nothing_ends_with_a_sentence_about_it(run: Path, target: str):
    shell = "> /dev/full" if target == "full" else ">&-"
    command = f'"{sys.executable}" -m gemsmith run "{run.parent / "small.yaml"}" --out "{run}" {shell}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    if target == "closed":  # nobody wants to read it
        assert (done.returncode, done.stderr) == (0, "")
        return
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and "standard output" in line and "No space left" in line
    assert str(run) not in line  # the disk of the run is not full


def test_eight_flipped_bytes_in_a_policy_stop_what_reads_it(run: Path, made: Path):
    folder = stage_of(run, "sft")
    assert (folder / "output" / "model.safetensors").stat().st_size < LARGE
    from gemsmith.recipes.run.checksums import record_files

    record = json.loads((folder / "stage.json").read_text())
    (folder / "stage.json").write_text(json.dumps({**record, "files": record_files(folder, ["output"])}))
    path = folder / "output" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-8:] = bytes(byte ^ 0xFF for byte in content[-8:])
    path.write_bytes(content)
    for command in (["run", str(run.parent / "small.yaml"), "--out", str(run)], ["chat", str(run)]):
        ends_well(command, may_succeed=False, name=str(path))
    ends_well(["export", str(run), "--to", str(run / "to")], may_succeed=False, name=str(path))
    merge = ["merge", "average", str(made / "run" / folder.relative_to(run) / "output"), str(folder / "output")]
    ends_well([*merge, "--out", str(run / "to")], may_succeed=False, name=str(path))
