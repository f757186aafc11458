"""The table as the answer of an SQL query: DuckDB runs it once, out of core, into one Parquet file.

The file says in its own metadata which query it answers and what the files were that the query read (path, size, time
of the last change): as long as these are the same, it is the table, whatever order another run of the query might give.
Which files a query reads is found in its text, by DuckDB's own parser: the names of tables, and the constant arguments
of ``read_csv`` and the like, that name files here, wildcards included. That nothing was missed is proved afterwards, by
DuckDB's log of what it opened.

Must not know what the columns mean. One ``SELECT`` alone is run, without network: no extension is fetched or loaded,
but for ``excel`` where it is installed and the query reads a spreadsheet; secrets are not read; a name in the query is
never a variable of this program.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.errors import InputError, Interrupted, StorageError
from ddmpi.io.folder.disk_errors import one_line
from ddmpi.io.folder.durable import make_folders, publish
from ddmpi.io.sources.files import size_and_time

if TYPE_CHECKING:
    import duckdb

_FACTS: Final = b"ddmpi_query"
"""Metadata of the answer: the ``Query.facts`` that it was made from."""
_CONSTANT_KEYS: Final = ("text", "value")
"""Where DuckDB's tree of a query has the texts of constants, by version."""
_SETTINGS: Final = (
    "autoinstall_known_extensions = false",
    "autoload_known_extensions = false",
    "allow_persistent_secrets = false",
    "python_enable_replacements = false",
    "enable_progress_bar = true",  # without it DuckDB does not know how far it is
    "enable_progress_bar_print = false",
)
_MEMORY_SHARE: Final = 1.5
"""DuckDB may take half as much again as the budget for rows in memory: nothing else is held while it runs. A join that
just fits is twice as fast as one that has to be spilled."""
_MAX_THREADS: Final = 4
_LOOK_S: Final = 0.1
_DISK_TROUBLE: Final = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS))


@dataclass(frozen=True)
class Query:
    """One query; ``memory_bytes`` is the budget for rows in memory (``initialization.memory_bytes``)."""

    sql: str
    memory_bytes: int

    def is_answered_by(self, path: Path) -> bool:
        """Return whether a file holds the answer, and the files that the query reads have not changed since. Raises
        InputError: the query is no query, or DuckDB is not installed."""
        try:
            known = (pq.read_schema(path).metadata or {}).get(_FACTS)
        except (OSError, pa.ArrowException):
            return False
        with _connected() as connection:
            return known == _encoded(self.sql, _files_of(connection, self._statement(connection)))

    def answer(
        self,
        path: Path,
        temporary: Path,
        should_stop: Callable[[], bool] = lambda: False,
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Run the query; its rows become the file ``path``, whole or not at all, in place of one that is there.

        Args:
            temporary: folder on the same file system, made if missing: for what is unfinished, and for what DuckDB
                cannot hold in memory.
            on_progress: told often how far the query is by DuckDB's count, from 0 to 1; below 0: that is not known.

        Raises:
            InputError: DuckDB refuses the query or cannot read its files, or they change meanwhile.
            StorageError: the answer cannot be written.
            Interrupted: ``should_stop`` turned true.
        """

        def is_to_stop() -> bool:
            on_progress(connection.query_progress() / 100)
            return should_stop()

        make_folders(temporary)
        unfinished = temporary / f"query-{uuid.uuid4().hex}"
        try:
            with _connected() as connection:
                statement = self._statement(connection)
                files = _files_of(connection, statement)
                self._copy(connection, statement, _encoded(self.sql, files), unfinished, is_to_stop)
                _check_opened(connection, files, unfinished)
                if files != _files_of(connection, statement):
                    raise InputError("input.sql: a file that the query reads changed while it was read")
            publish(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)

    def _statement(self, connection: duckdb.DuckDBPyConnection) -> str:
        """Return the query without a semicolon and what follows it. Raises InputError: it is not one SELECT."""
        import duckdb  # noqa: PLC0415  # an extra

        statements = connection.extract_statements(self.sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise InputError("input.sql: one SELECT is expected, and nothing else")
        octets = self.sql.encode()
        ends = [offset for offset, _ in duckdb.tokenize(self.sql) if octets[offset : offset + 1] == b";"]
        return octets[: min(ends, default=None)].decode()

    def _copy(
        self,
        connection: duckdb.DuckDBPyConnection,
        statement: str,
        facts: bytes,
        target: Path,
        should_stop: Callable[[], bool],
    ) -> None:
        connection.execute(f"SET memory_limit = '{round(_MEMORY_SHARE * self.memory_bytes)} B'")
        connection.execute(f"SET temp_directory = {_quoted(f'{target}.spilled')}")
        connection.execute(f"SET threads = {min(_MAX_THREADS, len(os.sched_getaffinity(0)))}")
        connection.execute("CALL enable_logging('FileSystem')")
        metadata = f"{{{_FACTS.decode()}: {_quoted(facts.decode())}}}"
        # The bracket on a line of its own: the query may end in a comment.
        command = f"COPY ({statement}\n) TO {_quoted(str(target))} (FORMAT parquet, KV_METADATA {metadata})"
        with ThreadPoolExecutor(1, thread_name_prefix="query") as pool:
            running = pool.submit(connection.execute, command)
            while not _is_over(running):
                if should_stop():
                    connection.interrupt()
                    wait([running])
                    raise Interrupted("stopped while the query of input.sql ran; run the same command again")
            running.result()


def _is_over(running: Future[Any]) -> bool:
    return bool(wait([running], timeout=_LOOK_S).done)


@contextmanager
def _connected() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that reads local files alone; what DuckDB raises within becomes an InputError or, for a disk
    that takes no more, a StorageError."""
    try:
        import duckdb  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise InputError('input.sql needs DuckDB: pip install "ddmpi[sql]"') from error
    try:
        with duckdb.connect(":memory:") as connection:
            for setting in _SETTINGS:
                connection.execute(f"SET {setting}")
            yield connection
    except duckdb.OutOfMemoryException as error:
        reason = "the query needs more memory than initialization.memory_bytes allows, or more disk than there is"
        raise InputError(f"input.sql: {reason}: {_without_advice(error)}") from error
    except duckdb.Error as error:
        if any(trouble in str(error) for trouble in _DISK_TROUBLE):
            raise StorageError(f"cannot write the answer of input.sql: {one_line(error)}") from error
        raise InputError(f"input.sql: {_without_advice(error)}{_hint(str(error))}") from error


def _without_advice(error: Exception) -> str:
    """Return what DuckDB says, without its advice on settings that are not the user's here."""
    text = str(error)
    for advice in ("Possible solutions:", "Please try installing", "Install it first"):
        text = text.partition(advice)[0]
    return text.rstrip()


def _hint(message: str) -> str:
    if "httpfs" in message:
        return "\nA query reads local files alone: copy them here, or name a store in path_to_input."
    if "excel" in message:
        install = "python -c \"import duckdb; duckdb.sql('INSTALL excel')\""
        return f"\nSpreadsheets need an extension of DuckDB, once, with network: {install}; or save the sheet as CSV."
    return ""


def _files_of(connection: duckdb.DuckDBPyConnection, statement: str) -> dict[str, tuple[int, int]]:
    """Return size and time (ns since 1970) of each file that the query names, by its absolute path, in order. Loads
    what the query needs to read spreadsheets."""
    row = connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [statement]).fetchone()
    tree = json.loads(row[0]) if row is not None else {}
    names = sorted(set(_names_in(tree)))
    if any(name.lower().endswith(".xlsx") for name in names):
        connection.execute("LOAD excel")
    found: set[str] = set()
    for name in names:
        rows = connection.execute("SELECT file FROM glob($1::VARCHAR)", [name]).fetchall()
        found.update(str(Path(file).absolute()) for (file,) in rows if Path(file).is_file())
    try:
        return {file: size_and_time(Path(file)) for file in sorted(found)}
    except OSError as error:
        raise InputError(f"{error.filename}: {one_line(error)}") from error


def _names_in(node: Any, *, is_argument: bool = False) -> Iterator[str]:
    """Yield what may name files, from the JSON of a parsed query: its tables, and the constants among the arguments of
    functions that make tables, but for named ones (``delim='x'``). A URI is left to DuckDB, which refuses it and names
    the extension that is not there."""
    if isinstance(node, dict):
        kind = node.get("type")
        if kind == "BASE_TABLE":
            yield from _local_name(node["table_name"])
        is_named = kind == "COMPARE_EQUAL" or bool(node.get("name"))
        if not (is_argument and is_named):
            for key, inner in node.items():
                if is_argument and key in _CONSTANT_KEYS:
                    yield from _local_name(inner)
                is_call = kind == "TABLE_FUNCTION" and key == "function"
                yield from _names_in(inner, is_argument=is_argument or is_call)
    elif isinstance(node, list):
        for inner in node:
            yield from _names_in(inner, is_argument=is_argument)


def _local_name(value: object) -> Iterator[str]:
    if isinstance(value, str) and value and "://" not in value:
        yield value


def _check_opened(connection: duckdb.DuckDBPyConnection, files: dict[str, tuple[int, int]], own: Path) -> None:
    """Raise InputError if the query has read a file that its text does not name: a change of it would go unseen."""
    rows = connection.execute("SELECT DISTINCT path FROM duckdb_logs_parsed('FileSystem') WHERE op = 'OPEN'").fetchall()
    opened = {str(Path(path).absolute()) for (path,) in rows}
    unnamed = sorted(path for path in opened - files.keys() if not path.startswith(str(own.absolute())))
    if unnamed:
        raise InputError(
            f"input.sql: the query reads {unnamed[0]}, which it does not name in one text; write it as 'NAME' (or with "
            "wildcards), so that a change of the file is seen"
        )


def _encoded(sql: str, files: dict[str, tuple[int, int]]) -> bytes:
    return json.dumps({"sql": sql, "files": files}).encode()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
