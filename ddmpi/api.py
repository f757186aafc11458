"""What other Python programs call; ``ddmpi.download`` and ``ddmpi.open_results`` are these.

Nothing here decides anything: it finds the config, and hands over to what the command line uses.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.config.config import ConfigLike, reader_of
from ddmpi.errors import SetupError
from ddmpi.io.folder.layout import layout_of
from ddmpi.io.folder.placeholders import read_placeholders
from ddmpi.io.lookup.rows import load_rows
from ddmpi.io.mpi.launcher import complain, refuse_wrong_launcher, run_together, speaks
from ddmpi.io.results.dataset import current_checks, current_outcomes

if TYPE_CHECKING:
    import pyarrow.dataset as ds
    from mpi4py import MPI


def download(config: ConfigLike, comm: MPI.Intracomm | None = None) -> int:
    """Start or resume the job of a config on all ranks of a communicator, as ``python -m ddmpi`` does.

    Collective: each rank calls it, on its main thread, since TERM, INT and USR1 stop it softly (their handlers are
    given back at the end). Only rank 0 reads ``config``; it prints progress and, on stderr, what is wrong.

    Args:
        comm: the ranks that take part; all of them by default. Messages go over duplicates of it.

    Returns:
        The exit code, on all ranks alike: 0 every row is final, 75 call it again, 2 nothing was started.

    Raises:
        Exception: a bug; it also ends all ranks (``MPI_Abort``), as none can go on without the others.
    """
    from mpi4py import MPI  # noqa: PLC0415  # MPI starts at import; open_results needs none

    ranks = MPI.COMM_WORLD if comm is None else comm

    try:
        refuse_wrong_launcher(os.environ, MPI.COMM_WORLD.Get_size())
    except SetupError as error:
        if speaks(os.environ):
            complain(str(error))
        return error.exit_code

    def run() -> int:
        from ddmpi.core.records import Orders  # noqa: PLC0415
        from ddmpi.roles import program  # noqa: PLC0415  # libcurl; imports mpi4py
        from ddmpi.roles.signals import Signals  # noqa: PLC0415

        signals = Signals()
        try:
            with _logging_as_before():
                return program.run(ranks, reader_of(config), Orders(), os.environ, signals)
        finally:
            signals.restore()

    return run_together(ranks, run)


def open_results(results: ConfigLike, at: datetime | str | None = None) -> ds.Dataset:
    """The rows of an output folder that have an outcome, each once, as a pyarrow dataset.

    Nothing but names and schemas is read before the dataset is; of batches with parts of several runs also the row
    numbers. Its columns are those of docs/output.md, with ``outcome`` (success or error), ``server_name``,
    ``partition_id`` and ``epoch`` (the run that the outcome is from).

    Args:
        results: the output folder, or the config (a YAML file, keys or a Config) of the job that wrote it: needed
            where ``output_structure`` renames the folders in it.
        at: the rows as they were at this moment, a datetime with a time zone or an ISO text with one, although a
            refresh has found files changed since. What was withdrawn since is not there. None: as they are now.

    Raises:
        SetupError: there is no such folder, or the config is wrong.
        StorageError: a part cannot be read.
        ValueError: ``at`` is no moment, or has no time zone.
    """
    return current_outcomes(layout_of(results), None if at is None else _seconds_of(at))


def open_checks(results: ConfigLike) -> ds.Dataset:
    """What refreshes have found of files that stay in an output folder, the newest finding of each row, as a pyarrow
    dataset: those rows that were asked for again since their file came, with the column ``check`` (unchanged, changed,
    gone, refused or failed) and the others of docs/output.md.

    Args:
        results: as for ``open_results``.

    Raises: as ``open_results``.
    """
    return current_checks(layout_of(results))


def _seconds_of(at: datetime | str) -> float:
    """Return the seconds since 1970 of a moment. Raises ValueError: it is none, or has no time zone; the text says what
    to write."""
    wanted = 'write a datetime with a time zone, or "2026-11-01T12:00:00+00:00"'
    if isinstance(at, str):
        try:
            at = datetime.fromisoformat(at.strip().replace("Z", "+00:00"))
        except ValueError:
            raise ValueError(f"at: {at!r} is no moment: {wanted}") from None
    if at.tzinfo is None:
        raise ValueError(f"at: {at.isoformat()} has no time zone: {wanted}, as in {at.isoformat()}+00:00 for UTC")
    return at.timestamp()


@overload
def load(results: ConfigLike, uuid: str) -> dict[str, Any]: ...  # type: ignore[overload-overlap]  # a str is a Sequence
@overload
def load(results: ConfigLike, uuid: Sequence[str]) -> list[dict[str, Any]]: ...
def load(results: ConfigLike, uuid: str | Sequence[str]) -> dict[str, Any] | list[dict[str, Any]]:
    """Return the row of a uuid, its image included, by an index that is kept in the output folder.

    The row is a dictionary of the columns that docs/output.md lists for its outcome, with ``outcome`` (success or
    error), ``server_name``, ``partition_id`` and ``epoch``; ``image`` is there also where the row refers to another
    one's. The first call makes the index ``uuids.arrow`` (16 bytes a row), later ones add the parts that came since.

    Args:
        results: as for ``open_results``.
        uuid: one, or several: then a list of rows in their order is returned. Of several rows with a uuid the first
            one of the input counts.

    Raises:
        KeyError: no row with an outcome has this uuid, or one of these.
        SetupError: there is no such folder, or the config is wrong.
        StorageError: a part cannot be read.
    """
    uuids = [uuid] if isinstance(uuid, str) else list(uuid)
    rows = load_rows(layout_of(results), uuids)
    missing = [each for each in uuids if each not in rows]
    if missing:
        raise KeyError(missing[0] if isinstance(uuid, str) else missing)
    return rows[uuid] if isinstance(uuid, str) else [rows[each] for each in uuids]


def is_placeholder(results: ConfigLike) -> pc.Expression:
    """Which rows of an output folder have a file that is a placeholder, as a filter for ``open_results`` or for any
    pyarrow dataset over its images: those that were written before that was known, too.

    Args:
        results: as for ``open_results``.

    Raises:
        SetupError: the config is wrong.
        StorageError: placeholders.parquet cannot be read.
    """
    hashes = [it.hashsum_original for it in read_placeholders(layout_of(results).placeholders)]
    return pc.field("hashsum_original").isin(pa.array(hashes, pa.string()))


@contextmanager
def _logging_as_before() -> Iterator[None]:
    """A run logs to files of its own; the caller's logging comes back after it."""
    root, ours = logging.getLogger(), logging.getLogger("ddmpi")
    handlers, level, raises = list(root.handlers), (root.level, ours.level), logging.raiseExceptions
    try:
        yield
    finally:
        for handler in [handler for handler in root.handlers if handler not in handlers]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level[0])
        ours.setLevel(level[1])
        logging.raiseExceptions = raises
