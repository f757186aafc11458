"""``--check``: what the input holds, and whether a run would take it. Nothing is asked, and nothing is written.

The page is also the first part of what ``--plan`` says of an input that is new to it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from rich.console import Console as RichConsole

from ddmpi.config.config import Config
from ddmpi.core.partition.server_patterns import matching_servers
from ddmpi.errors import EXIT_DONE, InputError
from ddmpi.io.folder.checkpoint import load
from ddmpi.io.folder.layout import Layout
from ddmpi.io.input.table import InputTable
from ddmpi.io.urls.survey import FileAccount, Refusals, Survey, is_mostly_refused, refused_text, survey
from ddmpi.io.urls.writer import largest_servers
from ddmpi.report.formats import counted
from ddmpi.roles.coordinator.initialization import (
    InitCallbacks,
    answered,
    check_contact,
    check_same,
    input_of,
    query_of,
)

MOST_FILES = 20
"""Files of which the account is shown; all count in the sums."""


def show_check(config: Config, layout: Layout, out: RichConsole) -> int:
    """Say what the input holds; returns the exit code.

    Raises:
        SetupError: a run would not begin: the input cannot be read, more than half of its rows are refused, or the
            output folder was begun with another config.
    """
    check_output(config, layout)
    with tempfile.TemporaryDirectory(prefix="ddmpi-") as folder:
        show_account(config, _path(config, layout, Path(folder), out), out)
    return EXIT_DONE


def _path(config: Config, layout: Layout, folder: Path, out: RichConsole) -> str:
    """Return where the rows are; the answer of a query is that of the output folder, or is made in ``folder``."""
    if config.path_to_input is None and query_of(config).is_answered_by(layout.query):
        return str(layout.query)
    return answered(config, folder / layout.query.name, folder, callbacks_of(out))


def callbacks_of(out: RichConsole) -> InitCallbacks:
    """Return callbacks for a process of its own: they tell of a query alone."""
    return InitCallbacks(
        lambda _: None, lambda _: None, lambda: False, on_query=lambda line: out.print(line, markup=False)
    )


def check_output(config: Config, layout: Layout) -> None:
    """Raise OutputError if the output folder was begun with another config."""
    checkpoint, _ = load(layout)
    if checkpoint is not None:
        check_same(checkpoint, config)


def show_account(config: Config, path: str, out: RichConsole) -> None:
    """Print the account of the input, whose rows are at ``path``. Raises InputError: it cannot be read, or more than
    half of it is refused; ConfigError: ``check_contact``."""
    with out.status("reading the input") as status:
        table = input_of(config, path)
        found = survey(
            table,
            config.initialization.memory_bytes,
            on_rows=lambda rows: status.update(f"reading the input: {rows:,} rows"),
        )
    for line in account(table, found):
        out.print(line, markup=False)
    if is_mostly_refused(found.rows, found.refused) and not config.allow_refused:
        raise InputError(refused_text(table.name, found.rows, found.refusals, with_reasons=False))
    names = found.servers.names.slice(1)
    may_refuse = names.filter(pa.array(matching_servers(names, config.rules.contact_patterns)))
    check_contact(config, [str(name) for name in may_refuse])


# ---- the page


def account(table: InputTable, found: Survey) -> Iterator[str]:
    """Yield the lines of the page: how files are read, a paragraph for each of the first ones, and one for all."""
    yield from table.descriptions()[:MOST_FILES]
    if table.passed_over:
        yield f"Warning: {table.passed_over}"
    columns: list[tuple[str, str, str]] = []
    for file in found.files[:MOST_FILES]:
        theirs = table.columns_of(file.path)
        yield from _file_lines(file, theirs if theirs != columns else None)
        columns = theirs
    if len(found.files) > MOST_FILES:
        yield f"and {len(found.files) - MOST_FILES:,} more files"
    if len(found.files) > 1:
        yield f"all {len(found.files):,} files"
        yield f"  rows      {_rows_text(found.rows, found.refused, sum(file.filtered for file in found.files))}"
        yield from _refused_lines(found.refusals)
    about = "" if found.urls.is_exact else "about "
    yield f"  distinct  {about}{counted(found.urls.count, 'URL')} on {counted(found.server_count, 'server')}"
    largest = largest_servers(found.servers.names.slice(1), found.servers.rows[1:])
    yield f"  largest   {', '.join(f'{name} {rows:,}' for name, rows in largest) or '-'}"


def _file_lines(file: FileAccount, columns: list[tuple[str, str, str]] | None) -> Iterator[str]:
    yield file.path
    left_out = f" (the first: row {file.first_filtered:,})" if file.first_filtered is not None else ""
    yield f"  rows      {_rows_text(file.rows, file.refusals.total, file.filtered)}{left_out}"
    yield from _refused_lines(file.refusals)
    yield f"  columns   {_columns_text(columns) if columns is not None else 'as above'}"
    for number, url in enumerate(file.urls):
        yield f"  {'URLs' if not number else '':<9} {url}"


def _rows_text(rows: int, refused: int, filtered: int) -> str:
    left_out = f"; {filtered:,} more left out by the filter" if filtered else ""
    return f"{rows:,}, {refused:,} of them refused{left_out}"


def _refused_lines(refusals: Refusals) -> Iterator[str]:
    for number, line in enumerate(refusals.lines()):
        yield f"  {'refused' if not number else '':<9} {line}"


def _columns_text(columns: list[tuple[str, str, str]]) -> str:
    return ", ".join(f"{name} {kind}{f' ({use})' if use else ''}" for name, kind, use in columns)
