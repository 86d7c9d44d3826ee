"""The package as users get it: a wheel in an environment of its own, run from folders full of files with our old names.

Offline: the wheel is built with the tools that are installed, and its environment shares the locked packages by a .pth
file, which puts a folder on the path and does not process the .pth files in it (so not that of an editable install).
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(link.name for link in (ROOT / "src/gemsmith").iterdir() if link.is_symlink())
BUILD_SDIST = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"


def done(command: Sequence[str | Path], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**inherited, "OMP_NUM_THREADS": "1", **variables}
    ended = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=400
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return ended


def built_wheel(source: Path, out: Path) -> Path:
    offline = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "-q"]
    done([sys.executable, "-P", "-m", "pip", "wheel", *offline, "-w", out, "."], source)
    (wheel,) = out.glob("*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, int]:
    """Return the checksum of each file of a wheel, by its path in it."""
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.CRC for info in archive.infolist() if not info.is_dir()}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what makes the wheel, so that building leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    waste = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", *PACKAGES):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=waste)
    return folder


@pytest.fixture(scope="module")
def wheel(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(copy, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_every_file_of_every_package_and_nothing_else(copy: Path, wheel: Path):
    files = {f"gemsmith/{path.name}" for path in (copy / "src" / "gemsmith").iterdir() if path.is_file()}
    assert {"gemsmith/__init__.py", "gemsmith/__main__.py", "gemsmith/py.typed"} <= files
    for package in PACKAGES:
        files |= {f"gemsmith/{path.relative_to(copy)}" for path in (copy / package).rglob("*") if path.is_file()}
    assert len(PACKAGES) == 10 and len(files) > 300
    assert {name for name in contents(wheel) if ".dist-info/" not in name} == files


def test_a_source_archive_holds_what_the_wheel_is_made_of_and_no_links(copy: Path, wheel: Path, tmp_path: Path):
    done([sys.executable, "-P", "-c", BUILD_SDIST, tmp_path], copy)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path)  # ours; `filter` came with Python 3.11.4
        assert all(member.isreg() or member.isdir() for member in opened)
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    package = [path for path in (source / "src/gemsmith").rglob("*") if path.is_file()]
    assert {str(path.relative_to(source / "src")): zlib.crc32(path.read_bytes()) for path in package} == {
        name: checksum for name, checksum in contents(wheel).items() if ".dist-info/" not in name
    }
    assert (source / "pyproject.toml").read_bytes() == (ROOT / "pyproject.toml").read_bytes()


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != "__pycache__"}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Return what the wheel added to a fresh environment, by kind; the environment is at `where`."""
    folder = tmp_path_factory.mktemp("environment")
    done([sys.executable, "-P", "-m", "venv", "--without-pip", folder], folder)
    python = folder / "bin" / "python"
    asked = done([python, "-P", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder)
    site = Path(asked.stdout.strip())
    shared = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "locked.pth").write_text("".join(f"{place}\n" for place in shared))
    before = {"site": listing(site), "bin": listing(folder / "bin")}
    quiet = ["--no-deps", "--no-index", "--disable-pip-version-check", "-q"]
    done([sys.executable, "-P", "-m", "pip", "--python", python, "install", *quiet, wheel], folder)
    after = {"site": listing(site), "bin": listing(folder / "bin")}
    return {kind: after[kind] - before[kind] for kind in after} | {"where": {str(folder)}}


@pytest.fixture(scope="module")
def environment(installed: dict[str, set[str]]) -> Path:
    return Path(*installed["where"])


def test_it_adds_one_name_and_the_command(installed: dict[str, set[str]]):
    (metadata,) = (name for name in installed["site"] if name.endswith(".dist-info"))
    assert installed["site"] == {"gemsmith", metadata}
    assert installed["bin"] == {"gemsmith"}


RECIPE = """\
name: it
policy: {model: tiny}
data:
  letters: {source: python, target: "my_rows.py:rows", prompt: "{prompt}", demonstration: "{answer}"}
  sums:
    source: reasoning_gym
    task: chain_sum
    size: 40
    prompt: "{metadata[expression]} ="
    synthesise: {right: 0.5, spread: 9, copies: 2, styles: ["{answer}"]}
rewards:
  own: {kind: python, target: "my_rewards.py:score"}
stages:
  - {id: sft, kind: sft, data: letters, steps: 3, batch: 2, learning_rate: 1.0e-3}
  - {id: warm, kind: warm, policy: {from: sft}, data: sums, members: 2, parallel: 2, steps: 1, batch: 2,
     learning_rate: 1.0e-3}
  - id: aligned
    kind: warp
    policy: {from: sft}
    runs: 2
    parallel: 2
    iterations: 1
    inner: {kind: bond, data: sums, rewards: [own], steps: 1, batch: 2, learning_rate: 1.0e-3,
      sampling: {max_tokens: 4}}
"""
MINE = 0.625
"""What the user's rl.py beside the recipe says, and every completion's score."""


class Place:
    """A user's folders: the recipe's with a reward that imports its neighbour rl.py, and another to work in.

    Each has a file for every name that our packages once took in site-packages. All but the recipe's rl.py raise, so
    that an import of one fails.
    """

    def __init__(self, environment: Path, folder: Path) -> None:
        self.bin = environment / "bin"
        self.recipes, self.working = folder / "recipe's own", folder / "working"
        for place in (self.recipes, self.working):
            place.mkdir()
            for name in PACKAGES:
                (place / f"{name}.py").write_text(f"raise RuntimeError('{place.name}/{name}.py was imported')\n")
        (self.recipes / "rl.py").write_text(f"MINE = {MINE}\n")
        (self.recipes / "my_rewards.py").write_text(
            "import rl\n\n\ndef score(completions, **columns):\n    return [rl.MINE] * len(completions)\n"
        )
        (self.recipes / "my_rows.py").write_text(
            f"import rl\n\n\ndef rows():\n    assert rl.MINE == {MINE}\n"
            "    return [{'prompt': letter, 'answer': letter} for letter in 'abcdefgh']\n"
        )
        self.recipe = self.recipes / "it.yaml"
        self.recipe.write_text(RECIPE)

    def gemsmith(self, *words: str | Path) -> str:
        """Return what a command prints, run in the working folder, which is on PYTHONPATH as well."""
        return done([self.bin / "gemsmith", *words], self.working, PYTHONPATH=".").stdout


@pytest.fixture(scope="module")
def place(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(environment, tmp_path_factory.mktemp("user"))


WHERE = "import sys, gemsmith, gemsmith.rl, gemsmith.recipes; print(gemsmith.rl.__file__); print(*sys.path, sep='\\n')"


def test_what_is_imported_is_the_wheels_and_not_the_checkouts(place: Place):
    file, *path = done([place.bin / "python", "-c", WHERE], place.working, PYTHONPATH=".").stdout.splitlines()
    assert Path(file).is_relative_to(place.bin.parent)
    assert not {str(ROOT), str(ROOT / "src")} & set(path)


def test_recipes_and_rewards_are_checked_among_files_with_our_names(place: Place):
    for recipe in ("quickstart", place.recipe):
        place.gemsmith("validate", recipe)
    for target in (f"{place.recipe}:own", f"{place.recipes / 'my_rewards.py'}:score"):
        assert f"{MINE:g}  'x'" in place.gemsmith("reward", "try", target, "--completion", "x")


def test_commands_without_a_run_work_among_files_with_our_names(place: Place):
    assert "--" in place.gemsmith("--help")
    assert place.gemsmith("--version").startswith("gemsmith ")
    assert done([place.bin / "python", "-m", "gemsmith", "--version"], place.working).stdout.startswith("gemsmith ")
    assert "7 of 7 stages to run" in place.gemsmith("plan", "quickstart")
    assert json.loads(place.gemsmith("schema"))
    assert "code sandbox" in place.gemsmith("doctor")
    rows = place.working / "rows.jsonl"
    rows.write_text('{"completion": "4", "answer": "4"}\n')
    assert "right" in place.gemsmith("verify", "math", rows)


@pytest.fixture(scope="module")
def run(place: Place) -> Path:
    """A finished run whose `warm` and `warp` train two members at once, each in a process of its own."""
    place.gemsmith("run", place.recipe, "--out", "run")
    return place.working / "run"


def folder_of(run: Path, stage: str) -> Path:
    (folder,) = run.glob(f"stages/{stage}-*")
    return folder


@pytest.mark.slow
def test_a_run_with_worker_processes_ends_well_among_files_with_our_names(run: Path):
    stages = json.loads((run / "run.json").read_text())["stages"]
    assert [(stage["id"], stage["status"]) for stage in stages] == [
        (name, "finished") for name in ("sft", "warm", "aligned")
    ]
    logs = [path.read_text() for path in (*run.glob("stages/warm-*/**/*.log"), *run.glob("stages/aligned-*/**/*.log"))]
    assert len(logs) >= 4  # a file for each of the worker processes
    assert "was imported" not in "".join(logs)


@pytest.mark.slow
def test_the_run_scores_with_the_users_own_neighbour(run: Path):
    rows = [json.loads(line) for line in (folder_of(run, "aligned") / "metrics.jsonl").read_text().splitlines()]
    assert sorted((row["run"], row["reward/own"]) for row in rows) == [(0, MINE), (1, MINE)]


@pytest.mark.slow
def test_what_a_run_left_is_reported_and_merged_among_files_with_our_names(place: Place, run: Path):
    (run / "report.html").unlink()
    place.gemsmith("report", run)
    assert (run / "report.html").is_file()
    policies = [folder_of(run, stage) / "output" for stage in ("sft", "aligned")]
    place.gemsmith("merge", "average", *policies, "--out", "merged")
    assert (place.working / "merged" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_run_in_two_processes_works_among_files_with_our_names(place: Place):
    place.gemsmith("run", place.recipe, "--out", "two", "--only", "sft", "--processes", "2")
    assert (folder_of(place.working / "two", "sft") / "output" / "model.safetensors").is_file()


def test_a_package_called_evals_lives_beside_ours(place: Place):
    (site,) = place.bin.parent.glob("lib/python*/site-packages")
    (site / "evals").mkdir()
    (site / "evals" / "__init__.py").write_text("WHOSE = 'another project'\n")
    try:
        code = "import evals, gemsmith.evals.config as ours; print(evals.WHOSE, ours.__name__)"
        said = done([place.bin / "python", "-P", "-c", code], place.recipes).stdout
    finally:
        shutil.rmtree(site / "evals")
    assert said == "another project gemsmith.evals.config\n"
