"""docs/guides/custom-rewards.md is what happens: its files are written and its commands run in order, and say what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = re.compile(r"\d+\.\d+ s")


def commands(folder: Path) -> dict[str, str]:
    """An environment in which the page's commands are this interpreter's, and installing stays in the folder."""
    site, path = folder / "site", folder / "bin"
    path.mkdir()
    offline = f'--no-index --no-deps --no-build-isolation --target "{site}"'
    for name, command in {"gemsmith": '-m gemsmith "$@"', "pip": f'-m pip "$@" {offline}'}.items():
        (path / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {command}\n')
        (path / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(site),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def said(command: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, cwd=folder, env=environment, timeout=120, check=False
    )
    return (done.stderr + done.stdout).replace(f"{folder}/", "").strip()


def without_seconds(text: str) -> str:
    return SECONDS.sub("0 s", text.strip())


def test_the_page_says_what_happens(tmp_path: Path):
    folder = tmp_path / "page"
    folder.mkdir()
    environment, ran = commands(tmp_path), 0
    for language, text in BLOCK.findall((ROOT / "docs" / "guides" / "custom-rewards.md").read_text()):
        if language == "console":
            for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
                found = said(command, folder, environment)
                assert without_seconds(found) == without_seconds(expected), command
                ran += 1
            continue
        named = re.match(r"# (\S+)\n", text)
        file = folder / (named[1] if named else {"json": "rows.jsonl"}[language])
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert ran == 13
