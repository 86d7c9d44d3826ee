"""Standard output that is full or closed is named; a full disk of a log is not taken for it."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from pathlib import Path
from gemsmith.recipes.run.console import captured, own_output
from gemsmith.recipes.run.output import OutputLostError, guarded_output
{body}
print("ended", file=sys.stderr)
"""
CAPTURED = """
with guarded_output():
    try:
        with captured(Path("/dev/full")):
            print("into the log")
    except Exception as error:
        print(type(error).__name__, error.errno)
    print("after")
"""
LOST = """
for write in (lambda: print("x"), lambda: file.write("x\\n")):
    try:
        with guarded_output(), own_output() as file:
            write()
            write()
    except OutputLostError as error:
        print(error, file=sys.stderr)
"""
OPENED = """
with guarded_output():
    with open(sys.argv[1], "w") as file:
        print("not for the file")
        print(file.fileno() > 2, file=sys.stderr)
"""


def ended(body: str, shell: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'"$0" -c "$@" {shell}', sys.executable, PROGRAM.replace("{body}", body), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_log_that_is_full_is_no_fault_of_standard_output():
    done = ended(CAPTURED, "")
    assert (done.stdout, done.stderr) == ("OSError 28\nafter\n", "ended\n")


def test_a_full_output_is_told_once_and_the_rest_is_discarded():
    lines = ended(LOST, "> /dev/full").stderr.splitlines()
    assert len(lines) == 3 and lines[2] == "ended"
    assert all("standard output could not be written: No space left" in line for line in lines[:2])


@pytest.mark.parametrize("shell", [">&-", "<&- >&-"])
def test_a_closed_output_does_not_lend_its_number_to_the_next_file(tmp_path, shell: str):
    done = ended(OPENED, shell, str(tmp_path / "file"))
    assert done.stderr == "True\nended\n" and (tmp_path / "file").read_text() == ""
