"""Stage 1 and what comes before it: own the output folder, check that it fits config and input, partition the table.

Order matters: the lock first, then the checks that change nothing, then the epoch that fences off earlier runs, and
only then anything that writes.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddmpi.config.config import LATER_SEMANTIC_KEYS, Config, changed_keys, digests
from ddmpi.config.input_section import InputSection
from ddmpi.core.records import Orders
from ddmpi.errors import ConfigError, InputError, OutputError
from ddmpi.io.folder.checkpoint import Checkpoint, load
from ddmpi.io.folder.durable import make_folders
from ddmpi.io.folder.fence import highest_epoch, open_epoch
from ddmpi.io.folder.layout import PART_KINDS, Layout
from ddmpi.io.folder.lock import OutputLock, acquire_for_job
from ddmpi.io.folder.profiles import read_profiles
from ddmpi.io.input.query import Query
from ddmpi.io.input.rewriting import make_rewriter
from ddmpi.io.input.table import InputTable, open_input
from ddmpi.io.input.trial import first_rows, random_rows
from ddmpi.io.results.promises import check_promises
from ddmpi.io.results.publishing import Publisher, claim, make_publisher
from ddmpi.io.sources.files import list_files
from ddmpi.io.sources.opening import is_known_kind
from ddmpi.io.urls.address_grouping import AddressGrouping, AddressSummary
from ddmpi.io.urls.address_table import located
from ddmpi.io.urls.batch_reader import BatchReader
from ddmpi.io.urls.batch_table import BatchTable
from ddmpi.io.urls.index import UrlsIndex, read_index
from ddmpi.io.urls.input_growth import known_rows
from ddmpi.io.urls.survey import check_refused, is_mostly_refused
from ddmpi.io.urls.writer import PartitionProgress, PartitionSummary, partition_input
from ddmpi.report.formats import duration
from ddmpi.roles.coordinator.run_state import RunState

log = logging.getLogger(__name__)

QUERY_TOLD_S = 10.0
"""How often it is said how far the query of ``input.sql`` is."""
MOST_NAMED = 5
"""Servers that a message names."""


@dataclass(frozen=True)
class InitCallbacks:
    """How initialization tells what it does, and asks whether to go on."""

    on_rows: Callable[[PartitionProgress], None]
    on_partitioned: Callable[[PartitionSummary], None]
    should_stop: Callable[[], bool]
    on_names: Callable[[int, int], None] = lambda _done, _total: None
    """How many of how many host names are looked up, where rules are about addresses."""
    on_grouped: Callable[[AddressSummary], None] = lambda _: None
    on_input: Callable[[InputTable], None] = lambda _: None
    """The input is open, and about to be read."""
    on_query: Callable[[str], None] = lambda _: None
    """A line about the query of ``input.sql``."""


def own_output(layout: Layout, environment: Mapping[str, str]) -> OutputLock:
    """Make the output folder if it is missing and become its one owner. Raises OutputError: it cannot be written, or
    another run has it."""
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the output folder {layout.root}: {error.strerror}") from error
    return acquire_for_job(layout.lock, environment)


def initialize(
    config: Config,
    layout: Layout,
    lock: OutputLock,
    orders: Orders,
    callbacks: InitCallbacks,
    *,
    asks_store: bool = True,
) -> RunState:
    """Bring the output folder to the point from which rows can be fetched.

    Args:
        asks_store: False: the object store of ``publish.to`` is left alone, and no file is asked for again, as nothing
            is fetched now.

    Raises:
        SetupError: config, input and output folder do not fit together.
        StorageError: the folder cannot be written.
        Interrupted: ``should_stop`` said so before the table was partitioned.
    """
    stale_before = cutoff_of(config, time.time())
    found, warnings = load(layout)
    for warning in [*warnings, *_doubts(layout, found, warnings)]:
        log.warning("%s", warning)
    checkpoint = found or Checkpoint(epoch=0)
    if not orders.reset_batched:
        check_same(checkpoint, config)
    index = read_index(layout.urls) if layout.batches_table.exists() and not orders.reset_batched else None
    given = _given_input(config, layout, checkpoint, index, callbacks)
    if asks_store:
        claim(layout, config.publish.to)
    if orders.reset_batched:
        publisher = make_publisher(layout, config.publish.to, highest_epoch(layout))
        _reset_batched(layout, publisher, delete_results=orders.delete_results)
        checkpoint = Checkpoint(epoch=highest_epoch(layout))
    epoch = max(checkpoint.epoch, highest_epoch(layout)) + 1
    make_folders(layout.logs)
    open_epoch(layout, epoch)
    stages = dict(checkpoint.stages)
    if orders.reset_profiled:
        layout.profiles.unlink(missing_ok=True)
        stages.pop("profiled", None)
    if given.new is not None and index is None:
        stages["batched"] = _partition(config, layout, given.new, callbacks)
    elif given.new is not None and index is not None:
        _add_rows(config, given.new, index, callbacks)
        stages.pop("profiled", None)  # there may be new servers
    state = RunState(
        config=located(config, layout),
        layout=layout,
        table=BatchTable(layout),
        reader=BatchReader(layout.urls),
        lock=lock,
        epoch=epoch,
        input_fingerprint=given.fingerprint,
        input_stamp=given.stamp,
        stages=stages,
        servers=dict(checkpoint.servers),
        saved_at=checkpoint.saved_at,
        profiles=read_profiles(layout.profiles) if layout.profiles.exists() else {},
        ran_s=checkpoint.ran_s,
        publisher=make_publisher(layout, config.publish.to, epoch) if asks_store else None,
        changed_keys=changed_keys(checkpoint.config_digests, digests(config)),
    )
    if orders.retry_failed:
        log.info("%d failed rows are fetched again", state.retry_failed(orders.retry_failed))
    if stale_before and asks_store:
        log.info("%d files are asked for again", state.refresh(stale_before))
    state.save({})
    return state


def cutoff_of(config: Config, now: float) -> float:
    """Return before which moment a file has to be last asked for to be asked for again (seconds since 1970, as
    ``now``); 0 = none is. Raises ConfigError: that moment is still to come."""
    cutoff = config.refresh.cutoff(now)
    if cutoff > now:
        raise ConfigError(
            f"refresh.older_than: {config.refresh.older_than} is still to come: every start would ask for all files "
            "again. Write a date that has passed, or an age such as 30d"
        )
    return cutoff


@dataclass(frozen=True)
class _GivenInput:
    """The input as a run finds it, against what the output folder has of it."""

    stamp: str
    fingerprint: str
    new: InputTable | None
    """The rows that are to be partitioned; None: the folder has all of them."""


def _given_input(
    config: Config, layout: Layout, checkpoint: Checkpoint, index: UrlsIndex | None, callbacks: InitCallbacks
) -> _GivenInput:
    """Find the input, and open it unless it is plain that it is the one that the folder has. Raises as
    ``initialize``."""
    path = answered(config, layout.query, layout.temporary, callbacks)
    before, stamp = checkpoint.input_fingerprint, input_stamp(config, path)
    # Of many files opening takes its time, and tells no more than their sizes and times.
    if index is not None and before and stamp == checkpoint.input_stamp:
        return _GivenInput(stamp, before, None)
    table = input_of(config, path, callbacks.should_stop)
    fingerprint = table.fingerprint()
    callbacks.on_input(table)
    if index is None:
        return _GivenInput(stamp, fingerprint, table)
    # A folder of 0.1.0 does not say how many rows it holds: without its checkpoint there is nothing to compare by.
    if before == fingerprint or (not before and index.input_rows is None):
        return _GivenInput(stamp, fingerprint, None)
    if config.trial:
        raise OutputError(f"the input {table.name} has changed since this trial was begun: remove {layout.root}")
    return _GivenInput(stamp, fingerprint, table.after(_known_rows(table, index, layout.query, callbacks)))


def answered(config: Config, answer: Path, temporary: Path, callbacks: InitCallbacks) -> str:
    """Return the path of the input; if that is a query, of its answer, for which it is run unless ``answer`` is there
    and what the query reads is as it was.

    Raises:
        InputError: the query cannot be run.
        StorageError: its answer cannot be written.
        Interrupted: ``should_stop`` said so.
    """
    if config.path_to_input is not None:
        return config.path_to_input
    query = query_of(config)
    if not query.is_answered_by(answer):
        callbacks.on_query("Running the query of input.sql ...")
        started = time.monotonic()
        told_at = started

        def tell(share: float) -> None:
            nonlocal told_at
            now = time.monotonic()
            if now - told_at >= QUERY_TOLD_S:
                told_at = now
                done = f"{share:.0%} done" if share >= 0 else "how far it is cannot be told"
                callbacks.on_query(f"The query has run for {duration(now - started)}: {done}")

        query.answer(answer, temporary, callbacks.should_stop, tell)
        if config.columns.headers is not None:
            answer.chmod(0o600)
        callbacks.on_query(f"The query took {duration(time.monotonic() - started)}")
    return str(answer)


def query_of(config: Config) -> Query:
    """Return the query of a config that has one."""
    return Query(config.input.sql or "", config.initialization.memory_bytes)


def input_of(config: Config, path: str, should_stop: Callable[[], bool] = lambda: False) -> InputTable:
    """Return the input, whose rows are at ``path``, as the config wants it: all rows, or those of a trial.

    Raises:
        InputError: there is none, or none that can be read.
        Interrupted: ``should_stop`` said so.
    """
    table = whole_input(config, path)
    if config.limit is not None:
        return table.only(first_rows(table, config.limit))
    return table if config.sample is None else table.only(random_rows(table, config.sample, config.seed, should_stop))


def whole_input(config: Config, path: str) -> InputTable:
    """Return the input with all of its rows, in a trial too. Raises InputError: there is none, or none that can be
    read."""
    table = open_input(
        path,
        config.columns.as_lists(),
        config.keep_columns,
        config.row_filter,
        InputSection() if config.path_to_input is None else config.input,
        base_url=config.base_url,
        required=config.columns.written,
        mirrors=config.mirrors,
        rewriter=make_rewriter(config),
    )
    missing = [name for name in config.expected.columns if name not in table.schema.names]
    if missing:
        raise InputError(f"{table.name}: no column {', '.join(missing)}, which expected names")
    return table


def input_stamp(config: Config, path: str) -> str:
    """Return a digest of the input's files, by their names, sizes and times, and of how they are read; nothing is
    opened. Raises InputError: there is no input."""
    listing = list_files(path, is_known_kind)
    return hashlib.sha256(f"{listing.stamp()} {config.input.model_dump_json()}".encode()).hexdigest()


def _doubts(layout: Layout, checkpoint: Checkpoint | None, warnings: Sequence[str]) -> list[str]:
    """What is strange about a checkpoint that could be read, or about its absence."""
    last = highest_epoch(layout)
    if checkpoint is None and last and not warnings:
        return [
            f"{layout.checkpoint} is missing, although this is not the folder's first run: what is done is read from "
            "the parts; rates are learned anew, and whether the config is the same as before cannot be told"
        ]
    if checkpoint is not None and checkpoint.epoch < last:
        return [
            f"the checkpoint is of run {checkpoint.epoch}, and the last run was {last}: what is done is read from the "
            "parts; what that run learned of the servers is learned anew"
        ]
    return []


def check_same(checkpoint: Checkpoint, config: Config) -> None:
    """A folder belongs to one config, as far as that decides what the folder holds. Raises OutputError: this is
    another one."""
    before, now = {**LATER_SEMANTIC_KEYS, **checkpoint.config_semantic}, config.semantic()
    changed = [f"  {key}: was {before[key]!r}, is {now.get(key)!r}" for key in before if before[key] != now.get(key)]
    if checkpoint.config_semantic and changed:
        raise OutputError(
            "the config has changed since this output folder was begun:\n" + "\n".join(changed) + "\n"
            "change it back, or use another path_to_output_folder"
        )


def check_contact(config: Config, servers: Sequence[str]) -> None:
    """Raise ConfigError: there are servers here whose policy asks for a contact, and the User-Agent has none."""
    refusing = sorted({server for server in servers if config.refuses_without_contact(server)})
    if refusing:
        more = f" and {len(refusing) - MOST_NAMED} more" if refusing[MOST_NAMED:] else ""
        raise ConfigError(
            f"{', '.join(refusing[:MOST_NAMED])}{more}: the policy of these servers asks for a contact in the "
            f"User-Agent (a URL or a mail address) and blocks who has none; here it is {config.user_agent!r}. Write: "
            f"{config.contact_line}"
        )


def _known_rows(table: InputTable, index: UrlsIndex, query: Path, callbacks: InitCallbacks) -> int:
    """How many rows of an input that is not the same as before the urls folder has: they have to be its first ones."""
    log.info("the input is not the same as before: its rows are compared with those in %s", index.folder)
    try:
        return known_rows(table, index, callbacks.should_stop)
    except OutputError as error:
        order = "; a query without ORDER BY may give its rows in another order" if table.name == str(query) else ""
        raise OutputError(
            f"the input {table.name} has changed since this output folder was begun: {error}{order}; "
            "restore it, use another path_to_output_folder, or start anew with --reset-batched --yes-delete-results"
        ) from error


def _reset_batched(layout: Layout, publisher: Publisher | None, *, delete_results: bool) -> None:
    """Remove the partitioned table, and with it everything that refers to its batches."""
    trees = map(layout.parts_tree, PART_KINDS)
    results = [folder for folder in trees if folder.exists() and any(folder.iterdir())]
    if results and not delete_results:
        raise OutputError(
            f"{layout.root} holds results that refer to the present batches; "
            "--reset-batched deletes them only together with --yes-delete-results"
        )
    if publisher is not None and results:
        # Before the disk's: after a kill in between, the folder still shows that there is something to delete.
        publisher.clear()
    for folder in (*results, layout.urls, layout.schedules):
        if folder.exists():
            shutil.rmtree(folder)
    for entry in layout.batches.iterdir() if layout.batches.exists() else ():
        if entry != layout.temporary:
            shutil.rmtree(entry)
    layout.profiles.unlink(missing_ok=True)
    layout.placeholders.unlink(missing_ok=True)
    layout.refreshed.unlink(missing_ok=True)


def _partition(config: Config, layout: Layout, table: InputTable, callbacks: InitCallbacks) -> dict[str, Any]:
    """Stage 1 itself; what the checkpoint keeps of it."""
    for doubt in _doubts_about_promises(config, table):
        log.warning("%s", doubt)
    summary = _cluster(config, table, layout.urls, None, callbacks)
    _warn_of_repaired(table)
    callbacks.on_partitioned(summary)
    return {"rows": summary.rows, "dropped": summary.dropped, "servers": summary.servers}


def _doubts_about_promises(config: Config, table: InputTable) -> list[str]:
    """Which values of ``expected`` cannot be read, as far as the first rows show. Raises InputError: none can."""
    algorithm = config.downloader_parameters.hash_algorithm
    try:
        return check_promises(config.expected, lambda: (raw.make() for raw in table.raw()), algorithm)
    except InputError as error:
        raise InputError(f"{table.name}: {error}") from error


def _add_rows(config: Config, added: InputTable, index: UrlsIndex, callbacks: InitCallbacks) -> None:
    """Stage 1 for the rows that an input has grown by, if there are any."""
    if next(added.raw(), None) is None:
        return
    summary = _cluster(config, added, index.next_addition, index, callbacks)
    _warn_of_repaired(added)
    log.info("%d rows were added to the input", summary.rows)
    callbacks.on_partitioned(summary)


def _warn_of_repaired(table: InputTable) -> None:
    if table.repaired:
        columns = ", ".join(f"{name} {count:,}" for name, count in sorted(table.repaired.items()))
        log.warning(
            "values that are not all UTF-8, and have U+FFFD in the results for what is broken: %s; if the input is in "
            "another encoding, name it in input.encoding, for example cp1252, and start anew",
            columns,
        )


def _cluster(
    config: Config, table: InputTable, folder: Path, earlier: UrlsIndex | None, callbacks: InitCallbacks
) -> PartitionSummary:
    by_address = None
    if config.rules.per_address:
        by_address = AddressGrouping(
            config, earlier, on_progress=callbacks.on_names, on_grouped=callbacks.on_grouped,
            should_stop=callbacks.should_stop,
        )  # fmt: skip
    return partition_input(
        table,
        folder,
        batch_size=config.downloader_parameters.batch_size,
        small_rows=min(config.profiling.min_rows, config.downloader_parameters.batch_size),
        group_of=config.group_of,
        grouped=config.rules.grouped,
        by_address=by_address,
        earlier=earlier,
        on_counted=lambda rows, refused: _check_refused(config, table, earlier, rows, refused),
        memory_bytes=config.initialization.memory_bytes,
        on_progress=callbacks.on_rows,
        should_stop=callbacks.should_stop,
    )


def _check_refused(
    config: Config, table: InputTable, earlier: UrlsIndex | None, rows: int, refused: Mapping[str, int]
) -> None:
    """Raise InputError: more than half of the rows are refused, of those that are new and of all."""
    known = 0 if earlier is None else int(np.sum(earlier.batches.column("rows").to_numpy()))
    known_refused = 0 if earlier is None else earlier.refused_rows
    if not config.allow_refused and is_mostly_refused(rows + known, sum(refused.values()) + known_refused):
        check_refused(table, rows, refused)
