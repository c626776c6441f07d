"""Results as aligned tables, for a terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pepper.console.output import add_results

STYLES = {"VALID": "green", "INVALID": "yellow", "FAILED": "red", "KILLED": "red"}
STYLES |= {"OK": "green", "WARN": "yellow", "FAIL": "red"}


def results_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return one line a cell: what was measured, its median with the 95 % interval, and the verdict.

    Args:
        rows: Results by column name, as in a sweep's ``results.csv``.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "device", "load"):
        table.add_column(name)
    for name in ("threads", "median ms", "95 % interval", "p90 ms", "inferences/s", "samples"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for row in rows:
        verdict = row["verdict"] or row["status"]
        measured = row.get("latency_p50_ms") is not None
        table.add_row(
            str(row["model"]),
            str(row["device"]),
            str(row["load"]),
            str(row["threads"]),
            _number(row.get("latency_p50_ms")),
            f"{figure(row['latency_p50_low_ms'])} .. {figure(row['latency_p50_high_ms'])}" if measured else "",
            _number(row.get("latency_p90_ms")),
            _number(row.get("throughput_per_s")),
            f"{row['samples']:.0f}" if measured else "",
            Text.assemble((verdict, STYLES[verdict]), " (reused)" if row["reused"] else ""),
        )
    return table


def _number(value: float | None) -> str:
    return "" if value is None else figure(value)


def figure(value: float) -> str:
    """Write a number with three significant digits and without an exponent, from microseconds to minutes in ms."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def cuts_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return one line a cut: where it is, what crosses and how many bytes.

    Args:
        rows: ``operators_before``, ``in_order`` and ``bytes`` (int or None) of each cut; ``tensors`` (names),
            ``dtypes`` and ``shapes`` of what crosses there, None where unknown.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("operators before", justify="right")
    for name in ("crossing", "dtype", "shape"):
        table.add_column(name)
    table.add_column("bytes", justify="right")
    for row in rows:
        shapes = ["?" if shape is None else "x".join(map(str, shape)) for shape in row["shapes"]]
        table.add_row(
            f"{row['operators_before']}{'' if row['in_order'] else ' (branch)'}",
            "\n".join(row["tensors"]),
            "\n".join(dtype or "?" for dtype in row["dtypes"]),
            "\n".join(shapes),
            "?" if row["bytes"] is None else f"{row['bytes']:,}",
        )
    return table


def parts_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return one line a part: its work and what it is fed.

    Args:
        rows: ``file``, ``operators``, ``macs``, ``share`` (of all work), ``inputs`` (names) and ``input_bytes``.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("part")
    for name in ("operators", "MACs", "share"):
        table.add_column(name, justify="right")
    table.add_column("reads")
    for row in rows:
        reads = [
            f"{name} ({'?' if size is None else f'{size:,}'} bytes)"
            for name, size in zip(row["inputs"], row["input_bytes"], strict=True)
        ]
        share = f"{row['share']:.0%}" if row["share"] >= 0.005 else "<1%"
        table.add_row(row["file"], str(row["operators"]), f"{row['macs']:.3g}", share, "\n".join(reads))
    return table


def finding_line(level: str, what: str, found: str, fix: str) -> Text:
    """Return a finding as a line: ``OK``, ``WARN`` or ``FAIL``, what was looked at, what was found, and the fix."""
    line = Text.assemble((f"{level:<4}", STYLES[level]), f"  {what:<18}  {found}")
    return line.append_text(Text.assemble("; ", ("fix:", "bold"), f" {fix}")) if fix else line


def comparisons_table(rows: Sequence[Mapping[str, Any]], confidence: float) -> Table:
    """Return one line a pair of cells: both medians, the change with its interval, and the verdict.

    Args:
        rows: ``name``, ``baseline_ms``, ``candidate_ms``, ``change_percent``, ``low_percent``, ``high_percent``
            and ``verdict`` (``slower``, ``faster`` or ``not slower``).
        confidence: Of all intervals together.
    """
    table = plain_table(["cell"], ["baseline ms", "candidate ms", "change %", f"{confidence:.4g} interval"])
    table.add_column("verdict")
    colours = {"slower": "red", "faster": "green", "not slower": "none"}
    for row in rows:
        table.add_row(
            row["name"],
            figure(row["baseline_ms"]),
            figure(row["candidate_ms"]),
            f"{row['change_percent']:+.1f}",
            f"{row['low_percent']:+.1f} .. {row['high_percent']:+.1f}",
            Text(row["verdict"], colours[row["verdict"]]),
        )
    return table


def plain_table(texts: Sequence[str], numbers: Sequence[str]) -> Table:
    """Return an empty table with these columns, those of numbers aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in texts:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise


def show(item: Table | Text | str, **results: Any) -> None:
    """Print a table or a line; colours only on a terminal, lines never folded when piped.

    Args:
        item: What people read.
        **results: The values behind it, for ``output=json``: numbers in full, under names that carry the unit.
    """
    add_results(**results)
    # Names of models, devices and files stand in what is shown: nothing of it is markup.
    console = _Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console = _Console(markup=False, highlight=False, emoji=False, width=200)
    console.print(item, soft_wrap=not isinstance(item, Table))
