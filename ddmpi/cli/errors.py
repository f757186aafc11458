"""``ddmpi errors``: how many rows failed, by kind, code or server, each with an example."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console as RichConsole
from rich.table import Table

from ddmpi.errors import EXIT_DONE
from ddmpi.io.folder.layout import Layout
from ddmpi.io.results.dataset import OUTCOMES, current_outcomes
from ddmpi.report.formats import counted

MOST_LINES: Final = 40
"""Shown to people; --csv has all."""
_COLUMNS: Final = {"kind": "error_kind", "code": "error_code"}
_READ: Final = ("error_kind", "error_code", "identifier", "error_msg")
_HOST: Final = r"^\s*\w+:/*(?:[^/?#@]*@)?(?P<host>[^/?#\s]+)"


def show_errors(layout: Layout, by: str, *, as_csv: bool, out: RichConsole) -> int:
    """Print how many errors there are of each kind, code or server; returns the exit code.

    Raises:
        StorageError: a part cannot be read.
    """
    groups = sorted(_groups(layout, by).items(), key=lambda item: (-item[1][0], item[0]))
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([by, "errors", "example_url", "example_message"])
        writer.writerows([name, *found] for name, found in groups)
        return EXIT_DONE
    grid = Table(by, "errors", "an example", box=None, pad_edge=False)
    for name, (count, url, message) in groups[:MOST_LINES]:
        grid.add_row(name, f"{count:,}", f"{url}\n{message}")
    if groups:
        out.print(grid, markup=False)
    if len(groups) > MOST_LINES:
        out.print(f"and {counted(len(groups) - MOST_LINES, 'more line')}; --csv has all")
    out.print(counted(sum(count for _, (count, _, _) in groups), "error"))
    return EXIT_DONE


def _groups(layout: Layout, by: str) -> dict[str, tuple[int, str, str]]:
    """Return for each group the number of errors, and the URL and message of its first one."""
    found: dict[str, tuple[int, str, str]] = {}
    for rows in _errors(layout):
        names: Any = _hosts(rows.column("identifier")) if by == "server" else rows.column(_COLUMNS[by])
        table = pa.table({"group": names.cast(pa.string()).fill_null("-"), "place": pa.array(np.arange(rows.num_rows))})
        counts = table.group_by("group").aggregate([("place", "count"), ("place", "min")])
        columns = (counts.column(name).to_pylist() for name in ("group", "place_count", "place_min"))
        for group, count, place in zip(*columns, strict=True):
            if group in found:
                before, *example = found[group]
                found[group] = (before + count, *example)
            else:
                url, message = (str(rows.column(name)[place].as_py() or "") for name in ("identifier", "error_msg"))
                found[group] = (count, url, message)
    return found


def _errors(layout: Layout) -> Iterator[pa.RecordBatch]:
    is_error = pc.field("outcome") == OUTCOMES["errors"]
    for rows in current_outcomes(layout).to_batches(columns=list(_READ), filter=is_error):
        if rows.num_rows:
            yield rows


def _hosts(urls: Any) -> Any:
    """Return the servers of URLs as they are written, null for what is no URL."""
    return pc.utf8_lower(pc.struct_field(pc.extract_regex(urls, pattern=_HOST), "host"))
