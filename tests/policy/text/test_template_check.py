"""Chat templates of model folders are tried within limits before they render anything."""

import time
from pathlib import Path

import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.text.chat import CHAT_TEMPLATE
from gemsmith.policy.text.template_check import check_template
from tests.messages import raises_facts

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}"
LOOPS = f"{LOOP}{{% for c in range(99999) %}}{'{% endfor %}' * 3}"


@pytest.mark.parametrize(
    ("template", "facts"),
    [
        (LOOPS, ["5 s", "processor time"]),
        ("{{ 'a' * 10**10 }}", ["1,024 MiB"]),
        ("{% for a in range(99999) %}{{ 'ab' }}{% endfor %}", ["100000 characters"]),
        ("{% if", ["does not render"]),
        ("x" * 200_000, ["200,000 characters", "100,000"]),
    ],
)
def test_a_template_that_asks_for_too_much_is_refused_with_its_source(template: str, facts: list[str]) -> None:
    begun = time.monotonic()
    with raises_facts(UserError, "chat template of somewhere", *facts):
        check_template(template, "somewhere")
    assert time.monotonic() - begun < 25


def test_ordinary_templates_are_accepted() -> None:
    check_template(CHAT_TEMPLATE, "somewhere")
    check_template(CHAT_TEMPLATE + "{# another version #}", "somewhere")
    check_template("{{ bos_token }}{% for m in messages %}{{ m['content'] | trim }}{% endfor %}", "somewhere")
    check_template("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}ok", "somewhere")


def test_a_model_folder_with_a_template_that_hangs_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.tokenizer.chat_template = LOOPS
    save_policy(policy, tmp_path / "base")
    with raises_facts(UserError, "chat template", tmp_path / "base"):
        load_policy(PolicyConfig(model=str(tmp_path / "base")))
