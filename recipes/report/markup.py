"""HTML and SVG elements as typed values: all text is escaped, except `Markup`."""

import html
import math
from collections.abc import Iterable, Sequence

from gemsmith.contracts.escaping import visible

VOID = {"meta", "br", "hr"}


class Markup(str):
    """Text that is already HTML. Every other string is escaped when it is put into an element."""

    __slots__ = ()


Content = str | Iterable["Content"] | None


def render(content: Content) -> Markup:
    """Escape text, keep markup, and join nested content; None gives an empty string."""
    if content is None:
        return Markup()
    if isinstance(content, Markup):
        return content
    if isinstance(content, str):
        return Markup(html.escape(visible(content)))
    return Markup("".join(render(part) for part in content))


def element(tag: str, *content: Content, **attributes: str | float | None) -> Markup:
    """Return an HTML element with its content.

    In attribute names, `_` becomes `-` and a trailing `_` is removed; an attribute of None is left out.
    """
    parts = [tag]
    for name, value in attributes.items():
        if value is not None:
            shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
            parts.append(f'{name.rstrip("_").replace("_", "-")}="{html.escape(visible(shown))}"')
    opening = f"<{' '.join(parts)}>"
    return Markup(opening if tag in VOID else f"{opening}{render(content)}</{tag}>")


def short(value: float | None, digits: int = 3) -> str:
    """Format a number with three significant digits, no exponent between 0.001 and a million; "n/a" if not finite."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (digits + 3) or abs(value) < 1e-3:
        return f"{value:.{digits - 1}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(seconds: float) -> str:
    """Format a number of seconds: 8.0 s, 2 min 05 s, 1 h 20 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def section(title: str, *content: Content, note: Content = None) -> Markup:
    """Return a section of the page with a heading and an optional explanatory note below it."""
    lead = element("p", note, class_="note") if note else None
    return element("section", element("h2", title), lead, content)


def table(head: Sequence[str], rows: Sequence[Sequence[Content]]) -> Markup:
    """Return a table that scrolls sideways if the page is too narrow for it."""
    body = [element("tr", [element("td", cell) for cell in row]) for row in rows]
    return element(
        "div",
        element("table", element("thead", element("tr", [element("th", h) for h in head])), element("tbody", body)),
        class_="wide",
    )
