"""Every attack against every backend with namespaces, with a look at the host and an honest job after each.

`unshare` makes the same walls by other means: it gets all escapes, and every third of the other attacks.
"""

import os
import secrets
from collections.abc import Iterator

import pytest

from gemsmith.sandboxes.code.sandbox import Sandbox
from gemsmith.sandboxes.code.selection import open_sandbox, probe
from tests.sandboxes.code.attacks import ATTACKS, ESCAPES
from tests.sandboxes.code.attacks.apart import trials
from tests.sandboxes.code.attacks.attack import ALL_MODES, Attack
from tests.sandboxes.code.attacks.host import Host, descendants
from tests.sandboxes.code.attacks.trial import attempt, chosen, healthy

ALL = chosen([], list(ALL_MODES))
PART = [run for number, run in enumerate(ALL) if run[0] in ESCAPES or number % 3 == 0]
RUNS = [("bubblewrap", *run) for run in ALL] + [("unshare", *run) for run in PART]
# For a process that was not started as root: one of each kind.
ORDINARY = [
    "1 fork bomb",
    "4 one bytearray after the other",
    "15 endless loop",
    "29 gigabytes of output",
    "47 reads address 0",
    "52 files of the host",
    "53 what / holds",
    "56 a listener on the host's loopback",
    "58 other families of sockets",
    "60 kills others",
    "63 a user namespace in the user namespace",
    "64 mounts",
    "67 rare system calls",
    "70 other programs",
    "76 sys.exit(0) when imported",
    "80 equal to everything",
    "86 looks through the memory",
    "89 writes verdicts into every descriptor",
    "111 honest",
]


@pytest.fixture(scope="module")
def ground(request: pytest.FixtureRequest) -> Iterator[tuple[Sandbox, Host]]:
    found = probe(request.param)
    if not found.works:
        pytest.skip(f"{request.param}: {found.reason}")
    with pytest.MonkeyPatch.context() as patch, Host() as host:
        patch.setenv("GEMSMITH_TEST_SECRET", f"hidden-{secrets.token_hex(16)}")
        with open_sandbox(request.param, workers=1) as sandbox:
            healthy(sandbox)
            host.settle()
            yield sandbox, host


@pytest.mark.parametrize(
    ("ground", "attack", "mode"),
    RUNS,
    indirect=["ground"],
    ids=[f"{backend}-{attack.name}-{mode}" for backend, attack, mode in RUNS],
    scope="module",
)
def test_an_attack_earns_nothing_and_leaves_nothing(ground: tuple[Sandbox, Host], attack: Attack, mode: str) -> None:
    trial = attempt(ground[0], attack, mode, ground[1])
    assert trial.problems == [], f"{trial.problems}\nin {trial.seconds:.2f} s it showed:\n{trial.shown[-3000:]}"


@pytest.mark.parametrize("backend", ["bubblewrap", "unshare"])
def test_nothing_is_left_when_a_sandbox_closes(backend: str) -> None:
    found = probe(backend)
    if not found.works:
        pytest.skip(f"{backend}: {found.reason}")
    before = descendants()
    with open_sandbox(backend, workers=2) as sandbox:
        healthy(sandbox)
        assert descendants() - before
    assert descendants() - before == set()


@pytest.mark.skipif(os.getuid() != 0, reason="started as an ordinary user: all tests here are this one")
def test_the_walls_stand_for_an_ordinary_user() -> None:
    found, errors = trials("auto", "calls,stdio", ORDINARY, [])
    assert [trial for trial in found if trial["problems"]] == [], errors
    assert {trial["name"] for trial in found} == set(ORDINARY), errors


def test_each_attack_has_a_name_of_its_own() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(names) == len(set(names))
