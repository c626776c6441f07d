"""One self-contained HTML page: sections of texts, tables and charts in, a file out."""

import base64
import gzip
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Chart:
    """A chart and what it shows.

    Attributes:
        figure: Plotly's ``data`` and ``layout``.
        caption: What it shows, with the sample count.
        title: Its heading, where several stand side by side.
    """

    figure: Mapping[str, Any]
    caption: str
    title: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of plain values; columns of numbers are aligned to the right.

    Attributes:
        caption: What it shows.
        columns: The header, with units.
        rows: The cells: text, numbers, or None for nothing.
        long: Whether it is folded away, with a box that filters its rows.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    long: bool = False

    def numbers(self) -> list[bool]:
        """Return which columns hold numbers only."""
        columns = [[row[index] for row in self.rows if row[index] is not None] for index in range(len(self.columns))]
        return [bool(values) and all(isinstance(value, int | float) for value in values) for values in columns]


@dataclass(frozen=True)
class Facts:
    """A few key figures, each under its name."""

    values: Mapping[str, str]


Block = str | Chart | Table | Facts | Sequence[Chart]
"""What a section is made of; several charts stand side by side, a text is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A titled run of blocks.

    Attributes:
        title: Its heading.
        blocks: What it shows, in order.
    """

    title: str
    blocks: Sequence[Block]


def number(value: Any) -> str:
    """Return a value as a person reads it: three significant digits, nothing for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.3g}"


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return the page as HTML that needs no network and no other file.

    All texts are escaped by the template. The chart library travels compressed, and a content security policy
    keeps the page from loading anything at all.

    Args:
        title: The page's title.
        subtitle: Where its content comes from.
        sections: Its content; empty ones (without blocks) are left out.
    """
    shown = [section for section in sections if section.blocks]
    has_charts = any(
        isinstance(block, Chart) or (isinstance(block, Sequence) and not isinstance(block, str))
        for section in shown
        for block in section.blocks
    )
    return str(
        _template().render(
            title=title,
            subtitle=subtitle,
            written=time.strftime("%Y-%m-%d %H:%M %Z"),
            sections=shown,
            style=_asset("page.css"),
            program=_asset("page.js"),
            library=_library() if has_charts else "",
        )
    )


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = number
    environment.filters["script"] = _script
    environment.tests["chart"] = lambda block: isinstance(block, Chart)
    environment.tests["table"] = lambda block: isinstance(block, Table)
    environment.tests["facts"] = lambda block: isinstance(block, Facts)
    return environment.get_template("page.html")


@cache
def _asset(name: str) -> Any:
    """Return a file of pepper's own, marked as safe to stand in the page as it is."""
    from markupsafe import Markup

    return Markup((_FOLDER / name).read_text())


def chart_library() -> str:
    """Return plotly.js, which draws the charts."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@cache
def _library() -> str:
    """Return it compressed: a third of its size, and any browser since 2023 unpacks it."""
    return base64.b64encode(gzip.compress(chart_library().encode(), 6, mtime=0)).decode()


def _script(figure: Mapping[str, Any]) -> Any:
    """Return a figure as JSON that no text inside can end or turn into markup."""
    from markupsafe import Markup

    text = json.dumps(figure, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
