"""The report holds what the files of a run say, whether it is whole, half-finished or hostile, and loads nothing."""

import json
import re
from html.parser import HTMLParser

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.report import write_report

VOID = {"meta", "br", "hr"}
LOADING = {"src", "href", "srcset", "data", "action", "xlink:href", "poster", "style"}


class Page(HTMLParser):
    """Text and attributes of a page; fails where elements are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())

    def having(self, tag: str, word: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.tags if name == tag and word in (found.get("class") or "").split()]


def read(run) -> Page:
    return Page(write_report(run.path).read_text())


def test_the_page_is_one_file_that_loads_nothing(whole_run):
    page = read(whole_run)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed", "use", "image"}
    assert not [(tag, name) for tag, found in page.tags for name in found if name in LOADING or name.startswith("on")]
    assert not re.search(r"url\(|@import", (whole_run.path / "report.html").read_text())


def test_several_tasks_have_a_table_of_their_own(whole_run):
    assert "By task" not in read(whole_run).text
    path = whole_run.stage("scores") / "output" / "scores.json"
    scores = json.loads(path.read_text())
    rates = {"sums": {"mean": 0.25, "low": 0.2, "high": 0.3}, "talk": None}
    for policy in scores["policies"]:
        policy["by_task"] = {task: {"prompts": 40, "pass_rate": rate} for task, rate in rates.items()}
    path.write_text(json.dumps(scores))
    text = read(whole_run).text
    assert "By task pass rate, sampled sums 40 prompts talk 40 prompts" in text
    assert text.count("25.0% 95% interval: 20.0% to 30.0%") == len(scores["policies"])


def test_the_table_says_what_scores_json_says(whole_run):
    scores = json.loads((whole_run.stage("scores") / "output" / "scores.json").read_text())
    text = read(whole_run).text
    for policy in scores["policies"]:
        for key in ("pass_rate", "greedy_pass_rate"):
            found = {end: f"{100 * policy[key][end]:.1f}%" for end in ("mean", "low", "high")}
            assert f"{found['mean']} 95% interval: {found['low']} to {found['high']}" in text
        for key, decimals in (("reward", 2), ("kl", 2), ("length", 2)):
            mean, low, high = (f"{policy[key][end]:.{decimals}f}".replace("-", "−") for end in ("mean", "low", "high"))
            assert f"{mean} 95% interval: {low} to {high}" in text


def test_a_stage_is_credited_with_its_gain_over_the_policy_it_started_from(whole_run):
    assert "+35.3 points from sft intervals apart" in read(whole_run).text  # 68.4 - 33.1


def test_overlapping_intervals_are_called_no_difference(whole_run):
    path = whole_run.stage("scores") / "output" / "scores.json"
    scores = json.loads(path.read_text())
    scores["policies"][1]["pass_rate"] = {"mean": 0.35, "low": 0.34, "high": 0.36}  # sft: 0.311 to 0.351
    path.write_text(json.dumps(scores))
    text = read(whole_run).text
    assert "+1.9 points from sft intervals overlap" in text
    assert "The difference is +1.9 points, intervals overlapping: no difference is shown." in text


def test_a_gain_has_the_interval_of_the_paired_difference(whole_run):
    path = whole_run.stage("scores") / "output" / "scores.json"
    scores = json.loads(path.read_text())
    stage, than = scores["policies"][1]["stage"], scores["policies"][0]["stage"]
    found = {"mean": 0.353, "low": 0.3, "high": 0.406, "p_value": 1e-9, "prompts": 64}
    scores["differences"] = [{"stage": stage, "than": than, "task": None, "pass_rate": found, "reward": None}]
    path.write_text(json.dumps(scores))
    assert "+35.3 points from sft +30.0 to +40.6, p < 0.001" in read(whole_run).text


def test_hostile_samples_stay_text(whole_run):
    attack = '</pre><script>alert("x")</script><img src=http://elsewhere.example/x onerror=alert(1)>'
    path = whole_run.stage("scores") / "output" / "samples.jsonl"
    row = json.loads(path.read_text())
    row["prompt"] = row["answer"] = attack
    row["policies"]["aligned"]["greedy"]["text"] = row["policies"]["sft"]["sampled"][0]["text"] = attack
    path.write_text(json.dumps(row) + "\n")
    page = read(whole_run)
    assert page.text.count("alert(1)") == 4
    assert not {tag for tag, _ in page.tags} & {"script", "img"}


def test_samples_of_the_first_and_the_last_policy_stand_side_by_side_with_marks(whole_run):
    text = read(whole_run).text
    assert "2 + 3 = expected: 5" in text
    assert "sft 0 of 2 sampled answers right ✗ 4 greedy ✗ 4 2 times · reward 0.5" in text
    assert "aligned 2 of 2 sampled answers right ✓ 5 greedy ✓ 5 reward 0.5 ✓ = 5 reward 0.5" in text


def test_each_run_is_a_line_that_breaks_where_an_iteration_ends(whole_run):
    page = read(whole_run)
    assert [len(page.having("path", "line")), len(page.having("path", "raw"))] == [9, 9]  # 1 + 2 panels * 2 runs * 2
    assert len(page.having("line", "break")) == 2  # one in each panel of `aligned`
    assert "run 1 run 2" in page.text


def test_the_estimator_of_a_kl_is_named_and_a_biased_one_is_called_so(whole_run):
    text = read(whole_run).text
    assert "KL to the initial policy (nats; k1, sampled)" in text and "KLs and entropy are biased" not in text
    told = {"kl_to_initial": "k1, sampled", "own_distribution": False}
    (whole_run.stage("aligned") / "estimators.json").write_text(json.dumps(told))
    assert read(whole_run).text.count("KLs and entropy are biased") == 1


def test_what_single_kinds_leave_is_shown(whole_run):
    text = read(whole_run).text
    assert "member 1 0.0005 0.05 88.4% 86.4% to 90.4% 4.2% 0.31 -0.12 averaged" in text
    assert "layers.0 71.9° 1.1, 1.2 0.917 1.15" in text
    assert "parameters 1,432,576" in text and "difference of a weight from sft 0.021" in text


def test_quantisation_and_the_formats_of_an_export_are_shown(whole_run):
    seen = {"kl": 0.5, "agreement": 0.75, "tokens": 1234}
    measured = {"format": "q4_0", "embedding": "f16", "rows": 9, "ptq": {**seen, "kl": 0.625}, "qat": seen}
    whole_run.write(whole_run.stage("aligned") / "output" / "qat.json", measured)
    silent = {"run": False, "reason": "llama_cpp is not installed"}
    gguf = {"file": "a-q4_0.gguf", "matrices": "q4_0", "embedding": "f16", "bytes": 2_500_000, "moved": 0, "gap": 0.125,
            "mean_gap": 0.015625}  # fmt: skip
    proof = {"base": None, "reload_gap": None, "gguf": {**gguf, "llama_cpp": silent}}
    proof["adapter"] = {"folder": "adapter", "bytes": 1_000_000, "rank": 16, "gap": 0.25}
    whole_run.write(whole_run.stage("release") / "output" / "export.json", proof)
    text = read(whole_run).text
    for words in (
        "0.625",
        "75.0%",
        "9 held-out demonstrations (1,234 tokens)",
        "a-q4_0.gguf",
        "2.5 MB",
        "0.0156",
        "rank 16",
    ):
        assert words in text
    assert "not run: llama_cpp is not installed" in text
    assert "/release-0123abcd/output/a-q4_0.gguf'" in text  # llama-cli -m


def test_an_export_without_a_transformers_folder_is_not_what_to_load(whole_run):
    whole_run.write(whole_run.stage("release") / "output" / "export.json", {"formats": ["gguf", "adapter"]})
    assert "The policy of stage aligned." in read(whole_run).text


def test_the_header_says_what_ran_where_and_for_how_long(whole_run):
    text = read(whole_run).text
    assert "Sums, aligned." in text
    assert "Abacus 3000, 2 cores, 24 GiB, no GPU" in text
    assert "2026-01-02 03:04:05 UTC" in text
    assert "1 min 02 s" in text  # 5 stages of 12.5 s


def test_the_result_to_load_is_the_export_else_the_last_policy(whole_run):
    assert f"vllm serve '{whole_run.stage('release').resolve()}/output'" in read(whole_run).text
    whole_run.statuses |= {"scores": "failed", "release": "to run"}
    whole_run.write_run()
    assert f"vllm serve '{whole_run.stage('aligned').resolve()}/output'" in read(whole_run).text


def test_a_run_that_has_only_begun_shows_its_stages(empty_run):
    empty_run.statuses = {
        "sft": "running",
        "warm": "to run",
        "aligned": "to run",
        "scores": "to run",
        "release": "to run",
    }
    empty_run.write_run()
    text = read(empty_run).text
    assert "0 of 5 finished" in text
    assert "sft (sft): running" in text and "No evaluation has finished yet" in text
    assert "How to load" not in text


def test_half_a_line_of_metrics_and_numbers_that_are_none_are_left_out(whole_run):
    with (whole_run.stage("sft") / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "loss": NaN}\n{"step": 42, "loss": 0.')
    html = write_report(whole_run.path).read_text()
    assert "nan" not in html.lower()
    assert "loss (nats): 0.075 at step 40" in html  # 3 / 40


def test_a_failed_stage_is_named_with_its_last_words(whole_run):
    whole_run.statuses |= {"warm": "failed", "aligned": "to run", "scores": "to run", "release": "to run"}
    whole_run.write_run()
    (whole_run.stage("warm") / "console.log").write_text("a\nOSError: No space left on device\n")
    text = read(whole_run).text
    assert "warm failed a OSError: No space left on device" in text
    assert "warm (warm): failed" in text


def test_a_folder_without_a_run_is_the_users_fault(tmp_path):
    with pytest.raises(UserError, match=r"run\.json"):
        write_report(tmp_path)
