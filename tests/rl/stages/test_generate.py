"""The generate stage with a tiny policy that answers with numbers and is rewarded by their length."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import JsonLinesData, ReasoningGymData
from gemsmith.curation.example import Example
from gemsmith.curation.generated import check_columns, read_answers
from gemsmith.curation.load import load_data
from gemsmith.policy.head.logprobs import weighted_logprobs
from gemsmith.policy.loading.load import save_policy
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.text.chat import completion_ids, prompt_ids
from gemsmith.rl.rewards.config import LengthReward
from gemsmith.rl.stages.generate.config import GenerateStage
from gemsmith.rl.stages.generate.stage import run
from tests.messages import raises_facts
from tests.warm_python import WarmPython

ROOT = Path(__file__).parents[3]
SUMS = ReasoningGymData.model_validate(
    {"source": "reasoning_gym", "task": "chain_sum", "size": 40, "holdout": 0.3, "columns": ["metadata"]}
)
SHORT = LengthReward(kind="length", unit="characters", high=1, slack=4, weight=2)


class Watcher:
    def __init__(self) -> None:
        self.done: list[int] = []
        self.said: list[str] = []

    def progress(self, done: int, total: int, unit: str, shown: Any) -> None:
        self.done.append(done)

    def say(self, message: str) -> None:
        self.said.append(message)


def config(**fields: Any) -> GenerateStage:
    given = {
        "id": "answers", "kind": "generate", "policy": {"from": "teacher"}, "data": "sums", "prompts": 12,
        "samples": 8, "rewards": ["short"], "sampling": {"max_tokens": 5, "batch": 32}, "shown": 2, **fields,
    }  # fmt: skip
    return GenerateStage.model_validate(given)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a policy trained for a few steps to answer with one or two digits and to end its turn."""
    policy = tiny_policy()
    prompts = [prompt_ids(policy.tokenizer, [{"role": "user", "content": f"{i} + {i % 3} ="}]) for i in range(8)]
    answers = [completion_ids(policy.tokenizer, f"{7 * i}") for i in range(8)]
    optimiser = torch.optim.AdamW(policy.model.parameters(), lr=3e-3)
    for _ in range(10):
        (-weighted_logprobs(policy.model, prompts, answers, torch.ones(8))[0] / 8).backward()
        optimiser.step()
        optimiser.zero_grad()
    folder: Path = tmp_path_factory.mktemp("teacher") / "output"
    save_policy(policy, folder)
    return folder


@pytest.fixture
def stage(tmp_path: Path, teacher: Path) -> Stage:
    data, rewards = {"sums": SUMS}, {"short": SHORT}
    return Stage("answers", tmp_path / "stage", 0, tmp_path, {"teacher": teacher}, data, rewards, sink=Watcher())


def summary(stage: Stage) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((stage.output / "generated.json").read_text())
    return content


def test_the_best_answer_to_each_training_prompt_is_kept_with_the_columns_of_its_row(stage: Stage):
    run(config(), stage)
    kept = read_answers(stage.output)
    split = load_data(SUMS, name="sums", seed=0, root=stage.root)
    source = {example.prompt: example for example in split.train}
    assert kept and split.test
    assert not {example.prompt for example in kept} & {example.prompt for example in split.test}
    for example in kept:
        asked = source[example.prompt]
        assert (example.answer, example.task, example.messages) == (asked.answer, asked.task, asked.messages)
        assert example.columns["metadata"]["expression"] == asked.columns["metadata"]["expression"]
    lines = [json.loads(line) for line in (stage.output / "answers.jsonl").read_text().splitlines()]
    for line in lines:
        fit = 1 - max(0, len(line["demonstration"].strip()) - 1) / 4  # 1 for one character, 0 for five
        assert (line["reward"], line["rewards"]) == (2 * fit, {"short": fit})
    pairs = [line for line in lines if line["rejected"] is not None]
    assert pairs and all(len(line["rejected"].strip()) > len(line["chosen"].strip()) for line in pairs)
    found = summary(stage)
    assert found["kept"] == len(lines) and found["prompts"] == 12
    assert found["kept"] + sum(found["dropped"].values()) == 12 * 8
    without = 12 - len({line["prompt"] for line in lines})
    assert found["prompts_left_out"].get("no answer kept", 0) == without
    assert len(found["shown"]) == 2 and len(found["shown"][0]["answers"]) == 8
    assert stage.sink.done == [4, 8, 12]  # type: ignore[attr-defined]


def test_without_rewards_every_answer_that_ends_is_kept(stage: Stage):
    run(config(rewards=[], samples=4, keep=4), stage)
    found = summary(stage)
    assert set(found["dropped"]) <= {"unfinished", "empty", "duplicate"}
    assert {json.loads(line)["reward"] for line in (stage.output / "answers.jsonl").read_text().splitlines()} == {None}


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        (
            {"sampling": {"max_tokens": 1, "batch": 32}},
            ["96 completions", "12 prompts", "unfinished", "sampling.max_tokens"],
        ),
        ({"at_least": 2.5}, ["96 completions", "data sums", "below at_least", "lower at_least"]),
        ({"sampling": {"max_tokens": 100_000, "batch": 32}}, ["data sums", "100000 tokens", "sampling.max_tokens"]),
    ],
)
def test_a_policy_that_gives_no_answer_is_told_of_in_one_sentence(
    stage: Stage, fields: dict[str, Any], facts: list[str]
):
    with raises_facts(UserError, *facts):
        run(config(**fields), stage)
    assert not stage.output.exists()
    assert len(list((stage.folder / "chunks").iterdir())) == 3  # the sampled chunks are kept


def test_what_was_drawn_is_not_drawn_again(stage: Stage):
    with pytest.raises(UserError) as first:
        run(config(at_least=2.5), stage)
    chunk = stage.folder / "chunks" / "000001.json"
    before = chunk.stat().st_mtime_ns
    with raises_facts(UserError, "below at_least", "data sums") as second:
        run(config(at_least=2.5), stage)
    assert str(first.value) == str(second.value) and chunk.stat().st_mtime_ns == before


def test_a_column_that_no_file_can_hold_is_named():
    with raises_facts(UserError, "column 'when'", "row 1", "bytes"):
        check_columns([Example("a", columns={"when": b"x"}, where="row 1")], "sums")


def test_prompts_that_differ_in_white_space_alone_give_an_answer_once(stage: Stage):
    (stage.root / "rows.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in ("2 +  3", "2 + 3")))
    data = JsonLinesData.model_validate({"source": "jsonl", "path": "rows.jsonl", "holdout": 0})
    stage.data = {"sums": data}
    run(config(samples=32, keep=32, rewards=[], sampling={"max_tokens": 3, "batch": 64}), stage)
    kept = [(" ".join(e.prompt.split()), " ".join(str(e.demonstration).split())) for e in read_answers(stage.output)]
    assert len(kept) == len(set(kept)) == summary(stage)["kept"]
    assert summary(stage)["dropped"]["repeated prompt and answer"] > 0


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"keep": 9}, ["keep is 9", "samples", 8]),
        ({"rewards": [], "keep": 8, "at_least": 1}, ["at_least", "`rewards`"]),
        ({"rewards": []}, ["samples is 8", "keep is 1", "`rewards`"]),
        ({"at_least": float("nan")}, ["at_least", "finite"]),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(fields: dict[str, Any], facts: list[Any]):
    with raises_facts(ValueError, *facts):
        config(**fields)


def test_a_stage_killed_with_sigkill_continues_to_the_same_bytes(tmp_path: Path, warm_python: WarmPython):
    def killed_after(folder: str, chunks: int) -> int:
        (tmp_path / folder).mkdir(exist_ok=True)
        program = [str(ROOT / "tests/rl/stages/killable.py"), folder, "generate", str(chunks)]
        return warm_python.run(program, cwd=tmp_path).returncode

    assert killed_after("whole", 0) == 0
    assert killed_after("killed", 3) == -signal.SIGKILL
    assert not (tmp_path / "killed/output").exists()
    assert killed_after("killed", 0) == 0
    for name in ("output/answers.jsonl", "output/generated.json", "metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
