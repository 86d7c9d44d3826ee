"""Trial of a model folder's chat template in a process with limits, before it renders anything in this one.

The author of the folder wrote the template, which is a program. transformers renders it in jinja2's sandbox, which
refuses access to files and attributes, but not endless loops or a string of ten gigabytes.
"""

import json
import resource
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from gemsmith.contracts.errors import UserError
from gemsmith.policy.text.chat import CHAT_TEMPLATE

SECONDS = 5
"""Processor time of the trial; a real template takes a few milliseconds beside the start of Python."""
MEMORY = 1 << 30
"""Address space of the trial, in bytes."""
LONGEST = 100_000
"""Characters of a template, and of what it may make of the trial's conversation."""

_CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "And 3 + 3?"},
]
_PROGRAM = """
import json, sys
import jinja2.ext, jinja2.sandbox

class Generation(jinja2.ext.Extension):
    tags = {"generation"}
    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)

def fail(message):
    raise jinja2.exceptions.TemplateError(message)

given = json.load(sys.stdin)
environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
)
environment.filters["tojson"] = lambda value, **_: json.dumps(value)
environment.globals.update(raise_exception=fail, strftime_now=lambda form: "2026-01-01")
template = environment.from_string(given["template"])
for messages in (given["messages"], given["messages"][1:]):
    length = 0
    try:
        for part in template.generate(
            messages=messages, add_generation_prompt=True, bos_token="<bos>", eos_token="<eos>", tools=None
        ):
            length += len(part)
            if length > given["longest"]:
                sys.exit("it makes more than %d characters of four messages" % given["longest"])
    except jinja2.exceptions.TemplateError:
        pass  # what the template itself refuses is said where it is used
"""


def check_template(template: str, source: Path | str) -> None:
    """Reject a chat template that hangs, or that needs too much memory or text, for a conversation of four messages.

    Gemma's own template, as this project writes it, is not tried.

    Args:
        template: the template.
        source: the folder or file that it comes from, for the message.

    Raises:
        UserError: the trial exceeded a limit.
    """
    if template == CHAT_TEMPLATE:
        return
    fault = _fault(template)
    if fault is not None:
        raise UserError(
            f"the chat template of {source} {fault}: take the template of a released Gemma 3, or remove it and use "
            "that one"
        )


@lru_cache(maxsize=32)
def _fault(template: str) -> str | None:
    """Return what is wrong with a template, as the rest of a sentence; None if the trial went well."""
    if len(template) > LONGEST:
        return f"has {len(template):,} characters, expected at most {LONGEST:,}"
    given = json.dumps({"template": template, "messages": _CONVERSATION, "longest": LONGEST})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _PROGRAM],
            input=given, capture_output=True, text=True, timeout=4 * SECONDS, check=False, preexec_fn=_limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"did not render four messages within {4 * SECONDS} s"
    if done.returncode < 0:
        return f"did not render four messages within {SECONDS} s of processor time"
    if done.returncode and "MemoryError" in done.stderr:
        return f"needs more than {MEMORY >> 20:,} MiB for four messages"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return f"does not render four messages ({last[:200]})"
    return None


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
