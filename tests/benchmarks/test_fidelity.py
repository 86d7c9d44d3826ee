"""The suite of claims: what is kept and when it is measured again, what ends it, and the quickest claims themselves."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.fidelity import __main__ as command
from benchmarks.fidelity import suite
from benchmarks.fidelity.claim import Claim, Measured, Setting, Verdict, graded
from benchmarks.fidelity.code import identity
from benchmarks.fidelity.kept import shared_folder
from benchmarks.fidelity.registry import claims

CLAIM_FILE = '''"""A claim."""
from benchmarks.fidelity.figure import draw_curves
from gemsmith.rl.algorithms import bond

def run(setting, seed):
    return bond.answer()

def judge(measurements):
    return "holds"

CLAIM = (run, judge)
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A claim whose module imports another, which imports a third inside a function."""
    files = {
        "benchmarks/fidelity/claims/one.py": CLAIM_FILE,
        "benchmarks/fidelity/figure.py": "def draw_curves(): pass\n",
        "rl/__init__.py": "",
        "rl/algorithms/bond.py": "def answer():\n    from gemsmith.weights.vectors import number\n    return number\n",
        "weights/vectors.py": "number = 1\n",
        "weights/merge.py": "number = 1\n",
        "rl/stages/reinforcement/stage.py": "steps = 1\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


TRAIN = ("gemsmith.rl.stages.reinforcement.stage",)


def hashed(tree: Path, setting: Setting | None = None, seed: int = 0, names: tuple[str, ...] = ()) -> str:
    return identity(("benchmarks.fidelity.claims.one", *names), setting or {"steps": 3}, seed, tree)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("benchmarks/fidelity/claims/one.py", "bond.answer()", "bond.answer() + 1"),
        ("rl/algorithms/bond.py", "return number", "return -number"),
        ("weights/vectors.py", "1", "2"),
    ],
)
def test_a_change_of_code_that_a_measurement_runs_asks_for_a_new_one(tree: Path, file: str, old: str, new: str) -> None:
    before = hashed(tree)
    (tree / file).write_text((tree / file).read_text().replace(old, new))
    assert hashed(tree) != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("benchmarks/fidelity/claims/one.py", '"holds"', '"does not hold"'),
        ("benchmarks/fidelity/claims/one.py", "CLAIM = (run, judge)", "CLAIM = (judge, run)"),
        ("benchmarks/fidelity/claims/one.py", '"""A claim."""', '"""The claim."""\n# because'),
        ("benchmarks/fidelity/figure.py", "pass", "return"),
        ("weights/merge.py", "1", "2"),
    ],
)
def test_a_change_of_the_verdict_the_figure_or_other_code_does_not(tree: Path, file: str, old: str, new: str) -> None:
    before = hashed(tree)
    (tree / file).write_text((tree / file).read_text().replace(old, new))
    assert hashed(tree) == before


def test_settings_seeds_and_modules_that_are_named_count(tree: Path) -> None:
    assert (
        len(
            {
                hashed(tree),
                hashed(tree, {"steps": 4}),
                hashed(tree, seed=1),
                hashed(tree, names=TRAIN),
            }
        )
        == 4
    )
    before = hashed(tree, names=TRAIN)
    (tree / "rl/stages/reinforcement/stage.py").write_text("steps = 2\n")
    assert hashed(tree, names=TRAIN) != before


def counting(folder: Path, fails_at: int | None = None, holds: bool = True) -> Claim:
    """A claim that leaves a mark in the folder each time it measures."""

    def run(setting: Setting, seed: int) -> Measured:
        if seed == fails_at:
            raise RuntimeError("no luck")
        (folder / f"{seed}").open("a").write("x")
        return Measured({"value": float(setting["steps"] + seed)}, {"line": [(0.0, 1.0), (1.0, float(seed))]})

    def judge(measurements: Sequence[Measured]) -> Verdict:
        seen = [one.numbers["value"] for one in measurements]
        return graded(
            "the value is at least 3", [f"{value:g}" for value in seen], {"at least 3": [holds for _ in seen]}
        )

    def draw(axes: object, measurements: Sequence[Measured]) -> None:
        axes.plot(*zip(*measurements[0].curves["line"], strict=True))  # type: ignore[attr-defined]

    return Claim("T1", "Values are large.", "nowhere", {"steps": 3}, run, judge, draw, quick={"steps": 1})


def test_an_interrupted_claim_goes_on_with_the_seeds_that_it_lacks(tmp_path: Path) -> None:
    told: list[str] = []
    first = suite.run_claim(suite.planned(counting(tmp_path, fails_at=2), False, tmp_path / "kept"), told.append)
    assert first.verdict is None and "no luck" in first.error and len(first.trials) == 2
    second = suite.run_claim(suite.planned(counting(tmp_path), False, tmp_path / "kept"), told.append)
    assert second.verdict is not None and second.verdict.observed == ("3", "4", "5")
    assert [(tmp_path / str(seed)).read_text() for seed in range(3)] == ["x", "x", "x"]  # each measured once
    quick = suite.run_claim(suite.planned(counting(tmp_path), True, tmp_path / "kept"), told.append)
    assert quick.verdict is not None and quick.verdict.observed == ("1", "2", "3")


def test_a_verdict_counts_the_seeds_of_each_part() -> None:
    assert graded("", [], {"a": [True, True, True]}).holds == "holds"
    part = graded("", [], {"a": [True, True, False], "b": [False, False, True]}, remark="Small sizes")
    assert part.holds == "holds in part" and part.remark == "a: 2 of 3 seeds; b: 1 of 3 seeds. Small sizes"
    assert graded("", [], {"a": [True, False, False], "b": [False] * 3}).holds == "does not hold"


@pytest.mark.parametrize(("fails_at", "holds", "code"), [(None, True, 0), (None, False, 0), (1, True, 1)])
def test_only_a_crash_ends_with_exit_code_1_and_the_other_claims_still_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int | None, holds: bool, code: int
) -> None:
    (tmp_path / "other").mkdir()
    other = counting(tmp_path / "other")
    chosen = [counting(tmp_path, fails_at, holds), Claim(**{**other.__dict__, "id": "T2"})]
    monkeypatch.setattr(command, "claims", lambda only=None: chosen)
    out, kept = tmp_path / "out", tmp_path / "kept"
    words = ["--only", "T1", "T2", "--out", str(out), "--kept", str(kept), "--jobs", "1"]
    words += ["--json", str(tmp_path / "all.json")]
    assert command.main(words) == code
    rows = json.loads((tmp_path / "all.json").read_text())
    assert [row["id"] for row in rows] == ["T1", "T2"]
    assert rows[1]["verdict"]["holds"] == "holds" and (out / "results" / "T2.png").stat().st_size > 5_000
    assert {"commit", "date", "machine", "seconds", "setting"} <= rows[1].keys() and rows[1]["machine"].count("cores")
    said = "crashed" if fails_at is not None else "holds" if holds else "does not hold"
    assert f"**{said}**" in (out / "README.md").read_text()


@pytest.mark.slow
def test_trials_in_processes_of_their_own_measure_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for jobs in ("1", "2"):
        words = [
            "--quick",
            "--only",
            "W3",
            "--jobs",
            jobs,
            "--kept",
            str(tmp_path / jobs),
            "--out",
            str(tmp_path / "out"),
        ]
        if jobs == "2":  # the first seed is kept, so that both processes have one trial each
            (tmp_path / "2").mkdir()
            kept = min((tmp_path / "1").glob("W3-*.json"))
            shutil.copy(kept, tmp_path / "2" / kept.name)
        assert command.main(words) == 0
        row = json.loads((tmp_path / "out" / "results" / "W3.json").read_text())
        found.append([trial["measured"] for trial in row["trials"]])
    assert found[0] == found[1] and len(found[0]) == 3
    assert capsys.readouterr().out.count("of processors") == 3 + 2  # no trial was measured twice


def test_an_unknown_claim_is_the_users_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--only", "B99"]) == 2
    assert "there is no claim B99: the claims are" in capsys.readouterr().err


def make(folder: Path, setting: Setting, seed: int) -> None:
    (folder / "made").write_text(f"{setting['steps']} {seed}")


def test_a_shared_folder_is_made_once_for_each_setting_and_seed(tmp_path: Path) -> None:
    first = shared_folder("members", make, {"steps": 3}, 0, tmp_path)
    assert (first / "made").read_text() == "3 0"
    (first / "made").write_text("mine")
    assert (shared_folder("members", make, {"steps": 3}, 0, tmp_path) / "made").read_text() == "mine"
    assert shared_folder("members", make, {"steps": 3}, 1, tmp_path) != first


def test_every_claim_says_where_it_is_from_and_has_three_seeds() -> None:
    for claim in claims():
        assert "arXiv" in claim.source and claim.sentence.endswith(".") and len(claim.seeds) >= 3
        assert set(claim.quick) <= set(claim.setting)
        json.dumps(claim.setting)
