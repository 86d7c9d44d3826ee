import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.compose import RewardTable, open_rewards
from tests.messages import assert_facts, raises_facts

WithFunction = Callable[..., Stage]
PROMPTS = ["first question", "second question", "third question"]
COMPLETIONS = ["one", "two", "three"]


def score(stage: Stage, **columns: list[Any]) -> list[float | None]:
    with open_rewards(["mine"], stage) as rewards:
        return rewards.score(PROMPTS, COMPLETIONS, {"answer": ["1", "2", "3"], **columns}).each["mine"]


def failure(stage: Stage, **columns: list[Any]) -> str:
    with pytest.raises(UserError) as caught:
        score(stage, **columns)
    assert "reward mine" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "def f(prompts, completions, answer, **columns):\n    return [len(c) for c in completions]",
        "def f(completions):\n    return [float(len(c)) for c in completions]",
        "async def f(prompts, completions, **columns):\n    return [len(c) for c in completions]",
        "import numpy\ndef f(*, completions, **columns):\n    return numpy.array([len(c) for c in completions])",
        "class L:\n    def __call__(self, completions, **columns):\n        return (3, 3, 5)\nf = L()",
    ],
)
def test_functions_of_every_shape_are_called_as_trl_calls_them(with_function: WithFunction, source: str):
    assert score(with_function(source)) == [3.0, 3.0, 5.0]


def test_the_function_is_given_prompts_completions_columns_and_options(with_function: WithFunction):
    source = (
        "def f(prompts, completions, answer, level, scale, **rest):\n"
        "    assert prompts[0] == 'first question' and completions[1] == 'two' and sorted(rest) == ['system']\n"
        "    return [int(a) * scale + l for a, l in zip(answer, level)]"
    )
    stage = with_function(source, options={"scale": 10})
    assert score(stage, level=[0.5, 0.25, 0.0], system=[None] * 3) == [10.5, 20.25, 30.0]


def test_the_tokens_of_completions_are_handed_over_as_trl_does(with_function: WithFunction):
    stage = with_function("def f(completion_ids, **c):\n    return [len(ids) for ids in completion_ids]")
    assert score(stage, completion_ids=[[1], [1, 2], []]) == [1.0, 2.0, 0.0]


@pytest.mark.parametrize("name", ["trainer_state", "log_extra", "log_metric", "environments"])
def test_what_only_trl_gives_is_told_as_such(with_function: WithFunction, name: str):
    assert f"TRL's `{name}` " in failure(with_function(f"def f(completions, {name}, **c):\n    {ONE}"))
    optional = with_function(f"def f(completions, {name}=None, **c):\n    return [{name}] * len(completions)")
    assert score(optional) == [None] * 3


def test_a_completion_taken_for_messages_is_told_to_be_plain_text(with_function: WithFunction):
    source = "def f(completions, **c):\n    return [len(x[0]['content']) for x in completions]"
    assert_facts(failure(with_function(source)), "plain text", "lists of messages", "c[0]['content']")


def test_processes_that_the_function_spawns_can_import_its_file(with_function: WithFunction):
    source = (
        "import multiprocessing\ndef length(text):\n    return len(text)\ndef f(completions, **c):\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n        return pool.map(length, completions)"
    )
    assert score(with_function(source, time_limit=30.0)) == [3.0, 3.0, 5.0]


@pytest.mark.parametrize("file", ["random.py", "my-rewards.py"])
def test_a_file_whose_name_is_taken_or_is_no_module_is_loaded_all_the_same(with_function: WithFunction, file: str):
    stage = with_function("", target=f"{file}:f")
    (stage.root / file).write_text(f"def f(completions, **c):\n    {ONE}")
    assert score(stage) == [1.0] * 3


@pytest.mark.parametrize(
    ("value", "weight", "fits"), [("1e15", 1.0, True), ("1e16", 0.1, False), ("-1e16", 1.0, False), ("1", 1e16, False)]
)
def test_a_number_whose_square_float32_cannot_sum_is_refused(
    with_function: WithFunction, value: str, weight: float, fits: bool
):
    stage = with_function(f"def f(completions, **c):\n    return [None, {value}, 0.0]", weight=weight)
    if fits:
        assert score(stage) == [None, float(value), 0.0]
    else:
        assert_facts(failure(stage), "sample 1 (prompt 'second question', completion 'two')", "at most 1e+15", "weight")


def test_none_means_that_the_reward_does_not_apply(with_function: WithFunction):
    assert score(with_function("def f(completions, **c):\n    return [None, 1, True]")) == [None, 1.0, 1.0]


def test_state_and_printing_of_a_function_are_its_own(with_function: WithFunction, capfd: pytest.CaptureFixture[str]):
    stage = with_function(
        "calls = 0\ndef f(completions, **c):\n    global calls\n    calls += 1\n    print('noise')\n"
        "    return [calls] * len(completions)"
    )
    with open_rewards(["mine"], stage) as rewards:
        for call in (1, 2):
            assert rewards.score(PROMPTS, COMPLETIONS, {}).each["mine"] == [call] * 3
    assert capfd.readouterr().out == ""


def test_a_file_may_import_its_neighbours_and_a_module_is_found_beside_the_recipe(with_function: WithFunction):
    stage = with_function(
        "from neighbour import length\ndef f(completions, **c):\n    return [length(x) for x in completions]"
    )
    (stage.root / "neighbour.py").write_text("def length(x):\n    return len(x)\n")
    assert score(stage) == [3.0, 3.0, 5.0]
    package = stage.root / "rewards_of_mine"
    package.mkdir()
    (package / "brief.py").write_text("def f(completions, **c):\n    return [-len(x) for x in completions]\n")
    assert score(with_function("", target="rewards_of_mine.brief:f")) == [-3.0, -3.0, -5.0]


def test_the_function_runs_in_a_process_of_its_own_that_ends_with_the_rewards(with_function: WithFunction):
    stage = with_function("import os\ndef f(completions, **c):\n    return [os.getpid()] * len(completions)")
    with open_rewards(["mine"], stage) as rewards:
        (pid,) = set(rewards.score(PROMPTS, COMPLETIONS, {}).each["mine"])
        assert pid != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid or 0), 0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('bad luck')", ["ValueError: bad luck", "mine.py:3"]),
        ("import sys; sys.exit('gone')", ["raised SystemExit: gone at", "mine.py:3"]),
        ("raise KeyboardInterrupt", ["raised KeyboardInterrupt at", "mine.py:3"]),
        ("import os; os._exit(7)", ["exited with code 7"]),
        ("import os; os.kill(os.getpid(), 11)", ["SIGSEGV"]),
        ("return [float('nan')] * len(completions)", ["returned nan"]),
        ("return [float('-inf')] * len(completions)", ["returned -inf"]),
        ("return ['0.5'] * len(completions)", ["'0.5' (str)"]),
        ("return [{}] * len(completions)", ["'{}' (dict)"]),
    ],
)
def test_a_function_that_fails_on_a_sample_is_named_with_the_sample(
    with_function: WithFunction, body: str, words: list[str]
):
    source = (
        f"def f(completions, **c):\n    if 'two' in completions:\n        {body}\n    return [1.0] * len(completions)"
    )
    message = failure(with_function(source))
    for word in ["mine.py:f", *words]:
        assert word in message
    if "returned" not in message:  # wrong results are reported for the batch; others name the sample
        assert "sample 1 (prompt 'second question', completion 'two')" in message


@pytest.mark.parametrize("value", ["float('nan')", "'high'", "[]"])
def test_one_bad_value_names_its_own_sample(with_function: WithFunction, value: str):
    message = failure(with_function(f"def f(completions, **c):\n    return [1.0, 2.0, {value}]"))
    assert "sample 2 (prompt 'third question', completion 'three')" in message


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("[1.0]", "1 scores for 3 completions"),
        ("None", "a NoneType instead"),
        ("1.0", "a float instead"),
        ("'abc'", "a str"),
    ],
)
def test_a_wrong_count_names_the_whole_batch_where_no_sample_is_to_blame(
    with_function: WithFunction, value: str, words: str
):
    source = f"def f(completions, **c):\n    return {value} if len(completions) > 1 else [0.0]"
    message = failure(with_function(source))
    assert words in message
    assert "batch of 3 samples" in message


@pytest.mark.parametrize("hang", ["while True: pass", "9 ** 9 ** 9 ** 9", "import time; time.sleep(1000)"])
def test_a_function_that_never_returns_is_stopped_and_the_sample_is_found(with_function: WithFunction, hang: str):
    source = (
        f"def f(completions, **c):\n    if 'three' in completions:\n        {hang}\n    return [1.0] * len(completions)"
    )
    stage = with_function(source, time_limit=2.0)
    start = time.monotonic()
    message = failure(stage)
    assert (
        time.monotonic() - start < 2.0 + 2.0 + 30.0
    )  # the limit, the search, and processes that start on a busy machine
    assert "sample 2 (prompt 'third question', completion 'three')" in message
    assert_facts(message, "waited 2 s", "function to return", "raise the reward's `time_limit`")


def test_a_slow_batch_is_not_blamed_on_a_sample(with_function: WithFunction):
    source = "import time\ndef f(completions, **c):\n    time.sleep(0.7 * len(completions))\n    return [1.0]"
    message = failure(with_function(source, time_limit=2.0))
    assert "waited 2 s for the function to return" in message
    assert_facts(message, "batch of 3 samples", "alone")


def test_a_fault_of_the_batch_is_not_hidden_by_a_sample_that_is_slow_alone(with_function: WithFunction):
    source = (
        "import time\ndef f(completions, **c):\n    if len(completions) > 1:\n        raise ValueError('bad batch')\n"
        "    time.sleep(1000)"
    )
    message = failure(with_function(source, time_limit=2.0))
    assert "ValueError: bad batch" in message
    assert "batch of 3 samples" in message


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("def g(completions, **c): ...", "mine.py:f", "has no function f"),
        ("f = 3", "mine.py:f", "has a int, not a function"),
        ("def f(:\n", "mine.py:f", "SyntaxError"),
        ("\nimport no_such_module", "mine.py:f", "mine.py:2"),
        ("1 / 0", "mine.py:f", "ZeroDivisionError"),
        ("import sys; sys.exit(3)", "mine.py:f", "SystemExit"),
        ("import os; os._exit(3)", "mine.py:f", "exited with code 3"),
        ("def f(prompts): ...", "mine.py:f", "not completions"),
        ("def f(completions, /, **c): ...", "mine.py:f", "positional-only"),
        ("def f(completions, **c): ...", "yours.py:f", "no file yours.py"),
        ("def f(completions, **c): ...", "mine", 'found "mine", expected file.py:function'),
        ("def f(completions, **c): ...", "no_such_package.mine:f", "no_such_package"),
        ("def f(completions, **c): ...", "mime.py:f", ', did you mean "mine.py"?'),
        (
            "def f(completions, **c): ...",
            "mime:f",
            "found no module mime, expected a python module that is installed or lies beside the recipe, did you mean "
            '"mine"?',
        ),
        ("from .neighbour import length", "mine.py:f", "`import neighbour`"),
    ],
)
def test_a_target_that_cannot_be_used_is_refused_when_rewards_are_opened(
    with_function: WithFunction, source: str, target: str, words: str
):
    stage = with_function(source, target=target)
    with pytest.raises(UserError) as caught:
        open_rewards(["mine"], stage)
    assert "reward mine" in str(caught.value)
    assert words in str(caught.value)


def test_an_import_that_hangs_is_stopped(with_function: WithFunction, monkeypatch: pytest.MonkeyPatch, listener):
    monkeypatch.setattr("gemsmith.rl.rewards.plugins.plugin.IMPORT_LIMIT", 1.0)
    stage = with_function("while True: pass", time_limit=1.0)
    monkeypatch.setattr("gemsmith.contracts.waits.FIRST_WORD", 0.2)
    with raises_facts(UserError, "reward mine", "waited 1 s", "module to be imported"):
        open_rewards(["mine"], stage)
    words = [f"waiting for reward mine (mine.py:f) to be imported: {after} s of at most 1 s" for after in (0.2, 0.4)]
    assert listener.said[:2] == words


def test_an_option_or_a_column_that_does_not_fit_is_named(with_function: WithFunction):
    stage = with_function("def f(completions, answer): ...", options={"scale": 2})
    with raises_facts(UserError, "reward mine", "option 'scale'", "the function f(completions, answer)"):
        open_rewards(["mine"], stage)
    assert "needs 'level'" in failure(with_function("def f(completions, level): ..."))


def test_a_process_that_is_killed_between_calls_is_said_so(with_function: WithFunction):
    stage = with_function("import os\ndef f(completions, **c):\n    return [os.getpid()] * len(completions)")
    with open_rewards(["mine"], stage) as rewards:
        table: RewardTable = rewards.score(PROMPTS, COMPLETIONS, {})
        os.kill(int(table.total[0]), signal.SIGKILL)
        with raises_facts(RunError, "reward mine", "process", "killed by SIGKILL", "MiB"):
            rewards.score(PROMPTS, COMPLETIONS, {})


def test_a_process_that_a_signal_ends_while_it_is_opened_is_a_fault_of_the_machine(with_function: WithFunction):
    stage = with_function("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\ndef f(completions, **c): ...")
    with raises_facts(RunError, "reward mine", "killed by SIGKILL", "MiB"):
        open_rewards(["mine"], stage)


def test_the_plugin_process_imports_no_torch(with_function: WithFunction, tmp_path: Path):
    stage = with_function("import sys\ndef f(completions, **c):\n    return [float('torch' in sys.modules)] * 3")
    assert score(stage) == [0.0, 0.0, 0.0]


ONE = "return [1.0] * len(completions)"
CLASS = (
    "made = 0\nclass Limit:\n    def __init__(self, length, scale=1.0):\n        global made\n        made += 1\n"
    "        self.length, self.scale, self.calls = length, scale, 0\n"
)


@pytest.mark.parametrize("word", ["def", "async def"])
def test_a_class_is_constructed_once_with_the_options_and_keeps_its_state(with_function: WithFunction, word: str):
    source = (
        f"{CLASS}    {word} __call__(self, completions, answer):\n        self.calls += 1\n"
        "        return [100 * made + 10 * self.calls + self.scale * min(len(c), self.length) for c in completions]\n"
    )
    stage = with_function(source, target="mine.py:Limit", options={"length": 4, "scale": 0.5})
    with open_rewards(["mine"], stage) as rewards:
        for call in (1, 2):  # lengths 3, 3 and 5
            expected = [100 + 10 * call + 1.5, 100 + 10 * call + 1.5, 100 + 10 * call + 2.0]
            assert rewards.score(PROMPTS, COMPLETIONS, {"answer": [""] * 3}).each["mine"] == expected


def test_what_an_async_reward_keeps_is_still_of_its_loop_at_the_next_call(with_function: WithFunction):
    source = (
        "import asyncio\nclass R:\n    loop = None\n    async def __call__(self, completions, **c):\n"
        "        here = asyncio.get_running_loop()\n        self.loop = self.loop or here\n"
        "        return [float(self.loop is here)] * len(completions)"
    )
    with open_rewards(["mine"], with_function(source, target="mine.py:R")) as rewards:
        for _ in range(2):
            assert rewards.score(PROMPTS, COMPLETIONS, {}).each["mine"] == [1.0] * 3


CALLABLE = f"    def __call__(self, completions, **c):\n        {ONE}\n"


@pytest.mark.parametrize(
    ("source", "options", "facts"),
    [
        (
            f"def f(prompts, completions, answer, length=100):\n    {ONE}",
            {"lenght": 3},
            [
                "option 'lenght'",
                "the function f(prompts, completions, answer, length=100)",
                'did you mean "length"',
            ],
        ),
        (
            f"def f(completions, length=100, **columns):\n    {ONE}",
            {"lenght": 3},
            ["option 'lenght'", 'did you mean "length"'],
        ),
        (f"def f(completions, **columns):\n    {ONE}", {"completions": 3}, ["option 'completions'", "the function f"]),
        (
            f"{CLASS.replace('Limit', 'f')}{CALLABLE}",
            {"lenght": 3},
            ["option 'lenght'", "the class f(length, scale=1.0)", 'did you mean "length"'],
        ),
        (
            f"{CLASS.replace('Limit', 'f')}{CALLABLE}",
            {"scale": 3},
            ["the class f(length, scale=1.0)", "option 'length'", "not set"],
        ),
        (f"class f:\n{CALLABLE}", {"length": 3}, ["option 'length'", "the class f()"]),
        (CLASS.replace("Limit", "f"), {"length": 3}, ["the class f(length, scale=1.0)", "no method __call__"]),
        ("class f:\n    def __call__(self, prompts): ...", {}, ["not completions"]),
        ("class f:\n    def __init__(self):\n        raise ValueError('no')", {}, ["raised ValueError: no at"]),
    ],
)
def test_options_are_held_against_the_signature_when_the_reward_is_opened(
    with_function: WithFunction, source: str, options: dict[str, Any], facts: list[str]
):
    with raises_facts(UserError, "reward mine (mine.py:f)", *facts) as caught:
        open_rewards(["mine"], with_function(source, options=options))
    assert "TypeError" not in str(caught.value)


def test_a_column_that_is_nearly_there_is_suggested(with_function: WithFunction):
    assert 'did you mean "answer"' in failure(with_function("def f(completions, anwser): ..."))


def package(site: Path, name: str, **offers: str) -> None:
    """Write the files of an installed package: metadata with entry points, and a module."""
    metadata = site / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{offer} = {value}" for offer, value in offers.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[gemsmith.rewards]", *lines]) + "\n")
    (site / f"{name.replace('-', '_')}.py").write_text(
        "def f(completions, **c):\n    return [len(c) for c in completions]"
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    package(tmp_path / "site", "short-rewards", brevity="short_rewards:f", broken="short_rewards")
    return tmp_path / "site"


def test_a_bare_name_is_an_installed_packages_entry_point(with_function: WithFunction, site: Path):
    assert score(with_function("", target="brevity")) == [3.0, 3.0, 5.0]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("brevty", 'of the group gemsmith.rewards (there are: brevity, broken), did you mean "brevity"?'),
        ("broken", 'its entry point is "short_rewards", expected package.module:function'),
    ],
)
def test_a_bare_name_that_cannot_be_used_is_told(with_function: WithFunction, site: Path, target: str, words: str):
    with pytest.raises(UserError) as caught:
        open_rewards(["mine"], with_function("", target=target))
    assert words in str(caught.value)


def test_two_packages_with_the_same_name_are_both_named(with_function: WithFunction, site: Path):
    package(site, "other-rewards", brevity="other_rewards:f")
    with pytest.raises(UserError) as caught:
        open_rewards(["mine"], with_function("", target="brevity"))
    assert_facts(caught.value, "other-rewards and short-rewards", "other_rewards:f")


@pytest.mark.parametrize(
    "grow",
    [
        "held = bytearray(400 << 20)",
        "import subprocess, sys\n"
        "    grown = 'import time; held = bytearray(400 << 20); time.sleep(60)'\n"
        "    subprocess.run([sys.executable, '-c', grown], env={}, start_new_session=True)",
    ],
)
def test_a_function_that_outgrows_its_memory_is_stopped_with_its_limit(with_function: WithFunction, grow: str):
    source = f"import time\ndef f(completions, **c):\n    {grow}\n    time.sleep(60)\n    {ONE}"
    start = time.monotonic()
    message = failure(with_function(source, memory=200))
    assert time.monotonic() - start < 50
    assert_facts(message, "`memory` of 200 MiB", "stopped", "raise the reward's `memory`")


def test_an_import_that_outgrows_the_memory_is_told_when_the_reward_is_opened(with_function: WithFunction):
    source = f"import time\nheld = bytearray(400 << 20)\ntime.sleep(60)\ndef f(completions, **c):\n    {ONE}"
    with raises_facts(UserError, "reward mine (mine.py:f)", "could not be loaded", "`memory` of 200 MiB"):
        open_rewards(["mine"], with_function(source, memory=200))


def test_reserved_memory_that_is_not_used_does_not_count(with_function: WithFunction):
    source = f"import mmap\nreserved = mmap.mmap(-1, 1 << 32)\ndef f(completions, **c):\n    {ONE}"
    assert score(with_function(source, memory=200)) == [1.0] * 3


def test_a_fork_that_comes_out_of_the_function_does_not_answer_as_well(with_function: WithFunction):
    source = "import os\ndef f(completions, **c):\n    return [float(os.fork() > 0)] * len(completions)"
    with open_rewards(["mine"], with_function(source)) as rewards:
        for _ in range(5):
            assert rewards.score(PROMPTS, COMPLETIONS, {}).each["mine"] == [1.0] * 3


def test_a_function_may_wait_for_all_processes_that_it_started(with_function: WithFunction):
    source = (
        "import os\ndef f(completions, **c):\n    if os.fork() == 0:\n        os._exit(0)\n    try:\n"
        f"        while True:\n            os.wait()\n    except ChildProcessError:\n        {ONE}"
    )
    assert score(with_function(source, time_limit=10.0)) == [1.0] * 3


def test_what_is_printed_before_a_hang_is_seen(with_function: WithFunction, capfd: pytest.CaptureFixture[str]):
    stage = with_function("def f(completions, **c):\n    print('so far')\n    while True: pass", time_limit=2.0)
    failure(stage)
    assert "so far" in capfd.readouterr().err


DETACHED = (  # an orphan without environment in a session of its own; its process id is the score
    "import os, subprocess\ndef f(completions, **c):\n"
    "    orphan = ['/bin/sh', '-c', 'sleep 300 >/dev/null & echo $!']\n"
    "    pid = subprocess.run(orphan, env={}, start_new_session=True, stdout=subprocess.PIPE).stdout\n"
    "    return [int(pid)] * len(completions)\n"
)


def ended(pid: int) -> bool:
    """Return True if the process ends within some seconds; a zombie has ended."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


def test_what_a_function_detached_ends_with_the_rewards(with_function: WithFunction):
    with open_rewards(["mine"], with_function(DETACHED)) as rewards:
        pid = int(rewards.score(["p"], ["c"], {}).total[0])
        assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00300\x00"
    assert not Path(f"/proc/{pid}").exists()  # waited for as well


def test_what_a_function_detached_ends_with_a_function_that_exits(with_function: WithFunction, tmp_path: Path):
    source = (
        f"{DETACHED.replace('def f', 'def g')}def f(completions, **c):\n"
        f"    open('{tmp_path}/pid', 'w').write(str(g(completions)[0]))\n    os._exit(7)"
    )
    assert "exited with code 7" in failure(with_function(source))
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


def test_what_a_function_started_ends_with_a_run_that_is_killed(with_function: WithFunction):
    stage = with_function(DETACHED)
    run = (
        "import pathlib, sys, time\nfrom gemsmith.contracts.stage import Stage\n"
        "from gemsmith.rl.rewards.config import PythonReward\n"
        "from gemsmith.rl.rewards.compose import open_rewards\n"
        "reward = PythonReward(kind='python', target='mine.py:f')\n"
        "stage = Stage('s', pathlib.Path('s'), 0, pathlib.Path(sys.argv[1]), rewards={'mine': reward})\n"
        "print(int(open_rewards(['mine'], stage).score(['p'], ['c'], {}).total[0]), flush=True); time.sleep(300)"
    )
    process = subprocess.Popen([sys.executable, "-c", run, str(stage.root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert "HOME=" not in Path(f"/proc/{pid}/environ").read_text()
    process.kill()
    process.wait(10)
    assert ended(pid)
