"""The recipe four-tasks: its data functions, and how its rewards are routed."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gemsmith.curation.load import load_data, unique_prompts
from gemsmith.recipes.data import four_tasks
from gemsmith.recipes.pipeline.pipeline import open_recipe
from gemsmith.rl.rewards.kinds.refusal import refuses
from gemsmith.sandboxes.instructions.registry import instructions

ROOT = Path(__file__).parents[3]
FUNCTIONS = {"programs": four_tasks.programs, "instructions": four_tasks.instructions, "requests": four_tasks.requests}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows_depend_on_the_seed_alone_and_no_prompt_comes_twice(name: str):
    rows = list(FUNCTIONS[name](seed=3, size=80, copies=2))
    assert rows == list(FUNCTIONS[name](seed=3, size=80, copies=2))
    assert rows != list(FUNCTIONS[name](seed=4, size=80, copies=2))
    assert set(Counter(row["prompt"] for row in rows).values()) == {2} and len(rows) == 160


def test_a_slipped_program_differs_from_the_right_one():
    rows = list(four_tasks.programs(seed=0, size=200, right=0.25))
    assert all(row["rejected"] != row["answer"] == row["chosen"] for row in rows)
    assert sum(row["demonstration"] == row["answer"] for row in rows) / 800 == pytest.approx(0.25, abs=0.05)
    (row,) = four_tasks.programs(seed=0, size=1, copies=1)
    names: dict[str, object] = {}
    exec(row["answer"], names)  # a program of ours
    assert [names["f"](*given) for given, _ in row["tests"]["calls"]] == [out for _, out in row["tests"]["calls"]]  # type: ignore[operator]


def test_demonstrations_follow_their_instructions_as_often_as_asked():
    rows = list(four_tasks.instructions(seed=0, size=200, right=0.25))
    followed = [
        all(one.followed(row["demonstration"]) for one in instructions(row["instruction_id_list"], row["kwargs"]))
        for row in rows
    ]
    assert sum(followed) / 800 == pytest.approx(0.25, abs=0.05)


def test_the_control_is_the_share_of_words_on_topic():
    texts = ["red, saw", '"red blue ok"', "ok", "nothing"]
    topic = [four_tasks.TOPICS["colours"]] * 4
    assert four_tasks.on_topic([""] * 4, texts, topic) == [1 / 2, 2 / 2, 0, 0]


def test_harmful_requests_are_the_ones_to_refuse():
    rows = list(four_tasks.requests(seed=0, size=200, refused=0.5, answered=0.75))
    shares = {
        label: [refuses(row["demonstration"]) == "full" for row in rows if row["label"] == label]
        for label in ("safe", "unsafe")
    }
    assert sum(shares["unsafe"]) / len(shares["unsafe"]) == pytest.approx(0.5, abs=0.08)
    assert sum(shares["safe"]) / len(shares["safe"]) == pytest.approx(0.25, abs=0.08)
    for row in rows:
        harmful = any(verb in row["prompt"].split() for verb in four_tasks.UNSAFE)
        assert harmful == (row["label"] == "unsafe") == (refuses(row["answer"]) == "full")


def test_every_task_has_its_own_truth():
    pipeline = open_recipe("four-tasks")
    split = load_data(pipeline.data["all"], name="all", seed=0, root=pipeline.root)
    tasks = Counter(example.task for example in unique_prompts(split.train))
    assert set(tasks) == {"chain_sum", "programs", "instructions", "requests"}
    assert tasks["chain_sum"] / sum(tasks.values()) == pytest.approx(0.4, abs=0.01)
    (stage,) = (node.config for node in pipeline.nodes if node.id == "aligned")
    routed = {task: [n for n in stage.rewards if pipeline.rewards[n].applies_to(task)] for task in tasks}  # type: ignore[attr-defined]
    assert routed == {
        "chain_sum": ["right", "close", "brief"],
        "programs": ["solved"],
        "instructions": ["follows"],
        "requests": ["safe", "helpful"],
    }


def test_its_gold_answers_pass_their_own_verifiers():
    command = [sys.executable, "-m", "gemsmith", "validate", "--gold", "four-tasks"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.count(", 0 not right") == 4
