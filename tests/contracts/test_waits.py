import io
import threading
import time

import pytest
from rich.console import Console

from gemsmith.contracts.waits import waiting
from gemsmith.recipes.run.view import LineView, LiveView


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gemsmith.contracts.waits.FIRST_WORD", 0.1)


def until(holds, seconds: float = 10.0) -> None:
    """Wait until it holds, for so many seconds at most."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)


def test_words_come_ever_more_seldom_and_end_with_the_wait():
    said: list[str] = []
    with waiting(said.append, "the tide to turn", limit=600):
        until(lambda: len(said) == 3)
    assert said == [f"waiting for the tide to turn: {after} s of at most 600 s" for after in (0.1, 0.2, 0.4)]
    assert not any("tide" in thread.name for thread in threading.enumerate())
    time.sleep(0.6)
    assert len(said) == 3


def test_a_short_wait_is_silent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gemsmith.contracts.waits.FIRST_WORD", 0.5)
    said: list[str] = []
    for _ in range(100):
        with waiting(said.append, "a moment"):
            time.sleep(0.01)
    assert said == []


def test_words_stop_at_the_limit_and_where_there_is_none_no_limit_is_said():
    limited: list[str] = []
    endless: list[str] = []
    with (
        waiting(limited.append, "a child", limit=0.2),
        waiting(endless.append, "the end", state=lambda: "2 of 3 after"),
    ):
        until(lambda: len(endless) == 3)
    assert limited == ["waiting for a child: 0.1 s of at most 0.2 s"]
    assert endless == [f"waiting for the end: 2 of 3 after {after} s" for after in (0.1, 0.2, 0.4)]


def test_what_ends_a_wait_passes_through_and_nothing_is_said_after_it():
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), waiting(said.append, "a key"):
        until(lambda: said)
        raise KeyboardInterrupt
    time.sleep(0.2)
    assert said == ["waiting for a key: 0.1 s"]


def test_a_line_that_is_being_written_is_whole_before_what_follows_the_wait():
    begun = threading.Event()
    order: list[str] = []

    def slowly(line: str) -> None:
        begun.set()
        time.sleep(0.3)
        order.append(line)

    with waiting(slowly, "a slow screen"):
        begun.wait(10)
    order.append("after")
    assert order == ["waiting for a slow screen: 0.1 s", "after"]


def test_a_screen_that_is_gone_ends_the_words_and_not_the_wait():
    screen = io.StringIO()
    screen.close()
    tried: list[str] = []

    def gone(line: str) -> None:
        tried.append(line)
        print(line, file=screen)

    with waiting(gone, "a reader"):
        time.sleep(0.5)
    assert tried == ["waiting for a reader: 0.1 s"]


def live(file: io.StringIO) -> LiveView:
    return LiveView(Console(file=file, force_terminal=True, width=100))


@pytest.mark.parametrize("view_of", [LineView, live])
def test_several_waits_speak_whole_lines_on_the_views_of_a_run(view_of):
    file = io.StringIO()
    view = view_of(file)
    view.open([("rl", "reinforce", "to run", 0.0)])
    view.show_status("rl", "running", 0.0)

    said: list[str] = []

    def say(line: str) -> None:
        view.say(line)
        said.append(line)

    def wait(number: int) -> None:
        with waiting(say, f"contender {number}", limit=60):
            until(lambda: sum(f"contender {number}:" in line for line in said) == 3)

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for step in range(60):
        view.progress(step, 60, "step", {"loss": 1.0})
        time.sleep(0.01)
    for thread in threads:
        thread.join(10)
    view.close()
    text = file.getvalue()
    for number in range(8):
        for after in (0.1, 0.2, 0.4):
            assert text.count(f"waiting for contender {number}: {after} s of at most 60 s\n") == 1
