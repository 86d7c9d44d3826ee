"""The command `gemsmith` as a process: exit codes, what it imports, and what it says."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import typer

from gemsmith.recipes.commands.cli import ends_with_one_message
from tests.messages import assert_facts

SHIPPED = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))
HEAVY = {"torch", "transformers", "datasets", "numpy", "trl", "matplotlib"}
ROOT = Path(__file__).parents[3]


def gemsmith(*arguments: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gemsmith", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **env}, timeout=60, check=False
    )


@pytest.mark.parametrize("recipe", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(recipe: Path, tmp_path: Path):
    weights = (
        tmp_path / "models/gemma-3-270m-q4_k_m.gguf"
    )  # only looked for: an empty file stands for what make fetches
    weights.parent.mkdir()
    weights.touch()
    done = gemsmith("validate", str(recipe), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_shipped_recipe_goes_by_its_name_from_anywhere(tmp_path: Path):
    done = gemsmith("validate", "quickstart", cwd=tmp_path)
    assert done.returncode == 0
    assert "quickstart: valid, " in done.stdout


@pytest.mark.parametrize(
    "arguments", [["validate", "quickstart"], ["plan", "quickstart"], ["schema"], ["--help"], ["doctor"]]
)
def test_commands_that_only_look_import_nothing_heavy(arguments: list[str], tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "gemsmith", *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    imported = {
        line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "import time" in line
    }
    assert "gemsmith" in imported
    assert imported & HEAVY == set()


def test_the_users_fault_ends_with_2_and_no_traceback(tmp_path: Path):
    recipe = tmp_path / "bad.yaml"
    recipe.write_text("name: bad\npolicy: {model: tiny}\nstages:\n  - {id: a, kind: sft, data: none, stepz: 3}\n")
    for command in ("validate", "plan", "run"):
        done = gemsmith(command, str(recipe), cwd=tmp_path)
        assert done.returncode == 2
        assert f"gemsmith: {recipe}:4: stages.a.stepz: " in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["frobnicate"], ("No such command",)),
        (["validate"], ("Missing argument",)),
        (["validate", "no-such-recipe"], ("no-such-recipe", "quickstart")),
        (["run", "quickstart", "--only", "sfft"], ("--only sfft", '"sft"')),
        (["run", "quickstart", "--set", "stages.sft.steps=x"], ("stages.sft.steps", '"x"', "integer")),
        (["report", "."], ("run.json",)),
        (["chat", "."], ("run", "run.json", "model")),
        (["chat", ".", "--temperature", "0"], ("--temperature", "found 0", "above 0")),
        (["export", "."], ("run", "run.json", "model")),
    ],
)
def test_a_faulty_command_line_ends_with_2(arguments: list[str], facts: tuple[str, ...], tmp_path: Path):
    done = gemsmith(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert_facts(done.stderr, *facts)
    assert "Traceback" not in done.stderr


def test_an_unforeseen_error_ends_with_1_and_its_traceback_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The file is the same each time, so that failures fill no folder; nothing is left in the temporary one."""
    for name, value in {"XDG_CACHE_HOME": tmp_path / "cache", "TMPDIR": tmp_path / "tmp"}.items():
        value.mkdir()
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(tempfile, "tempdir", None)

    @ends_with_one_message
    def divide() -> None:
        print(1 / 0)

    for _ in range(2):
        with pytest.raises(typer.Exit) as ended:
            divide()
        assert ended.value.exit_code == 1
    log = tmp_path / "cache" / "gemsmith" / "error.log"
    assert_facts(capsys.readouterr().err, "gemsmith divide", "ZeroDivisionError", str(log))
    assert "Traceback" in log.read_text()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_runs_folder_that_cannot_be_written_ends_with_1(tmp_path: Path):
    (tmp_path / "file").write_text("")
    done = gemsmith("run", "quickstart", "--out", str(tmp_path / "file" / "run"))
    assert done.returncode == 1
    assert_facts(done.stderr, tmp_path / "file" / "run", "folder", "written")


def test_a_reward_function_that_does_not_import_stops_a_run_before_its_first_stage(tmp_path: Path):
    recipe = tmp_path / "bad.yaml"
    (tmp_path / "mine.py").write_text("import no_such_module\ndef f(prompts, completions, **columns): ...\n")
    recipe.write_text(
        "name: bad\npolicy: {model: tiny}\n"
        "data: {sums: {source: reasoning_gym, task: chain_sum, size: 100}}\n"
        'rewards: {mine: {kind: python, target: "mine.py:f"}}\n'
        "stages:\n  - {id: a, kind: bond, data: sums, rewards: [mine], steps: 1, batch: 1, learning_rate: 0.1}\n"
    )
    assert gemsmith("validate", str(recipe)).returncode == 0
    done = gemsmith("run", str(recipe), "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert_facts(done.stderr, '"mine.py:f"', "import", "line 1", "ModuleNotFoundError")
    assert not (tmp_path / "run" / "stages").exists()


def test_the_schema_is_json_schema_with_the_recipes_own_keys():
    content = json.loads(gemsmith("schema").stdout)
    assert {"name", "policy", "stages"} <= set(content["required"])
    assert "from" in content["$defs"]["PolicyConfig"]["properties"]
    assert content["additionalProperties"] is False


def test_plan_shows_every_stage_with_its_size(tmp_path: Path):
    done = gemsmith("plan", "quickstart", cwd=tmp_path)
    assert done.returncode == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert "1.4M" in lines["sft"]
    assert "to run" in lines["sft"]
    assert "sft, teacher" in lines["it"]


def test_doctor_gives_a_way_out_for_everything_that_is_not_good():
    from gemsmith.recipes.commands.actions.machine_findings import examine

    findings = examine(ROOT)
    assert {"python", "cores", "memory", "disk", "GPU", "torch", "C++ compiler", "ninja"} <= {f.thing for f in findings}
    assert all(finding.way_out for finding in findings if finding.verdict != "good")
