"""The store of a teacher's targets: what comes back, and what disks, kills and hands do to it."""

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.curation.teacher_store import writing
from gemsmith.curation.teacher_store.manifest import About, Manifest, read_manifest
from gemsmith.curation.teacher_store.shard import pack, unpack
from gemsmith.curation.teacher_store.store import TeacherStore
from gemsmith.curation.teacher_store.writing import data_hash, shard_rows, write_store

ROOT = Path(__file__).parents[2]
V, K = 262_144, 8
LAST = 99
Ask = Callable[[range], tuple[np.ndarray, np.ndarray]]
ROWS = [([2, 10 + n], list(range(100 + n, 103 + n + n % 3))) for n in range(20)]  # 3, 4 or 5 completion tokens each


def about(**changed: object) -> About:
    fields = {
        "teacher": "t" * 64,
        "teacher_name": "big",
        "tokenizer": "v" * 64,
        "vocabulary": V,
        "k": K,
        "mode": "gumbel_renorm",
        "temperature": 1.0,
        "seed": 0,
        "max_length": 64,
        "data": data_hash(ROWS),
        "rows": len(ROWS),
    }
    return About.model_validate({**fields, **changed})


def entries_of(numbers: range, counted: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return made-up targets for the tokens of these rows; the same for a row in any batch."""
    ids, logprobs = [], []
    for number in numbers:
        source, tokens = np.random.default_rng(number), len(ROWS[number][1])
        ids += [source.choice(V, K, replace=counted) if not counted else source.choice([3, 70_000, 9], K)] * tokens
        logprobs += [np.where(ids[-1] == 3, -0.5, -1.0 - ids[-1] / V)] * tokens
    return np.array(ids), np.array(logprobs)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "SHARD_TOKENS", 16)


def written(folder: Path, ask: Ask = entries_of, **changed: object) -> Path:
    write_store(folder, about(**changed), ROWS, ask, 2, lambda done, total: None)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_packed_entries_come_back_as_they_were_the_likeliest_first() -> None:
    ids = np.array([[70_000, 5, 262_143], [1, 65_536, 65_535]])
    logprobs = np.array([[-3.0, -0.25, -2.0], [-1.0, -4.0, -0.5]])
    block, entries = pack(ids, logprobs, V, counted=False)
    assert entries == 6
    assert len(block) == 2 * (2 * 4 + 6 + 6)  # each token's 4 counts of upper bits, then 2 bytes for each id and number
    found = unpack(np.frombuffer(block, dtype=np.uint8), 2, entries, V, counted=False)
    assert found.ids.tolist() == [[5, 262_143, 70_000], [65_535, 1, 65_536]]
    assert found.logprobs.tolist() == [[-0.25, -2.0, -3.0], [-0.5, -1.0, -4.0]]
    assert found.counts is None


def test_repeats_are_kept_once_with_their_counts_and_short_tokens_are_filled_up_with_counts_of_zero() -> None:
    ids, logprobs = np.array([[9, 9, 9, 9], [70_000, 9, 70_000, 3]]), np.array([[-1.0] * 4, [-0.5, -1.0, -0.5, -2.0]])
    block, entries = pack(ids, logprobs, V, counted=True)
    assert entries == 1 + 3
    found = unpack(np.frombuffer(block, dtype=np.uint8), 2, entries, V, counted=True)
    assert found.ids.tolist() == [[9, 9, 9], [70_000, 9, 3]]
    assert found.counts is not None and found.counts.tolist() == [[4, 0, 0], [2, 1, 1]]
    assert found.logprobs.tolist() == [[-1.0, -1.0, -1.0], [-0.5, -1.0, -2.0]]


def test_a_probability_of_zero_is_kept_as_one_and_no_infinity() -> None:
    block, entries = pack(np.array([[1, 2]]), np.array([[0.0, -np.inf]]), 512, counted=False)
    found = unpack(np.frombuffer(block, dtype=np.uint8), 1, entries, 512, counted=False)
    assert np.exp(found.logprobs).tolist() == [[1.0, 0.0]] and np.isfinite(found.logprobs).all()


def test_every_row_comes_back_and_is_found_by_its_tokens_and_number(tmp_path: Path) -> None:
    store = TeacherStore(written(tmp_path / "store"))
    for number, row in enumerate(ROWS):
        ids, logprobs = entries_of(range(number, number + 1))
        found = store.row(store.find(*row, number))
        order = np.argsort(-logprobs.astype(np.float16), axis=1)
        assert np.sort(found.ids).tolist() == np.sort(ids).tolist()
        assert found.logprobs.tolist() == np.take_along_axis(logprobs.astype(np.float16), order, 1).tolist()
    assert store.find(*ROWS[7], number=3) == 7  # another student's numbers
    assert store.find([2, 10], [100, 101]) is None
    assert store.find([2], [10, *ROWS[0][1]]) is None  # the same tokens, with the prompt ending elsewhere


def test_of_two_rows_with_the_same_tokens_each_has_its_own_draw(tmp_path: Path) -> None:
    twice = [ROWS[0], ROWS[1], ROWS[0]]
    ask = lambda numbers: tuple(np.concatenate(part) for part in zip(*map(draw, numbers), strict=True))  # noqa: E731
    draw = lambda n: (np.tile(np.arange(K) + 50 * n, (len(twice[n][1]), 1)), np.full((len(twice[n][1]), K), -2.0))  # noqa: E731
    write_store(tmp_path / "s", about(rows=3, data=data_hash(twice)), twice, ask, 2, lambda done, total: None)
    store = TeacherStore(tmp_path / "s")
    assert [store.row(store.find(*ROWS[0], number)).ids[0, 0] for number in (0, 2)] == [0, 100]


def test_a_shard_holds_as_many_rows_as_have_its_tokens() -> None:
    assert shard_rows([([1], [1] * 10), ([1], [1] * 6), ([1], [1]), ([1], [1] * 40)]) == [
        range(0, 2),  # 10 + 6 = 16
        range(2, 3),
        range(3, 4),  # more than a shard's, but whole
    ]


@pytest.mark.parametrize("kill_at", [0, 1, 5, 9, LAST])
def test_a_killed_writing_goes_on_to_the_same_bytes(kill_at: int, tmp_path: Path) -> None:
    """Killed with SIGKILL at a question to the teacher, or (LAST) when all but the last word is written."""
    code = f"""
import os, signal
from pathlib import Path
from gemsmith.curation.teacher_store import writing
from tests.curation.test_teacher_store import ROWS, about, entries_of
writing.SHARD_TOKENS, asked = 16, []
def ask(numbers):
    asked.append(numbers)
    if len(asked) > {kill_at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return entries_of(numbers)
def write_manifest(folder, manifest, whole, wrapped=writing._write_manifest):
    if manifest.complete and {kill_at} == {LAST}:
        os.kill(os.getpid(), signal.SIGKILL)
    wrapped(folder, manifest, whole)
writing._write_manifest = write_manifest
writing.write_store(Path({str(tmp_path / "killed")!r}), about(), ROWS, ask, 2, lambda done, total: None)
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT)
    assert ended.returncode == -signal.SIGKILL
    with pytest.raises(UserError, match="not finished"):
        TeacherStore(tmp_path / "killed")
    asked: list[int] = []

    def counting(numbers: range) -> tuple[np.ndarray, np.ndarray]:
        asked.extend(numbers)
        return entries_of(numbers)

    assert contents(written(tmp_path / "killed", counting)) == contents(written(tmp_path / "whole"))
    assert (len(asked) == 20) == (kill_at in (0, 1))  # the teacher is asked again about one shard at most
    if kill_at == LAST:
        assert asked == []


def test_writing_again_asks_nothing_and_changes_nothing(tmp_path: Path) -> None:
    before = contents(written(tmp_path / "store"))
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()}
    written(tmp_path / "store", lambda numbers: pytest.fail("the teacher was asked"))
    assert contents(tmp_path / "store") == before
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()} == times


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
def test_a_harmed_shard_is_named_and_writing_again_mends_it_alone(harm: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "store")
    before, path = contents(folder), folder / "targets-00002.bin"
    whole = path.read_bytes()
    if harm == "delete":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] if harm == "truncate" else whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    words = {"flip": "checksum differs", "truncate": f"{len(whole) - 1} bytes where {len(whole)}", "delete": "No such"}
    with pytest.raises(UserError, match=rf"targets-00002\.bin .*{words[harm]}.*teacher-cache"):
        TeacherStore(folder)
    asked: list[int] = []

    def counting(numbers: range) -> tuple[np.ndarray, np.ndarray]:
        asked.extend(numbers)
        return entries_of(numbers)

    assert contents(written(folder, counting)) == before
    assert asked == list(shard_rows(ROWS)[2])


def test_a_damaged_manifest_and_a_folder_that_is_none_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "store")
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text()[:100])
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        TeacherStore(folder)
    with pytest.raises(UserError, match=r"manifest.json"):
        TeacherStore(tmp_path)
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()
    with pytest.raises(UserError, match=r"manifest.json.*Is a directory"):
        TeacherStore(folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(UserError, match=r"not empty .*letter\.txt"):
        written(tmp_path / "mine")
    assert (tmp_path / "mine/letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("old", "new"), [('"k": 8', '"k": 4'), ('"rows": 20', '"rows": 19'), (f'"vocabulary": {V}', '"vocabulary": 70001')]
)
def test_a_manifest_that_was_edited_is_refused_by_reader_and_writer_with_a_way_out(
    old: str, new: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "store") / "manifest.json"
    whole = path.read_text()
    assert old in whole
    path.write_text(whole.replace(old, new, 1))
    for use in (TeacherStore, written):
        with pytest.raises(UserError, match=r"manifest\.json (was|is) .*damaged"):
            use(path.parent)
    path.write_text(whole)
    assert TeacherStore(path.parent).about.k == K


def test_a_store_that_says_it_is_complete_has_all_its_rows(tmp_path: Path) -> None:
    empty = Manifest.model_construct(complete=True, about=about(), shards=[])
    (tmp_path / "manifest.json").write_text(empty.sealed().model_dump_json())
    with pytest.raises(UserError, match=r"manifest\.json is damaged.*its shards have 0 of 20 rows"):
        TeacherStore(tmp_path)


def test_a_place_where_no_store_can_be_is_named_before_the_teacher_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place, words in (("file", "it is a file"), ("file/below", "Not a directory"), ("/proc/here", "No such file")):
        with pytest.raises(UserError, match=rf"targets .*{place} \({words}"):
            written(tmp_path / place, lambda numbers: pytest.fail("asked"))
    folder = written(tmp_path / "store")
    for stray in ("targets-00001.bin", "targets-00000.bin.part"):
        (folder / stray).unlink(missing_ok=True)
        (folder / stray).mkdir()
        with pytest.raises(UserError, match=rf"{stray} is a folder, .*shard"):
            written(folder)
        (folder / stray).rmdir()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"temperature": 2.0}, "temperature is 1.0, and 2.0"),
        ({"teacher": "u" * 64, "teacher_name": "other"}, r"teacher is big \(t+\), and other \(u+\)"),
        ({"k": 4}, "k is 8, and 4"),
        ({"mode": "topk"}, "mode is gumbel_renorm, and topk"),
        ({"tokenizer": "w" * 64}, "tokenizer is v+, and w+"),
        ({"data": "d" * 64}, "data is"),
    ],
)
def test_targets_of_another_kind_are_not_mixed_into_a_store(
    changed: dict[str, object], words: str, tmp_path: Path
) -> None:
    before = contents(written(tmp_path / "store"))
    with pytest.raises(UserError, match=words):
        written(tmp_path / "store", **changed)
    assert contents(tmp_path / "store") == before


def test_a_disk_that_fills_half_way_loses_nothing_and_the_writing_goes_on(tmp_path: Path) -> None:
    whole = contents(written(tmp_path / "whole"))
    limit = len(whole["targets-00002.bin"]) - 1  # of a file's size: EFBIG, as a quota and a full disk refuse
    folder, old = tmp_path / "full", resource.getrlimit(resource.RLIMIT_FSIZE)
    calls: list[range] = []

    def ask(numbers: range) -> tuple[np.ndarray, np.ndarray]:
        calls.append(numbers)
        if numbers.start >= shard_rows(ROWS)[2].start:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
        return entries_of(numbers)

    try:
        with pytest.raises(RunError, match=r"is full.* 2 complete shards"):
            written(folder, ask)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert sorted(contents(folder)) == ["manifest.json", "targets-00000.bin", "targets-00001.bin"]
    assert len(read_manifest(folder).shards) == 2
    assert contents(written(folder)) == whole


def test_two_processes_do_not_write_one_store(tmp_path: Path) -> None:
    def ask(numbers: range) -> tuple[np.ndarray, np.ndarray]:
        with pytest.raises(UserError, match="Another process"):
            written(tmp_path / "store")
        return entries_of(numbers)

    written(tmp_path / "store", ask)


def test_a_teacher_that_gives_no_numbers_is_named_with_the_row_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    def ask(numbers: range) -> tuple[np.ndarray, np.ndarray]:
        ids, logprobs = entries_of(numbers)
        if 5 in numbers:
            logprobs[-1 if numbers[-1] == 5 else 0, 3] = np.nan
        return ids, logprobs

    with pytest.raises(UserError, match=r"big gives a log-probability that is not a number.*row 5 of the data"):
        written(tmp_path / "store", ask)
    for value, words in (
        (np.inf, "a log-probability above 0"),
        (0.5, "a log-probability above 0"),
        (-np.inf, "no entry"),
    ):

        def wrong(numbers: range, value: float = value) -> tuple[np.ndarray, np.ndarray]:
            ids, logprobs = entries_of(numbers)
            logprobs[0] = value
            return ids, logprobs

        with pytest.raises(UserError, match=rf"big gives {words}.*row 0 of the data"):
            written(tmp_path / "wrong", wrong)
    with pytest.raises(UserError, match=r"answered with \[\d+, 4\] ids"):
        written(tmp_path / "other", lambda numbers: tuple(part[:, :4] for part in entries_of(numbers)))  # type: ignore


def test_counts_take_less_where_the_teacher_is_sure(tmp_path: Path) -> None:
    folder = written(tmp_path / "store", lambda n: entries_of(n, counted=True), mode="multinomial_counts")
    store = TeacherStore(folder)
    found = store.row(store.find(*ROWS[4], 4))
    assert found.counts is not None and (found.counts.sum(axis=1) == K).all() and found.ids.shape[1] <= 3
    shutil.copytree(folder, tmp_path / "copy")
    assert json.loads((tmp_path / "copy/manifest.json").read_text())["complete"]
