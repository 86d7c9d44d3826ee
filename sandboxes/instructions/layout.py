"""Instructions of the groups detectable_format and detectable_content: lists, sections, titles, JSON, placeholders.

Long inputs are searched line by line or with patterns that never backtrack, so that time is proportional to the length
of the text.
"""

import json
import re

from gemsmith.sandboxes.instructions.fields import phrase, whole_number
from gemsmith.sandboxes.instructions.kind import Kind

_ITALIC = re.compile(r"\*([^\n*]*)\*")
_BOLD = re.compile(r"\*\*([^\n*]*)\*\*")
_FENCE = re.compile(r"```(?:json)?", re.IGNORECASE)
_POSTSCRIPTS = {"P.S.": re.compile(r"p\.\s?s\."), "P.P.S": re.compile(r"p\.\s?p\.\s?s")}
_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def number_bullet_lists(text: str, num_bullets: int) -> bool:
    """Check for exactly `num_bullets` lines that start with * or -; ** does not start one."""
    return sum(_is_bullet(line.lstrip()) for line in text.split("\n")) == num_bullets


def number_highlighted_sections(text: str, num_highlights: int) -> bool:
    """Check for at least `num_highlights` parts in *asterisks* or **two asterisks**, each within a line."""
    marked = _ITALIC.findall(text) + _BOLD.findall(text)
    return sum(bool(part.strip()) for part in marked) >= num_highlights


def multiple_sections(text: str, section_spliter: str, num_sections: int) -> bool:
    """Check for at least `num_sections` headings such as "Section 1". The field is spelt as in IFEval."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)) >= num_sections


def json_format(text: str) -> bool:
    """Check that the text is one JSON value, possibly in a Markdown fence; NaN and nesting of about 1,000 levels
    fail.
    """
    body = text.strip()
    if opening := _FENCE.match(body):
        body = body[opening.end() :]
    try:
        json.loads(body.removesuffix("```"), parse_int=str, parse_float=str, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    """Check for a title in <<double angular brackets>>, on one line."""
    return any(_title(line) for line in text.split("\n"))


def constrained_response(text: str) -> bool:
    """Check for one of the three sentences "My answer is yes.", "... no." or "... maybe."."""
    return any(option in text for option in _CONSTRAINED)


def number_placeholders(text: str, num_placeholders: int) -> bool:
    """Check for at least `num_placeholders` placeholders such as [address], each within a line."""
    return sum(_placeholders(line) for line in text.split("\n")) >= num_placeholders


def postscript(text: str, postscript_marker: str) -> bool:
    """Check for the marker anywhere; case is ignored, and in P.S. and P.P.S a blank may follow each full stop."""
    lowered = text.lower()
    pattern = _POSTSCRIPTS.get(postscript_marker)
    return pattern.search(lowered) is not None if pattern else postscript_marker.lower() in lowered


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _is_bullet(line: str) -> bool:
    return line.startswith("-") or (line.startswith("*") and line[1:2] not in ("", "*"))


def _title(line: str) -> bool:
    start, end = line.find("<<"), line.rfind(">>")
    return 0 <= start < end and bool(line[start:end].strip("<>").strip())


def _placeholders(line: str) -> int:
    count, end = 0, -1
    while (start := line.find("[", end + 1)) >= 0 and (end := line.find("]", start)) >= 0:
        count += 1
    return count


KINDS = (
    Kind("detectable_format:number_bullet_lists", number_bullet_lists, {"num_bullets": whole_number()}),
    Kind(
        "detectable_format:number_highlighted_sections",
        number_highlighted_sections,
        {"num_highlights": whole_number()},
    ),
    Kind(
        "detectable_format:multiple_sections",
        multiple_sections,
        {"section_spliter": phrase(), "num_sections": whole_number()},
    ),
    Kind("detectable_format:json_format", json_format),
    Kind("detectable_format:title", title),
    Kind("detectable_format:constrained_response", constrained_response),
    Kind("detectable_content:number_placeholders", number_placeholders, {"num_placeholders": whole_number()}),
    Kind("detectable_content:postscript", postscript, {"postscript_marker": phrase()}),
)
