"""``--forget FILE``: withdrawn images leave the output folder for good, and their rows say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from ddmpi.config.config import Config
from ddmpi.core.records import ErrorKind
from ddmpi.errors import EXIT_DONE
from ddmpi.io.folder.checkpoint import load, save
from ddmpi.io.folder.fence import highest_epoch, open_epoch
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.lock import OutputLock, acquire_for_job
from ddmpi.io.forget.given import given_names
from ddmpi.io.forget.names import read_forgotten, write_forgotten
from ddmpi.io.forget.removal import Found, Removed, Remover, find
from ddmpi.io.lookup.uuid_index import remove_index
from ddmpi.io.results.parts import ResultOptions
from ddmpi.io.results.publishing import claim, make_publisher
from ddmpi.io.urls.batch_reader import BatchReader
from ddmpi.io.urls.batch_table import BatchTable
from ddmpi.report.formats import counted

_MOST_NAMED: Final = 5


def forget(config: Config, layout: Layout, file: Path, environment: Mapping[str, str], out: Console) -> int:
    """Remove what a file names, and what is left of removals that were interrupted; returns the exit code.

    Raises:
        SetupError: the file cannot be read; the output folder is in use, or does not belong to its object store.
        StorageError: the disk or the store fails: the same command goes on from there.
    """
    names = given_names(file)
    lock = acquire_for_job(layout.lock, environment)
    try:
        _forget(config, layout, names, lock, out)
    finally:
        lock.release()
    return EXIT_DONE


def _forget(config: Config, layout: Layout, names: frozenset[str], lock: OutputLock, out: Console) -> None:
    claim(layout, config.publish.to)
    checkpoint, _ = load(layout)
    epoch = max(0 if checkpoint is None else checkpoint.epoch, highest_epoch(layout)) + 1
    open_epoch(layout, epoch)
    table = BatchTable(layout)
    publisher = make_publisher(layout, config.publish.to, epoch)
    options = ResultOptions(config, layout, BatchReader(layout.urls), epoch, 0, 1, publisher)
    forgotten = read_forgotten(layout.forgotten).plus(names, {})
    found: list[Found] = []
    seen: set[str] = set()
    for batch_id in range(len(table)):
        each = find(options, table.ref(batch_id), forgotten)
        seen |= each.names
        if len(each.rows):
            found.append(each)
        lock.touch()
    forgotten = forgotten.plus((), {row: urls for each in found for row, urls in each.urls.items()})
    write_forgotten(layout.forgotten, forgotten, layout.temporary)
    remove_index(layout)
    remover = Remover(options)
    removed = []
    for each in found:
        removed.append(remover.remove(each))
        lock.touch()
    if checkpoint is not None:
        counters = _counters(checkpoint.counters, removed)
        save(layout, msgspec.structs.replace(checkpoint, epoch=epoch, counters=counters))
    _tell(removed, sorted(names - seen), out)


def _counters(before: Mapping[str, int], removed: list[Removed]) -> dict[str, int]:
    """Return what ``--status`` shows, until the next run counts again."""
    if not before:
        return {}
    rows, others = (sum(getattr(each, name) for each in removed) for name in ("rows", "others"))
    kinds = Counter(kind for each in removed for kind in each.kinds)
    counters = Counter(before)
    counters["successes"] -= rows
    counters["errors"] += rows + others - kinds.total()
    counters[f"errors.{ErrorKind.FORGOTTEN.value}"] += rows + others
    counters.subtract({f"errors.{kind}": count for kind, count in kinds.items()})
    return dict(counters)


def _tell(removed: list[Removed], unknown: list[str], out: Console) -> None:
    images, others, parts = (sum(getattr(each, name) for each in removed) for name in ("images", "others", "parts"))
    out.print(f"Removed {counted(images, 'image')} from {counted(parts, 'part')}.", markup=False)
    if images:
        out.print("report.html may have shown some, and is gone; the next run writes it anew.", markup=False)
    if others:
        out.print(f"{counted(others, 'row')} without an image will not be fetched either.", markup=False)
    if unknown:
        named = ", ".join(unknown[:_MOST_NAMED]) + (" ..." if len(unknown) > _MOST_NAMED else "")
        out.print(f"{counted(len(unknown), 'name')} of no row here, kept for rows to come: {named}", markup=False)
    out.print("Copies elsewhere (exports, backups, caches) are yours to remove.", markup=False)
